"""What validation says beyond the faults of single files: counts, notes, boxes."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re

import pytest
from PIL import Image
from typer.testing import CliRunner

from cmt.cli.data import app
from cmt.cli.data_report import print_validation
from cmt.data.checks.json import JsonCheck
from cmt.data.checks.report import MaskCounts, validate
from cmt.data.panoptic.masks import read_ids
from cmt.data.panoptic.registry import Paths
from tests.data import faults


def edit(sources: dict, change) -> None:
    content = json.loads(sources["annotations"].read_text())
    change(content)
    sources["annotations"].write_text(json.dumps(content))


def options_of(sources: dict) -> list[str]:
    return [part for name, path in sources.items() for part in (f"--{name}", str(path))]


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def stuff_segment(content: dict, annotation: int) -> dict:
    stuff = {c["id"] for c in content["categories"] if not c["isthing"]}
    infos = content["annotations"][annotation]["segments_info"]
    return next(info for info in infos if info["category_id"] in stuff)


def test_files_are_counted_and_reconciled(broken):
    (broken["images"] / "000000000001.jpg").unlink()
    (broken["masks"] / "000000000002.png").unlink()
    (broken["masks"] / "000000000003.png").unlink()
    Image.new("RGB", (3, 3)).save(broken["images"] / "more.JPG")
    Image.new("RGB", (3, 3)).save(broken["masks"] / "more.png")
    (broken["images"] / "readme.txt").touch()
    edit(broken, lambda content: content["annotations"].pop())
    found = validate(Paths(**broken), workers=1)
    assert (found.images, found.annotations, found.annotated) == (6, 5, 5)
    # Number 6 has no annotation, so its mask is not used either.
    assert found.files._asdict() == {
        "image_files": 6,
        "mask_files": 5,
        "missing_images": 1,
        "missing_masks": 2,
        "unused_images": 1,
        "unused_masks": 2,
    }
    assert found.kinds() == {"missing file": 3}
    assert found.note_kinds() == {
        "image without annotation": 1,
        "image file not in json": 1,
        "mask file not in json": 2,
        "category ids with gaps": 1,
    }
    counts = found.to_json()["counts"]
    assert counts["images"] == 6 and counts["missing_masks"] == 2


@pytest.mark.parametrize("side", range(4))
def test_boxes_that_are_not_those_of_the_pixels(broken, side):
    right = []

    def change(content):
        info = content["annotations"][1]["segments_info"][-1]
        right.extend(info["bbox"])
        info["bbox"][side] += 1

    edit(broken, change)
    (problem,) = validate(Paths(**broken, strict=True), workers=1).problems
    assert problem.kind == "box"
    assert problem.fix == f'set "bbox" to {right}'


def test_boxes_against_a_loop(shared):
    folder = shared / "coco_samples" / "annotations"
    found = JsonCheck("x", json.loads((folder / "panoptic_real.json").read_text()))
    entry = found.images[0]
    ids = read_ids(folder / "panoptic_real" / entry.mask_name)
    for segment in entry.segments:
        pixels = [
            (y, x)
            for y in range(entry.height)
            for x in range(entry.width)
            if ids[y, x] == segment.id
        ]
        rows, columns = zip(*pixels, strict=True)
        left, top = min(columns), min(rows)
        size = [max(columns) - left + 1, max(rows) - top + 1]
        assert segment.box == [left, top, *size]


@pytest.mark.parametrize("box", ["no", [1, 2, 3], [1, 2, "3", 4], {}])
def test_boxes_that_are_none(broken, box):
    edit(
        broken,
        lambda c: c["annotations"][0]["segments_info"][0].update(bbox=box),
    )
    assert validate(Paths(**broken, strict=True), workers=1).kinds() == {"box": 1}


def test_boxes_may_be_left_out(broken):
    def change(content):
        for annotation in content["annotations"]:
            for info in annotation["segments_info"]:
                info.pop("bbox")

    edit(broken, change)
    assert validate(Paths(**broken), workers=1).problems == []


def test_stuff_twice_in_an_image(broken):
    def change(content):
        infos = content["annotations"][0]["segments_info"]
        stuff = stuff_segment(content, 0)
        other = next(info for info in infos if info is not stuff)
        other.update(category_id=stuff["category_id"], iscrowd=0)

    edit(broken, change)
    (problem,) = validate(Paths(**broken, strict=True), workers=1).problems
    assert problem.kind == "stuff twice"
    assert problem.image == "000000000001.jpg"


def test_category_ids_with_gaps_are_noted(broken):
    edit(
        broken,
        lambda content: content["categories"].append(
            {"id": 90, "name": "x", "isthing": 1}
        ),
    )
    found = validate(Paths(**broken), workers=1)
    assert found.problems == []
    (note,) = found.notes
    number = len(json.loads(broken["annotations"].read_text())["categories"])
    assert f"{number} categories have ids from 1 to 90" in note.message


def test_masks_are_counted_against_centers(broken):
    content = json.loads(broken["annotations"].read_text())
    stuff = {c["id"] for c in content["categories"] if not c["isthing"]}
    counts = []
    for annotation in content["annotations"]:
        infos = annotation["segments_info"]
        kinds = {i["category_id"] for i in infos} & stuff
        things = [i for i in infos if i["category_id"] not in stuff]
        counts.append(len(kinds) + sum(not i["iscrowd"] for i in things))
    most = max(counts)
    found = validate(Paths(**broken), workers=1, num_centers=most - 1)
    assert found.masks.largest == most
    assert found.masks.above == counts.count(most)
    assert sum(found.masks.distribution.values()) == len(counts)
    notes = [note for note in found.notes if note.kind == "more masks than centers"]
    assert len(notes) == counts.count(most)
    assert notes[0].fix.endswith(f"model.num_centers and data.max_masks to {most}")
    assert found.problems == []
    held = validate(Paths(**broken), workers=1, num_centers=most)
    assert held.masks.above == 0
    assert set(held.note_kinds()) == {"category ids with gaps"}


def test_processes_find_the_same(scene_sources, tmp_path):
    """Enough images that processes are started."""
    content = json.loads(scene_sources["annotations"].read_text())
    images, annotations = [], []
    for number in range(60):
        image = content["images"][number % 24]
        old = content["annotations"][number % 24]
        name = f"{number:03d}"
        for key, source, ending in (
            ("images", image["file_name"], "jpg"),
            ("masks", old["file_name"], "png"),
        ):
            folder = tmp_path / key
            folder.mkdir(exist_ok=True)
            target = scene_sources[key] / source
            (folder / f"{name}.{ending}").symlink_to(target.resolve())
        images.append({**image, "id": number, "file_name": f"{name}.jpg"})
        annotations.append({**old, "image_id": number, "file_name": f"{name}.png"})
    annotations[7]["segments_info"] = annotations[7]["segments_info"][1:]
    annotations[50]["segments_info"] = annotations[50]["segments_info"][:-1]
    content.update(images=images, annotations=annotations)
    (tmp_path / "p.json").write_text(json.dumps(content))
    sources = dict(
        images=tmp_path / "images",
        annotations=tmp_path / "p.json",
        masks=tmp_path / "masks",
    )
    alone = validate(Paths(**sources), workers=1)
    assert [problem.image for problem in alone.problems] == ["007.jpg", "050.jpg"]
    assert validate(Paths(**sources), workers=2) == alone


def test_the_report_for_people(broken):
    for number in (1, 2, 3):
        (broken["images"] / f"00000000000{number}.jpg").unlink()
    result = run("validate", *options_of(broken), "--examples", 2, "--num-centers", 1)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    # Counts come first.
    files = next(n for n, line in enumerate(lines) if "files there" in line)
    faults = [n for n, line in enumerate(lines) if line.startswith("missing file: ")]
    assert files < faults[0]
    assert len(faults) == 3
    assert "1 more; --examples 0 or --json shows all" in lines[faults[2]]
    assert re.search(r"missing file\W+3\b", result.stdout)
    assert re.search(r"note: more masks than centers\W+\d", result.stdout)
    assert "masks an image: at most" in result.stdout
    whole = run("validate", *options_of(broken), "--examples", 0)
    assert whole.stdout.count("\nmissing file: ") == 3


def test_notes_alone_are_no_failure(broken):
    result = run("validate", *options_of(broken), "--num-centers", 1, "--json")
    assert result.exit_code == 0
    content = json.loads(result.stdout)
    assert content["problems"] == [] and content["notes"]
    assert content["masks_per_image"]["num_centers"] == 1


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (MaskCounts(9, 16, {8: 3, 16: 4}, 0), "0 to 8: 3, 9 to 16: 4"),
        (MaskCounts(9, 70, {32: 1, 128: 2}, 3), "17 to 32: 1, 65 to 128: 2"),
        (MaskCounts(9, 255, {256: 1}, 1), "at most 255 (so many centers hold all)"),
        (MaskCounts(9, 256, {256: 1}, 1), "(a model has at most 255 centers)"),
    ],
)
def test_images_by_their_masks(broken, capsys, counts, text):
    found = validate(Paths(**broken), workers=1)
    print_validation(dataclasses.replace(found, masks=counts), 10)
    assert text in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "last"), [(0, 8), (8, 8), (9, 16), (16, 16), (17, 32), (600, 1024)]
)
def test_masks_of_an_image_are_counted_under_their_step(broken, number, last):
    data = faults.DataSet(broken)
    data.content["images"] = data.content["images"][:1]
    data.content["annotations"] = data.content["annotations"][:1]
    kinds = faults.things(data)[:3]
    counts = {kind: len(range(n, number, 3)) for n, kind in enumerate(kinds)}
    faults.crowded(data, counts)
    assert data.found().masks.distribution == {last: 1}


@pytest.mark.parametrize("number", [0, 256])
def test_centers_that_no_model_has(broken, number):
    result = run("validate", *options_of(broken), "--num-centers", number)
    assert (
        result.exit_code == 2 and "Invalid value for '--num-centers'" in result.output
    )


def test_files_whose_names_cannot_be_printed(broken):
    """The folder is not ours to choose."""
    name = os.fsencode(broken["images"]) + b"/a\xff\nb.jpg"
    try:
        pathlib.Path(os.fsdecode(name)).write_bytes(b"x")
    except OSError:
        pytest.skip("a file system that takes no such name")
    result = run("validate", *options_of(broken))
    assert result.exit_code == 0, result.output
    assert "a\\udcff\\nb.jpg: the json does not name this file" in result.stdout


def test_what_was_left_out_is_printed(broken, tmp_path):
    (broken["images"] / "000000000002.jpg").unlink()
    made = run(
        *("convert", *options_of(broken), "--split", "val"),
        *("--output", tmp_path / "out", "--max-bad", 1),
    )
    assert made.exit_code == 0, made.output
    assert "left out: 000000000002.jpg: missing file: " in made.stdout
    assert "5 images (1 left out)" in made.stdout
