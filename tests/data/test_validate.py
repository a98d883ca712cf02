from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from cmt.data.checks.problems import Problem
from cmt.data.checks.report import validate
from cmt.data.panoptic.json import Segment
from cmt.data.panoptic.masks import read_ids, segment_index, write_ids
from cmt.data.panoptic.registry import Paths
from cmt.errors import InputError

Sources = dict[str, pathlib.Path]


def edit(sources: Sources, change: Callable[[dict], None]) -> None:
    content = json.loads(sources["annotations"].read_text())
    change(content)
    sources["annotations"].write_text(json.dumps(content))


def problems_of(sources: Sources, *, strict: bool = False) -> list[Problem]:
    return validate(Paths(**sources, strict=strict), workers=1).problems


def kinds(sources: Sources, *, strict: bool = False) -> list[str]:
    return [problem.kind for problem in problems_of(sources, strict=strict)]


def first_segment(content: dict, *, thing: bool) -> dict:
    stuff = {c["id"] for c in content["categories"] if not c["isthing"]}
    return next(
        info
        for annotation in content["annotations"]
        for info in annotation["segments_info"]
        if (info["category_id"] not in stuff) == thing
    )


def test_scenes_are_clean(scene_sources):
    assert validate(Paths(**scene_sources), workers=2).problems == []


def test_real_images_are_clean(shared):
    folder = shared / "coco_samples"
    paths = Paths(
        images=folder / "images",
        annotations=folder / "annotations" / "panoptic_real.json",
        masks=folder / "annotations" / "panoptic_real",
    )
    found = validate(paths, workers=1)
    assert found.problems == []
    assert set(found.note_kinds()) == {"category ids with gaps"}


def test_missing_image_and_mask(broken):
    (broken["images"] / "000000000001.jpg").unlink()
    (broken["masks"] / "000000000002.png").unlink()
    problems = problems_of(broken)
    assert [problem.kind for problem in problems] == ["missing file"] * 2
    assert problems[0].file.endswith("images/val/000000000001.jpg")
    assert problems[1].file.endswith("panoptic_val/000000000002.png")
    assert all(problem.fix and "\n" not in problem.line for problem in problems)


