"""Predictions as COCO panoptic files: counted, written, and never half of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.masks import read_ids
from cmt.data.panoptic.predictions import panoptic_ids, write_predictions
from cmt.errors import InputError
from cmt.evaluation.annotations import read_annotations
from cmt.evaluation.score import score_files
from cmt.labels import count_values

CATEGORIES = [
    Category(7, "thing", True, (255, 0, 0)),
    Category(200, "stuff", False, (0, 0, 255)),
]
PANOPTIC = np.array(
    [
        [7001, 7001, 0, 200000, 200000],
        [7001, 7001, 7002, 200000, 200000],
        [0, 0, 0, 200000, 200000],
    ],
    np.int32,
)


@pytest.mark.parametrize("shape", [(7, 11), (13,), (1,), (0,)])
def test_counting_equals_unique(shape):
    values = np.random.default_rng(0).integers(0, 5, shape) * (2**40 + 3)
    expected = np.unique(values, return_counts=True)
    for got, want in zip(count_values(values), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_written_predictions_can_be_read_and_score_100(tmp_path):
    with write_predictions(tmp_path, CATEGORIES) as writer:
        writer.add(5, "a.jpg", PANOPTIC)
        writer.add(8, "b.jpg", np.zeros([2, 3], np.int32))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "panoptic",
        "panoptic.json",
    ]
    np.testing.assert_array_equal(read_ids(tmp_path / "panoptic" / "a.png"), PANOPTIC)
    content = json.loads((tmp_path / "panoptic.json").read_text())
    assert content["images"] == [
        {"id": 5, "file_name": "a.jpg", "width": 5, "height": 3},
        {"id": 8, "file_name": "b.jpg", "width": 3, "height": 2},
    ]
    assert content["categories"] == [category.to_json() for category in CATEGORIES]
    first = {"iscrowd": 0, "category_id": 7}
    assert content["annotations"] == [
        {
            "image_id": 5,
            "file_name": "a.png",
            "segments_info": [
                {"id": 7001, "area": 4, "bbox": [0, 0, 2, 2], **first},
                {"id": 7002, "area": 1, "bbox": [2, 1, 1, 1], **first},
                {
                    "id": 200000,
                    "category_id": 200,
                    "area": 6,
                    "bbox": [3, 0, 2, 3],
                    "iscrowd": 0,
                },
            ],
        },
        {"image_id": 8, "file_name": "b.png", "segments_info": []},
    ]
    files = tmp_path / "panoptic.json", tmp_path / "panoptic"
    assert score_files(*files, *files)["all"]["pq"] == 100.0
    # It is ground truth enough for `cmt data`.
    assert read_annotations(files[0]).images[5].segments[2].area == 6


def test_images_of_one_name_get_masks_of_their_own(tmp_path):
    with write_predictions(tmp_path, CATEGORIES) as writer:
        for number, name in enumerate(["x/a.jpg", "y/a.jpg", "a-2.jpg", "a.png"]):
            writer.add(number, name, PANOPTIC * (number % 2))
    images = read_annotations(tmp_path / "panoptic.json").images.values()
    names = [image.mask_name for image in images]
    assert len(set(names)) == 4
    for number, name in enumerate(names):
        assert read_ids(tmp_path / "panoptic" / name).any() == number % 2


def test_earlier_predictions_are_replaced_and_other_files_stay(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    for name in ("old.jpg", "new.jpg"):
        with write_predictions(tmp_path, CATEGORIES) as writer:
            writer.add(1, name, PANOPTIC)
    assert [path.name for path in (tmp_path / "panoptic").iterdir()] == ["new.png"]
    assert "old" not in (tmp_path / "panoptic.json").read_text()
    assert (tmp_path / "metrics.json").exists()


def test_ids_of_labels():
    classes, instances = (
        np.array([[1, 1, 0], [2, 0, 1]]),
        np.array([[1, 2, 0], [0, 9, 0]]),
    )
    np.testing.assert_array_equal(
        panoptic_ids(classes, instances, CATEGORIES),
        [[7001, 7002, 0], [200000, 0, 7000]],
    )


def snapshot(folder) -> dict:
    return {
        p.relative_to(folder): p.read_bytes()
        for p in folder.rglob("*.*")
        if p.is_file()
    }


@pytest.mark.parametrize("earlier", [False, True])
def test_an_error_leaves_what_was_there(tmp_path, earlier):
    if earlier:
        with write_predictions(tmp_path, CATEGORIES) as writer:
            writer.add(1, "a.jpg", PANOPTIC)
    before = snapshot(tmp_path)
    with (
        pytest.raises(KeyboardInterrupt),
        write_predictions(tmp_path, CATEGORIES) as writer,
    ):
        writer.add(1, "b.jpg", PANOPTIC)
        raise KeyboardInterrupt
    assert snapshot(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == (2 if earlier else 0)


@pytest.mark.parametrize(
    ("panoptic", "message"),
    [
        ([[8001]], r"b\.jpg: segment 8001 has category 8"),
        ([[-1]], r"b\.jpg: segment -1 has category -1"),
        ([[20_000_000]], r"b\.jpg: segment 20000000 .* does not fit in a PNG colour"),
    ],
)
def test_values_that_cannot_be_written_are_named(tmp_path, panoptic, message):
    large = Category(20_000, "large", True, (0, 0, 0))
    with (
        pytest.raises(InputError, match=message),
        write_predictions(tmp_path, [*CATEGORIES, large]) as writer,
    ):
        writer.add(1, "b.jpg", np.array(panoptic, np.int32))


def test_an_image_is_written_once(tmp_path):
    with (
        pytest.raises(InputError, match=r"image 1 \(b\.jpg\) is predicted twice"),
        write_predictions(tmp_path, CATEGORIES) as writer,
    ):
        writer.add(1, "a.jpg", PANOPTIC)
        writer.add(1, "b.jpg", PANOPTIC)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not a json file"), ("[]", "must hold a json object")]
)
def test_a_file_without_a_json_object_is_one_line(tmp_path, text, message):
    path = tmp_path / "panoptic.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_json_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json"):
        read_annotations(tmp_path / "none.json")


def test_a_json_that_cannot_be_written_leaves_nothing(tmp_path):
    with (
        pytest.raises(TypeError),
        write_predictions(tmp_path / "new", CATEGORIES) as writer,
    ):
        writer.add(1, "a.jpg", PANOPTIC)
        writer.content["images"][0]["id"] = object()
    assert not list(tmp_path.iterdir())
