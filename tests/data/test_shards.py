"""Which images go into which shard, and whose files a conversion may remove."""

from __future__ import annotations

import hashlib
import itertools
import json
import pathlib

import pytest

from cmt.data.checks.source import open_source
from cmt.data.convert import convert as convert_module
from cmt.data.convert.encode import EncodingOptions
from cmt.data.panoptic.registry import Paths
from cmt.io import storage
from cmt.io.files import atomic_write
from tests.data.conversions import convert, convert_paths


@pytest.fixture
def planned(broken):
    """What `plan_shards` takes: images and how they are made; bytes of the files."""
    source = open_source(Paths(**broken))
    entries = source.check.images
    encoding = EncodingOptions(source.paths, source.check.categories, False)
    sizes = [
        (broken["images"] / entry.file_name).stat().st_size
        + (broken["masks"] / entry.mask_name).stat().st_size
        for entry in entries
    ]
    return entries, encoding, sizes


def counts(planned, number: int = 0) -> list[int]:
    entries, encoding, _ = planned
    tasks = convert_module.plan_shards(
        entries, split="x", shards=number, encoding=encoding
    )
    assert [entry for task in tasks for entry in task.entries] == entries
    names = [f"x-{n:05d}-of-{len(tasks):05d}.tfrecord" for n in range(len(tasks))]
    assert [task.name for task in tasks] == names
    return [len(task.entries) for task in tasks]


def test_no_shard_is_empty_however_large_the_images_are(planned, monkeypatch):
    """Six images are at most six shards; small ones share one."""
    _, _, sizes = planned
    assert counts(planned) == [6]
    monkeypatch.setattr(convert_module, "_SHARD_BYTES", min(sizes) // 3)
    assert counts(planned) == [1] * 6
    assert counts(planned, 4) == [1, 2, 1, 2]


def test_as_many_shards_as_bytes_need(planned, monkeypatch):
    _, _, sizes = planned
    for total, number in (
        (sum(sizes), 1),
        (sum(sizes) - 1, 2),
        ((sum(sizes) - 1) // 2, 3),
    ):
        monkeypatch.setattr(convert_module, "_SHARD_BYTES", total)
        assert len(counts(planned)) == number


@pytest.mark.parametrize("scheme", ["", "ram://"])
def test_sizes_and_digests_come_of_one_look_at_each_file(
    broken, tmp_path, monkeypatch, scheme
):
    """Also where each costs a request: the plan is that of local files."""
    sources = broken
    if scheme:
        sources = {name: f"{scheme}{path}" for name, path in broken.items()}
        for path in (tmp_path / "scenes").rglob("*.*"):
            with atomic_write(f"{scheme}{path}") as file:
                file.write(path.read_bytes())
    source = open_source(Paths(**sources))
    encoding = EncodingOptions(source.paths, source.check.categories, False)
    asked, plain = [], storage.stamp
    monkeypatch.setattr(storage, "_each", lambda _, paths: [*map(stamp, paths)])

    def stamp(path):
        asked.append(path)
        return plain(path)

    sizes = [
        (broken["images"] / entry.file_name).stat().st_size
        + (broken["masks"] / entry.mask_name).stat().st_size
        for entry in source.check.images
    ]
    monkeypatch.setattr(convert_module, "_SHARD_BYTES", (sum(sizes) - 1) // 2)
    tasks = convert_module.plan_shards(
        source.check.images, split="x", shards=0, encoding=encoding
    )
    assert len(tasks) == 3
    assert len(asked) == len(set(asked)) == 12
    bounds = convert_module._bounds(sizes, 3)
    assert [len(task.entries) for task in tasks] == [
        end - start for start, end in itertools.pairwise(bounds)
    ]


def listing(folder: pathlib.Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def test_splits_with_like_names_are_left_alone(broken, tmp_path):
    """Though all of them begin as the one that is replaced."""
    names = ("val", "val2", "val_2", "val.b", "myval")
    output = tmp_path / "out"
    for split in names:
        convert(**broken, output=output, split=split, shards=2, workers=1)
    (output / "val-extra.tfrecord").write_text("of somebody else")
    before = listing(output)
    convert(**broken, output=output, split="val", shards=1, workers=1, overwrite=True)
    after = listing(output)
    gone = {f"val-0000{n}-of-00002.tfrecord" for n in range(2)}
    assert set(before) - set(after) == gone
    assert set(after) - set(before) == {"val-00000-of-00001.tfrecord"}
    same = set(before) & set(after) - {"val.manifest.json"}
    assert all(before[name] == after[name] for name in same)


def test_a_json_with_raised_ids_goes_when_ids_are_not_raised(broken, tmp_path):
    def run(offset: int, **options):
        return convert_paths(
            Paths(**broken, category_offset=offset),
            output=tmp_path / "out",
            split="val",
            workers=1,
            **options,
        )

    raised = tmp_path / "out" / "val.panoptic.json"
    first = run(100)
    assert first.annotations == raised
    ids = [c["id"] for c in json.loads(raised.read_text())["categories"]]
    assert min(ids) > 100
    run(100, resume=True)
    assert raised.is_file()
    again = run(0, overwrite=True)
    assert not raised.exists()
    assert again.annotations == broken["annotations"].resolve()
    assert [c.id for c in again.categories] == [number - 100 for number in ids]
