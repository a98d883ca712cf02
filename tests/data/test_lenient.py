"""What the json lacks or says otherwise is taken from the PNG, and counted."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from typer.testing import CliRunner

from cmt.cli.data import app
from cmt.data.checks.report import validate
from cmt.data.panoptic.kinds import Kind
from cmt.data.panoptic.masks import read_ids, write_ids
from cmt.data.panoptic.registry import Paths
from cmt.data.records.manifest import Manifest
from cmt.errors import InputError
from cmt.evaluation.annotations import read_annotations
from tests.data import faults
from tests.data.conversions import convert_paths
from tests.data.records import read_records


@pytest.fixture
def data(broken) -> faults.DataSet:
    return faults.DataSet(broken)


def all_infos(data: faults.DataSet) -> list[dict]:
    return [info for number in range(1, 7) for info in data.infos(number)]


def converted(
    data: faults.DataSet, output: pathlib.Path, **reading
) -> tuple[Manifest, list[bytes]]:
    data.sources["annotations"].write_text(json.dumps(data.content))
    paths = Paths(**data.sources, **reading)
    manifest = convert_paths(paths, output=output, split="val", workers=1)
    (shard,) = manifest.shards
    return manifest, list(read_records(output / shard.name))


def absent(data: faults.DataSet) -> None:
    """Entries before, between and behind those that are drawn have no pixel."""
    thing = faults.things(data)[0]
    for place, number in ((0, 777), (1, 778), (9, 779)):
        info = {"id": number, "category_id": thing, "area": 9, "iscrowd": 0}
        data.infos().insert(place, info)


def split_stuff(data: faults.DataSet) -> None:
    """Half of a stuff segment gets an id of its own."""
    faults.second_stuff(data)


def from_zero(data: faults.DataSet) -> None:
    """The first segment of an image without void gets the id 0."""
    for number in range(1, 7):
        ids = read_ids(data.mask(number))
        if ids.all():
            info = data.infos(number)[0]
            write_ids(data.mask(number), np.where(ids == info["id"], 0, ids))
            info["id"] = 0
            return
    raise AssertionError("every scene has void")


def no_images(data: faults.DataSet) -> None:
    images = {image["id"]: image for image in data.content.pop("images")}
    for annotation in data.content["annotations"]:
        annotation["file_name"] = images[annotation["image_id"]]["file_name"]


def no_images_named_by_masks(data: faults.DataSet) -> None:
    data.content.pop("images")


def as_text(data: faults.DataSet) -> None:
    """As `json.dumps(..., default=str)` writes the numbers of NumPy."""
    for info in all_infos(data):
        info.update(id=str(info["id"]), category_id=str(info["category_id"]))
    for category in data.content["categories"]:
        category.update(id=str(category["id"]), isthing=str(category["isthing"]))


def as_float(data: faults.DataSet) -> None:
    """As tables of pandas hold integers beside missing values."""
    for info in all_infos(data):
        info.update(category_id=float(info["category_id"]))
    for image in data.content["images"]:
        image.update(height=float(image["height"]), width=float(image["width"]))


def in_capitals(data: faults.DataSet) -> None:
    for number in (1, 2, 3):
        data.image(number).rename(data.image(number).with_suffix(".JPG"))


# What is changed, and the one note with its count; None for a note on each segment.
KINDS = {
    "areas of polygons": (
        lambda d: [i.update(area=i["area"] * 0.96 + 0.1057) for i in all_infos(d)],
        "area",
        None,
    ),
    "areas that are none": (
        lambda d: [
            info.update(area=area)
            for info, area in zip(
                d.infos(), [True, "9", -1, [], {}, 1e400, 10**400], strict=False
            )
        ],
        "area",
        lambda d: min(7, len(d.infos())),
    ),
    "no areas": (
        lambda d: [info.pop("area") for info in all_infos(d)],
        "segment without area",
        None,
    ),
    "areas of null": (
        lambda d: [info.update(area=None) for info in all_infos(d)],
        "segment without area",
        None,
    ),
    "null for what has a default": (
        lambda d: [
            i.update(area=None, iscrowd=i["iscrowd"] or None) for i in all_infos(d)
        ],
        "segment without area",
        None,
    ),
    "segments without pixels": (absent, "id not in PNG", lambda _: 3),
    "stuff twice": (split_stuff, "stuff twice", lambda _: 1),
    "segment id 0": (from_zero, "segment with id 0", lambda _: 1),
    "no images, annotations name them": (
        no_images,
        "no list of images",
        lambda _: 1,
    ),
    "no images, annotations name PNGs": (
        no_images_named_by_masks,
        "no list of images",
        lambda _: 1,
    ),
    "numbers as texts": (
        as_text,
        "integer as text or float",
        lambda d: 2 * len(all_infos(d)) + 2 * len(d.content["categories"]),
    ),
    "numbers as floats": (
        as_float,
        "integer as text or float",
        lambda d: len(all_infos(d)) + 12,
    ),
    "colours that are none": (
        lambda d: [
            category.update(color=color)
            for category, color in zip(
                d.content["categories"],
                ["#ff0000", [1, 2], [0.5, 0.5, 0.5], [0, 0, 256], None],
                strict=False,
            )
        ],
        "colour of a category",
        lambda _: 5,
    ),
    "annotations that name the photo": (
        lambda d: [
            a.update(file_name=a["file_name"].replace("png", "jpg"))
            for a in d.content["annotations"]
        ],
        "file name",
        lambda _: 6,
    ),
    "annotations that name no file": (
        lambda d: [a.pop("file_name") for a in d.content["annotations"]],
        "file name",
        lambda _: 6,
    ),
    "endings in capitals": (in_capitals, "file name", lambda _: 3),
    "no sizes": (
        lambda d: [image.pop("height") for image in d.content["images"]],
        "image without size",
        lambda _: 6,
    ),
}


@pytest.mark.parametrize("case", KINDS)
def test_validate_notes_and_convert_takes_what_the_png_says(data, tmp_path, case):
    """The records are those of the json before it was changed; --strict refuses."""
    before, records = converted(data, tmp_path / "before")
    change, kind, times = KINDS[case]
    change(data)
    expected = times(data) if times else len(all_infos(data))
    found = data.found()
    assert found.problems == []
    notes = {name: note[0] for name, note in found.mended.items()}
    sizeless = {"image without size": 6} if case.startswith("no images") else {}
    named = {"file name": 6} if case.endswith("name PNGs") else {}
    assert notes == {kind: expected, **sizeless, **named}
    assert found.note_kinds()[kind] == expected
    example = found.mended[kind][1]
    care = Kind(kind).care
    assert care and "\n" not in example and example.endswith(care)
    after, same = converted(data, tmp_path / "after")
    assert same == records
    assert after.contents.notes == found.mended
    assert after.contents[:-1] == before.contents[:-1]
    assert data.found(strict=True).problems
    with pytest.raises(InputError):
        converted(data, tmp_path / "strict", strict=True)


def options_of(data: faults.DataSet) -> list[object]:
    return [word for key, path in data.sources.items() for word in (f"--{key}", path)]


def test_images_without_annotation_are_left_out(data, tmp_path):
    gone = [data.content["annotations"].pop(place) for place in (4, 0)]
    assert len(gone) == 2
    found = data.found()
    assert found.problems == [] and found.mended["image without annotation"][0] == 2
    manifest, records = converted(data, tmp_path / "out")
    assert manifest.num_images == len(records) == 4
    assert manifest.contents.skipped == ()


def test_boxes_are_a_note(data):
    for info in all_infos(data):
        x, y, width, height = info["bbox"]
        info["bbox"] = [x + 0.31, y + 0.12, width - 0.87, height - 0.44]
    found = data.found()
    assert found.problems == []
    assert found.mended["box"][0] == len(all_infos(data))


def test_names_of_windows(data, tmp_path):
    images, masks = data.image().parent, data.mask().parent
    for key, folder in (("images", images), ("annotations", masks)):
        for entry in data.content[key]:
            entry["file_name"] = f"{folder.name}\\{entry['file_name']}"
    data.sources |= {"images": images.parent, "masks": masks.parent}
    manifest, _ = converted(data, tmp_path / "out")
    assert manifest.num_images == 6
    assert manifest.contents.notes["file name"][0] == 12
    assert len(read_annotations(manifest.annotations).images) == 6


def test_an_image_never_becomes_the_mask_beside_it(data):
    for number in range(1, 7):
        data.mask(number).rename(data.sources["images"] / data.mask(number).name)
        data.image(number).unlink()
    data.sources["masks"] = data.sources["images"]
    assert data.found().kinds() == {"missing file": 1}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_json_of_windows(data, encoding):
    data.found()
    text = json.dumps(data.content, ensure_ascii=False)
    data.sources["annotations"].write_text(text, encoding)
    assert validate(Paths(**data.sources), workers=1).problems == []


@pytest.mark.parametrize(("head", "fix"), [(b"\x1f\x8b", "gunzip"), (b"PK", "unzip")])
def test_a_packed_json_is_to_be_unpacked(data, head, fix):
    data.sources["annotations"].write_bytes(head + bytes(9))
    (problem,) = validate(Paths(**data.sources), workers=1).problems
    assert problem.kind == "json file" and fix in problem.fix


def test_void_beside_a_segment_with_id_0_is_of_it(data, tmp_path):
    """Where "area" says that some pixels of 0 are void, a note of its own says so."""
    from_zero(data)
    _, records = converted(data, tmp_path / "before")
    info = next(info for info in all_infos(data) if info["id"] == 0)
    info["area"] -= 5
    found = data.found()
    assert found.problems == []
    notes = {kind: times for kind, (times, _) in found.mended.items()}
    assert notes == {"segment with id 0": 1, "void with the id of a segment": 1}
    example = found.mended["void with the id of a segment"][1]
    assert f"{info['area'] + 5} pixels have id 0" in example
    assert converted(data, tmp_path / "after")[1] == records
    info["area"] += 9
    assert list(data.found().mended) == ["segment with id 0", "area"]


@pytest.mark.parametrize(
    "plant",
    [
        lambda d: d.change_ids(lambda i: np.where(i == d.infos()[0]["id"], 777, i)),
        lambda d: d.infos().pop(),
        faults.bgr,
        faults.interpolated,
        lambda d: d.change_ids(np.zeros_like),
        lambda d: d.content["images"][0].update(height=99),
        lambda d: d.infos().append(dict(d.infos()[0])),
    ],
)
def test_what_is_ambiguous_stays_a_problem(data, tmp_path, plant):
    plant(data)
    assert data.found().problems
    with pytest.raises(InputError):
        converted(data, tmp_path / "out")


def as_stuff(data: faults.DataSet) -> list[str]:
    """All categories become stuff; returns the names of the things."""
    names = []
    for category in data.content["categories"]:
        names += [category["name"]] * category["isthing"]
        category["isthing"] = 0
    return names


def test_all_classes_stuff_is_a_warning_that_names_things(data, tmp_path):
    _, records = converted(data, tmp_path / "before")
    for annotation in data.content["annotations"]:
        for info in annotation["segments_info"]:
            info["iscrowd"] = 0
    _, records = converted(data, tmp_path / "without_crowd")
    names = as_stuff(data)
    found = data.found()
    assert found.problems == []
    assert "--things" in found.mended["all classes stuff"][1]
    merged, flat = converted(data, tmp_path / "flat")
    assert merged.contents.things == 0 and flat != records
    again, same = converted(data, tmp_path / "again", things=tuple(names))
    assert same == records
    assert "all classes stuff" not in again.contents.notes
    written = json.loads(pathlib.Path(again.annotations).read_text())
    assert [c["name"] for c in written["categories"] if c["isthing"]] == names
    assert again.origin.things == tuple(names)


@pytest.mark.parametrize("as_file", [False, True])
def test_things_on_the_command_line(data, tmp_path, as_file):
    names = as_stuff(data)
    data.sources["annotations"].write_text(json.dumps(data.content))
    given = ",".join(names)
    if as_file:
        (tmp_path / "things.txt").write_text("\n".join(names) + "\n")
        given = str(tmp_path / "things.txt")
    options = [
        part for key, path in data.sources.items() for part in (f"--{key}", path)
    ]
    options = [*map(str, options), "--things", given]
    result = CliRunner().invoke(app, ["validate", *options])
    assert "all classes stuff" not in result.stdout
    assert result.exit_code == 0, result.stdout
    options[-1] = "no such class"
    error = CliRunner().invoke(app, ["validate", *options]).exception
    assert isinstance(error, InputError) and "'no such class'" in str(error)


def test_the_summary_has_one_line_a_kind(data, tmp_path):
    for info in all_infos(data):
        info["area"] += 1
    data.sources["annotations"].write_text(json.dumps(data.content))
    options = [
        part for key, path in data.sources.items() for part in (f"--{key}", path)
    ]
    for command, more in (
        ("validate", []),
        ("convert", ["--output", tmp_path / "out", "--split", "val"]),
    ):
        result = CliRunner().invoke(app, [command, *map(str, [*options, *more])])
        assert result.exit_code == 0
        lines = [one for one in result.stdout.splitlines() if "note: area: " in one]
        assert len(lines) == 1
        assert f"area: {len(all_infos(data))}, such as " in lines[0]
