"""The one reader of COCO panoptic json, for ground truth and for predictions."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from cmt.data.checks.entries import EntryCheck, check_categories
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import Segment
from cmt.errors import InputError
from cmt.evaluation.annotations import read_annotations

GOOD = {
    "image_id": 1,
    "file_name": "1.png",
    "segments_info": [{"id": 7, "category_id": 3}],
}


def test_ground_truth(tmp_path):
    info = {"id": 7, "category_id": 3, "area": 2.5, "iscrowd": 1, "bbox": [0, 0, 1, 1]}
    content = {
        "images": [{"id": 1, "file_name": "a/1.jpg", "height": 3, "width": 4}],
        "annotations": [GOOD | {"segments_info": [info]}],
        "categories": [{"id": 3, "isthing": 1, "name": "x"}],
    }
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    found = read_annotations(path)
    assert [(one.id, one.name, one.is_thing) for one in found.categories] == [
        (3, "x", True)
    ]
    (image,) = found.images.values()
    assert (image.name, image.mask_name) == ("a/1", "1.png")
    assert (image.height, image.width) == (3, 4)
    assert list(image.segments) == [Segment(7, 3, 2.5, True, [0, 0, 1, 1])]


@pytest.mark.parametrize(
    ("name", "shown"),
    [(0, "0"), (12, "12"), (2.5, "2.5"), ("", "category 3"), (None, "category 3")],
)
def test_a_number_as_name_becomes_its_text(name, shown):
    entry = {"id": 3, "isthing": 1, "name": name}
    category = Category.from_json(entry)
    assert category.name == shown
    assert Category.from_json(category.to_json()) == category
    check = EntryCheck("p.json")
    check_categories(check, [entry])
    assert not check.problems


@pytest.mark.parametrize("number", ["7", "007", 7.0, "7.0"])
def test_integers_may_be_texts_or_floats(tmp_path, number):
    info = {"id": number, "category_id": 3, "iscrowd": "1"}
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"annotations": [GOOD | {"segments_info": [info]}]}))
    (image,) = read_annotations(path).images.values()
    assert list(image.segments) == [Segment(7, 3, None, True)]


def test_predictions_need_no_more_than_their_segments(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"annotations": [GOOD, GOOD | {"image_id": "b"}]}))
    found = read_annotations(path)
    assert found.categories == []
    assert [image.image_id for image in found.images.values()] == [1, "b"]
    image = found.images[1]
    assert (image.file_name, image.name, image.mask_name) == ("1.png", "1", "1.png")
    assert list(image.segments) == [Segment(7, 3, None, False)]


def of_segments(*infos: object) -> dict:
    return {"annotations": [GOOD | {"segments_info": list(infos)}]}


def of_categories(categories: object) -> dict:
    return {"categories": categories, "annotations": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, 'the json has no "annotations"; add it'),
        ({"annotations": 3}, 'the json: "annotations" must be a list; got 3'),
        ({"annotations": [], "images": {}}, '"images" must be a list; got {}'),
        (of_categories(3), '"categories" must be a list; got 3'),
        (of_categories([3]), r"categories\[0\] must be an object; got 3"),
        (of_categories([{"id": 1}]), r'categories\[0\] has no "isthing"'),
        (of_categories([{"id": "x", "isthing": 1}]), "must be an integer; got 'x'"),
        ({"annotations": ["x"]}, r"annotations\[0\] must be an object; got 'x'"),
        (
            {"annotations": [GOOD, {"image_id": 2, "file_name": "2.png"}]},
            r'annotations\[1\] has no "segments_info"',
        ),
        ({"annotations": [GOOD | {"file_name": 3}]}, '"file_name" must be text; got 3'),
        (
            {"annotations": [GOOD | {"image_id": None}]},
            '"image_id" must be an integer or a name; got None',
        ),
        ({"annotations": [GOOD, GOOD]}, "image 1 has two annotations"),
        (of_segments(7), r"segments_info\[0\] must be an object; got 7"),
        (of_segments({"id": 1}), r'segments_info\[0\] has no "category_id"'),
        (of_segments({"id": "a", "category_id": 1}), "must be an integer; got 'a'"),
    ],
)
def test_a_json_of_another_form_is_one_line(tmp_path, content, message):
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("area", "expected"),
    [
        (7, 7),
        (7.5, 7.5),
        (0, 0),
        ("big", None),
        (True, None),
        (-1, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        ([7], None),
        (None, None),
    ],
)
def test_an_area_that_pixels_cannot_have_is_none(tmp_path, area, expected):
    path = tmp_path / "areas.json"
    segment = {"id": 1, "category_id": 1, "area": area}
    path.write_text(json.dumps(of_segments(segment)))
    (found,) = read_annotations(path).images[1].segments
    assert found.area == expected and type(found.area) is type(expected)


def test_next_to_nothing_stays_of_a_json(tmp_path):
    info = {"id": 7000, "category_id": 3, "area": 900, "iscrowd": 0}
    infos = [info | {"id": 7000 + n, "bbox": [300, 400, n, 600]} for n in range(10)]
    entries = [
        {"image_id": n, "file_name": f"{n}.png", "segments_info": infos}
        for n in range(300)
    ]
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"annotations": entries}))
    read_annotations(path)
    tracemalloc.start()
    try:
        found = read_annotations(path)
        stays, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.images) == 300
    size = path.stat().st_size
    # The bytes, then the text made of them and what it says; a list of dicts takes 6.
    assert stays < size / 5 and most < 2.5 * size
