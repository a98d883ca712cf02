"""Damaged jsons: one clear line, or records that hold what the PNGs say."""

from __future__ import annotations

import copy
import json
import pathlib
import time
from typing import Any

import numpy as np
import pytest

from cmt.data.checks.report import validate
from cmt.data.panoptic.masks import read_ids
from cmt.data.panoptic.registry import Paths
from cmt.data.records.reader import decode_example
from cmt.errors import InputError
from cmt.labels import LABEL_DIVISOR
from tests.data import faults
from tests.data.conversions import convert_paths
from tests.data.records import read_records

MAX_SECONDS = 10.0  # of the processor: others may hold it
NESTED: Any = []
for _ in range(200):
    NESTED = [NESTED]
VALUES = (
    *(None, True, False, -1, 0, 1, 2, 255, 10**6, 2**24, 2**63, 10**400, 0.5, 1e400),
    *("", "1", "a.png", "../a.png", "/a.png", "x\ud800", "[red]\n", "\0", [], {}, [[]]),
    *({"id": 1}, NESTED, list(range(300))),
)


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a json."""
    found = []
    for key in node if isinstance(node, dict) else range(len(node)):
        found.append((node, key))
        if isinstance(node[key], dict | list):
            found += places(node[key])
    return found


def mutate(rng: np.random.Generator, content: dict[str, Any]) -> None:
    """Changes one place, any of the json or of its upper levels."""
    found = places(content)
    if rng.random() < 0.3:  # most places are in segments
        found = [one for one in found if "segments_info" not in str(one[1])]
        found = [one for one in found if "area" not in one[0]]
    node, key = found[rng.integers(len(found))]
    other, other_key = found[rng.integers(len(found))]
    way = rng.integers(5)
    if way == 0:
        del node[key]
    elif way == 1:
        node[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    elif way == 2 and isinstance(node, list):
        node.insert(int(rng.integers(len(node) + 1)), copy.deepcopy(node[key]))
    elif way == 3 and isinstance(node, dict):
        node[f"{key} "] = node.pop(key)
    else:
        node[key] = copy.deepcopy(other[other_key])


def dicts(entries: list[Any]) -> list[dict[str, Any]]:
    return [entry for entry in entries if isinstance(entry, dict)]


def integer(value: Any) -> int:
    """Texts and floats may stand for integers."""
    return int(float(value))


def annotation_of(content: dict[str, Any], name: str) -> dict[str, Any]:
    """The annotation of a record; without a list of images they name the files."""

    def stem(entry: dict[str, Any]) -> str:
        return pathlib.PurePosixPath(str(entry.get("file_name"))).stem

    found = dicts(content["annotations"])
    images = content.get("images")
    if images is None:
        found = [one for one in found if stem(one) == name]
    else:
        numbers = [one["id"] for one in dicts(images) if stem(one) == name]
        found = [one for one in found if one.get("image_id") in numbers]
    (entry,) = found
    return entry


def expected_labels(
    content: dict[str, Any], name: str, folder: pathlib.Path
) -> tuple[np.ndarray, np.ndarray]:
    """What the PNG of a record must become, read without the project's reader.

    Returns:
      Of each pixel: its class, 0 where void; and its segment, whatever number.
    """
    classes = [integer(entry["id"]) for entry in content["categories"]]
    entry = annotation_of(content, name)
    # It may name the photo, or nothing.
    mask = pathlib.PurePosixPath((entry.get("file_name") or name).replace("\\", "/"))
    mask = mask if (folder / mask).is_file() else mask.with_suffix(".png")
    ids = read_ids(folder / mask)
    labels = np.zeros_like(ids)
    segments = ids.copy()
    for info in entry["segments_info"]:
        pixels = ids == integer(info["id"])
        index = classes.index(integer(info["category_id"])) + 1
        labels[pixels] = 0 if integer(info.get("iscrowd") or 0) else index
    listed = {integer(info["id"]) for info in entry["segments_info"]}
    assert set(np.unique(ids)) <= {0, *listed}
    return labels, segments


def check_record(record: bytes, content: dict[str, Any], folder: pathlib.Path) -> None:
    example = decode_example(record, len(content["categories"]))
    name = example.name.numpy().decode()
    labels = example.labels.numpy()
    classes, segments = expected_labels(content, name, folder)
    np.testing.assert_array_equal(labels // LABEL_DIVISOR, classes, err_msg=name)
    categories = content["categories"]
    things = [integer(c["id"]) for c in categories if integer(c["isthing"])]
    order = [integer(c["id"]) for c in categories]
    for value in np.unique(labels[labels > 0]):
        inside = labels == value
        if order[value // LABEL_DIVISOR - 1] in things:
            # One label, one segment: neither parts of two nor a part of one.
            (segment,) = np.unique(segments[inside])
            assert (segments == segment).sum() == inside.sum()


def run(sources: faults.Sources, output: pathlib.Path, count: int, seed: int) -> int:
    """Damages the json so often; returns how many records were written."""
    rng = np.random.default_rng(seed)
    good = json.loads(sources["annotations"].read_text())
    # A few images: the walk through the json is what is tried.
    kept = {image["id"] for image in good["images"][:3]}
    good["images"] = good["images"][:3]
    good["annotations"] = [a for a in good["annotations"] if a["image_id"] in kept]
    written = 0
    for number in range(count):
        content = copy.deepcopy(good)
        for _ in range(rng.integers(1, 4)):
            mutate(rng, content)
        text = json.dumps(content)
        if rng.random() < 0.1:
            text = text[: rng.integers(len(text))]
        sources["annotations"].write_text(text)
        start = time.process_time()
        paths = Paths(**sources)
        found = validate(paths, workers=1)
        for problem in (*found.problems, *found.notes):
            assert len(problem.line.splitlines()) == 1
        folder = output / str(number)
        try:
            manifest = convert_paths(
                paths, output=folder, split="val", workers=1, max_bad=3
            )
        except InputError as error:
            assert len(str(error).splitlines()) == 1
            assert found.problems, "conversion refuses what validation lets pass"
            continue
        finally:
            assert time.process_time() - start < MAX_SECONDS
        for shard in manifest.shards:
            for record in read_records(folder / shard.name):
                check_record(record, json.loads(text), sources["masks"])
                written += 1
    return written


def test_damaged_jsons(broken, tmp_path):
    assert 40 < run(broken, tmp_path / "out", 40, seed=0) < 120


@pytest.mark.slow
def test_five_thousand(broken, tmp_path):
    assert 3000 < run(broken, tmp_path / "out", 5000, seed=1) < 15000