def test_files_that_are_no_images(broken):
    (broken["images"] / "000000000001.jpg").write_text("hello")
    (broken["masks"] / "000000000002.png").write_bytes(b"")
    whole = (broken["images"] / "000000000003.jpg").read_bytes()
    (broken["images"] / "000000000003.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (65, 65)).save(broken["masks"] / "000000000004.png")
    assert sorted(kinds(broken)) == [
        "not a panoptic PNG",
        "not an image",
        "truncated file",
        "truncated file",
    ]


def test_pixels_without_an_entry_and_entries_without_pixels(broken):
    mask = broken["masks"] / "000000000001.png"
    ids = read_ids(mask)
    renamed = int(ids[0, 0])
    ids[ids == renamed] = 12345
    write_ids(mask, ids)
    (problem,) = problems_of(broken)
    assert problem.kind == "ids that differ"
    assert f"only in the PNG: 12345; only in the json: {renamed}" in problem.message
    assert f"({renamed} is 12345, going by the areas)" in problem.fix


def test_area_that_disagrees(broken):
    changed = {}

    def change(content):
        info = first_segment(content, thing=True)
        info["area"] += 1
        changed.update(info)

    edit(broken, change)
    (problem,) = problems_of(broken, strict=True)
    assert problem.kind == "area"
    assert problem.segment == changed["id"]
    assert problem.fix == f'set "area" to {changed["area"] - 1}'


def test_sizes_that_differ(broken):
    Image.new("RGB", (64, 65)).save(broken["images"] / "000000000001.jpg")
    edit(broken, lambda content: content["images"][1].update(height=66))
    # The second image and its mask both disagree with the json: that is one fault.
    assert kinds(broken) == ["size"] * 2


def test_category_not_in_the_list(broken):
    edit(
        broken,
        lambda content: first_segment(content, thing=True).update(category_id=99),
    )
    assert kinds(broken) == ["category not in list"]


def test_crowd_on_stuff(broken):
    edit(broken, lambda content: first_segment(content, thing=False).update(iscrowd=1))
    assert kinds(broken) == ["crowd"]


def test_category_without_isthing(broken):
    edit(broken, lambda content: content["categories"][3].pop("isthing"))
    (problem,) = problems_of(broken)
    assert problem.kind == "categories"
    assert "category 4" in problem.message


def test_duplicates(broken):
    def change(content):
        content["categories"].append(dict(content["categories"][0]))
        content["images"].append(dict(content["images"][0]))
        content["annotations"].append(dict(content["annotations"][1]))
        infos = content["annotations"][2]["segments_info"]
        infos.append(dict(infos[0]))

    edit(broken, change)
    problems = problems_of(broken)
    assert {problem.kind for problem in problems} == {"duplicate"}
    text = " ".join(problem.message for problem in problems)
    for what in (
        "category id",
        "image id",
        "annotation of image",
        "mask",
        "segment id",
    ):
        assert what in text, what


def test_images_and_annotations_without_each_other(broken):
    edit(
        broken, lambda content: (content["images"].pop(0), content["annotations"].pop())
    )
    expected = ["image without annotation", "image without entry"]
    assert sorted(kinds(broken, strict=True)) == expected
    assert kinds(broken) == expected[1:]


def test_an_empty_data_set(broken):
    edit(broken, lambda content: content.update(images=[], annotations=[]))
    assert kinds(broken) == ["empty data set"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{", "json file"),
        ("[]", "json file"),
        ('{"images": []}', "json structure"),
        (
            '{"images": [{"id": "a"}], "annotations": [{}, 3], "categories": [{}]}',
            "json structure",
        ),
    ],
)
def test_json_of_another_form(broken, text, kind):
    broken["annotations"].write_text(text)
    assert set(kinds(broken)) == {kind}


def test_missing_json_and_folders(broken, tmp_path):
    for name in ("annotations", "images", "masks"):
        with pytest.raises(InputError, match=f"^--{name} .*none: no such"):
            validate(Paths(**{**broken, name: tmp_path / "none"}), workers=1)


def test_all_faults_are_found_in_one_pass(broken):
    (broken["images"] / "000000000001.jpg").unlink()
    (broken["masks"] / "000000000002.png").write_bytes(b"no")

    def change(content):
        content["annotations"][2]["segments_info"][0]["category_id"] = 77
        content["annotations"][3]["segments_info"][0]["area"] = 1

    edit(broken, change)
    found = sorted(kinds(broken, strict=True))
    assert found == ["area", "category not in list", "missing file", "not an image"]


def test_segment_ids_use_all_three_channels(tmp_path):
    ids = np.array([[0, 1, 256], [65536, 2**24 - 1, 70000]])
    write_ids(tmp_path / "x.png", ids)
    np.testing.assert_array_equal(read_ids(tmp_path / "x.png"), ids)
    color = np.asarray(Image.open(tmp_path / "x.png"))[1, 2]
    assert color.tolist() == [70000 % 256, 70000 // 256 % 256, 70000 // 65536]


@pytest.mark.parametrize("number", [0, -1, 16778])
def test_category_ids_that_no_prediction_can_hold(broken, number):
    edit(
        broken,
        lambda content: content["categories"].append(
            {"id": number, "name": "x", "isthing": 1}
        ),
    )
    (problem,) = problems_of(broken)
    assert problem.kind == "categories"
    assert "id must be from 1 to 16777," in problem.message
    assert str(number) in problem.message


@pytest.mark.parametrize("color", ["red", [1, 2], [1, 2, 256], [1, 2, "3"], None])
def test_colors_that_are_none(broken, color):
    edit(broken, lambda content: content["categories"][0].update(color=color))
    assert problems_of(broken) == []
    strict = problems_of(broken, strict=True)
    assert [problem.kind for problem in strict] == ["colour of a category"]
    assert '"color" must be three' in strict[0].message


def test_the_largest_category_id_and_no_color_are_fine(broken):
    edit(
        broken,
        lambda content: content["categories"].append(
            {"id": 16777, "name": "x", "isthing": 1}
        ),
    )
    assert kinds(broken) == []


def test_a_png_damaged_inside(broken):
    mask = broken["masks"] / "000000000001.png"
    content = bytearray(mask.read_bytes())
    # The length of the first chunk of pixels.
    content[content.index(b"IDAT") - 4 : content.index(b"IDAT")] = b"\x00\x00\x00\x01"
    mask.write_bytes(content)
    assert kinds(broken) == ["damaged file"]


def test_a_category_that_does_not_say_if_it_is_a_thing_is_one_fault(broken):
    """What depends on it is not guessed at."""

    def change(content):
        thing = first_segment(content, thing=True)["category_id"]
        for category in content["categories"]:
            if category["id"] == thing:
                category.pop("isthing")
        for annotation in content["annotations"]:
            for info in annotation["segments_info"]:
                info["category_id"] = thing

    edit(broken, change)
    assert kinds(broken) == ["categories"]


def test_very_many_segments_in_an_image(tmp_path):
    ids = np.arange(1, 70_001).reshape(250, 280)
    index = segment_index(ids, [Segment(number, 1, 1, False) for number in ids.flat])
    np.testing.assert_array_equal(index, ids + 1)
    few = segment_index(np.array([[0, 7], [5, 9]]), [Segment(9, 1, 1, False)])
    assert few.tolist() == [[1, 0], [0, 2]]
