"""Scoring files: official results, invariants, bad input."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.masks import write_ids
from cmt.errors import InputError
from cmt.evaluation.score import score_files

THING = Category(7, "thing", True, (255, 0, 0))
OTHER = Category(3, "other", True, (255, 255, 0))
STUFF = Category(11, "stuff", False, (0, 0, 255))
CATEGORIES = [THING, OTHER, STUFF]


def segment(number, category, **more) -> dict:
    return {"id": number, "category_id": category.id, **more}


# --- official results ---------------------------------------------------------------


def golden_arguments(shared, name) -> tuple:
    folder = shared / "golden" / "pq"
    masks = "gt" if name == "gt_as_prediction" else name
    return folder / "gt.json", folder / "gt", folder / f"{name}.json", folder / masks


@pytest.mark.parametrize(
    "name",
    [
        "shifted",
        "merged_and_wrong_class",
        "missing_and_void_holes",
        "crowd_and_void_overlap",
        "gt_as_prediction",
    ],
)
def test_official_results_are_reproduced(shared, name):
    official = json.loads((shared / "golden" / "pq" / "results.json").read_text())[name]
    result = score_files(*golden_arguments(shared, name), workers=2)
    for group in ("All", "Things", "Stuff"):
        ours = result[group.lower()]
        assert ours["n"] == official[group]["n"]
        for key in ("pq", "sq", "rq"):
            assert ours[key] / 100 == pytest.approx(official[group][key], abs=1e-9)
    if "per_class" in official:
        assert list(result["per_class"]) == list(official["per_class"])
    for category_id, expected in official.get("per_class", {}).items():
        ours = result["per_class"][category_id]
        for key in ("tp", "fp", "fn"):
            assert ours[key] == expected[key]
        assert ours["iou_sum"] == pytest.approx(expected["iou_sum"], abs=1e-9)
        for key in ("pq", "sq", "rq"):
            assert ours[key] / 100 == pytest.approx(expected[key], abs=1e-9)


def test_ground_truth_against_itself_is_exactly_100(shared):
    result = score_files(*golden_arguments(shared, "gt_as_prediction"))
    for group in ("all", "things", "stuff"):
        assert [result[group][key] for key in ("pq", "sq", "rq")] == [100.0] * 3


def test_the_number_of_workers_changes_no_bit(shared):
    arguments = golden_arguments(shared, "shifted")
    one, three = (score_files(*arguments, workers=workers) for workers in (1, 3))
    assert json.dumps(one) == json.dumps(three)


# --- files and bad input ------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """A ground truth of two images, and itself as prediction; change what you like."""
    ids = np.array([[70, 70, 300], [0, 70000, 70000]], np.int32)
    segments = [
        segment(70, THING, area=2, iscrowd=0),
        segment(300, OTHER, area=1, iscrowd=0),
        segment(70000, STUFF, area=2, iscrowd=0),
    ]
    content = {
        "images": [],
        "annotations": [
            {"image_id": i, "file_name": f"{i}.png", "segments_info": segments}
            for i in (5, 8)
        ],
        "categories": [category.to_json() for category in CATEGORIES],
    }
    for name in ("gt", "pred"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        for i in (5, 8):
            write_ids(tmp_path / name / f"{i}.png", ids)
    return tmp_path


def score_folder(folder) -> dict:
    return score_files(
        folder / "gt.json", folder / "gt", folder / "pred.json", folder / "pred"
    )


def change(folder, name, edit) -> None:
    """Applies `edit` to the content of a json."""
    content = json.loads((folder / name).read_text())
    edit(content)
    (folder / name).write_text(json.dumps(content))


def test_files_are_scored(files):
    assert score_folder(files)["all"] == {"pq": 100.0, "sq": 100.0, "rq": 100.0, "n": 3}


def test_an_empty_prediction_is_exactly_0(files):
    def empty(content):
        for annotation in content["annotations"]:
            annotation["segments_info"] = []

    change(files, "pred.json", empty)
    for i in (5, 8):
        write_ids(files / "pred" / f"{i}.png", np.zeros([2, 3], np.int32))
    result = score_folder(files)
    assert result["all"] == {"pq": 0.0, "sq": 0.0, "rq": 0.0, "n": 3}
    assert result["per_class"]["7"]["fn"] == 2


def test_predictions_need_only_annotations_and_may_have_more_images(files):
    def strip(content):
        del content["images"], content["categories"]
        for annotation in content["annotations"]:
            for entry in annotation["segments_info"]:
                del entry["area"], entry["iscrowd"]
        content["annotations"].append(
            {"image_id": 99, "file_name": "none.png", "segments_info": []}
        )

    change(files, "pred.json", strip)
    assert score_folder(files)["all"]["pq"] == 100.0


def drop_segment(content):
    content["annotations"][1]["segments_info"].pop()


def other_segments(content):
    content["annotations"][1]["segments_info"] = [
        segment(number, THING) for number in (4, 5)
    ]


def repeat_segment(content):
    content["annotations"][1]["segments_info"].append(segment(70, THING))


def unknown_category(content):
    content["annotations"][1]["segments_info"][0]["category_id"] = 12


def drop_image(content):
    del content["annotations"][1]


def repeat_image(content):
    content["annotations"][0]["image_id"] = 8


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("pred", drop_segment, r"8\.png: 1 ids of the PNG are not .* example 70000"),
        ("gt", drop_segment, r"8\.png: 1 ids of the PNG are not .* example 70000"),
        ("pred", other_segments, r"8\.png: 3 ids of the PNG are not .* example 70;"),
        ("gt", other_segments, r"8\.png: 3 ids of the PNG are not .* example 70;"),
        ("pred", repeat_segment, r"8\.png: id 70 is listed twice"),
        ("pred", unknown_category, r"8\.png: segment 70 has category 12, which"),
        ("gt", unknown_category, r"8\.png: segment 70 has category 12, which"),
        ("pred", drop_image, r"pred\.json: 1 of 2 images .* example image 8"),
        ("pred", repeat_image, r"pred\.json: image 8 has two annotations"),
        ("gt", lambda content: content.pop("categories"), r"gt\.json: .*categories"),
        ("gt", lambda content: content["annotations"].clear(), r"nothing to score"),
        (
            "gt",
            lambda content: content["categories"].append(content["categories"][0]),
            r"ids of categories must differ; got \[7, 3, 11, 7\]",
        ),
    ],
)
def test_a_json_that_does_not_fit_is_one_line(files, name, edit, message):
    change(files, f"{name}.json", edit)
    with pytest.raises(InputError, match=message) as caught:
        score_folder(files)
    assert "\n" not in str(caught.value)
    assert str(files) in str(caught.value) or "differ" in message


def no_image(path):
    path.write_text("hello")


def other_size(path):
    write_ids(path, np.zeros([4, 3], np.int32))


def cut_off(path):
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize("name", ["gt", "pred"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"8\.png: no such"),
        (no_image, r"8\.png: cannot be read: "),
        (cut_off, r"8\.png: cannot be read: "),
        (other_size, r"8\.png: is 3x. pixels, but .*8\.png is 3x"),
        (lambda path: shutil.rmtree(path.parent), "no such folder"),
    ],
)
def test_damaged_masks_are_one_line(files, name, damage, message):
    damage(files / name / "8.png")
    with pytest.raises(InputError, match=message) as caught:
        score_folder(files)
    assert "\n" not in str(caught.value)


# --- what a json has otherwise than its PNGs -----------------------------------------


def test_areas_of_the_json_are_official_and_those_of_the_pixels_are_told(files):
    """IoU by hand: 2 pixels shared, 1.5 given, union 2 + 1.5 - 2."""

    def change_area(content):
        for annotation in content["annotations"]:
            annotation["segments_info"][0]["area"] = 1.5

    change(files, "gt.json", change_area)
    result = score_folder(files)
    assert result["per_class"]["7"]["iou_sum"] == pytest.approx(2 * 2 / 1.5)
    assert result["all"]["pq"] == pytest.approx(100 * (2 / 1.5 + 1 + 1) / 3)
    assert result["with_pixel_areas"]["all"]["pq"] == 100.0
    times, example = result["notes"]["area"]
    assert times == 2 and "got 1.5 in the json and 2 in the PNG" in example


@pytest.mark.parametrize("area", [0, 1e-9, 10**12])
def test_areas_of_any_size_give_numbers(files, area):
    def change_area(content):
        content["annotations"][0]["segments_info"][2]["area"] = area

    change(files, "gt.json", change_area)
    result = score_folder(files)
    assert np.isfinite(result["all"]["pq"])
    assert result["with_pixel_areas"]["all"]["pq"] == 100.0


@pytest.mark.parametrize("area", ["no", True, -3, None, [1], float("nan")])
def test_areas_that_are_none_are_counted(files, area):
    def change_area(content):
        content["annotations"][0]["segments_info"][2]["area"] = area

    change(files, "gt.json", change_area)
    result = score_folder(files)
    assert result["all"]["pq"] == 100.0 and "with_pixel_areas" not in result


def two_pieces(content):
    """Stuff of the first image in two segments, drawn in `split_stuff`."""
    infos = content["annotations"][0]["segments_info"]
    infos[2]["area"] = 1
    infos.append(segment(9, STUFF, area=1))


@pytest.mark.parametrize("sides", [["gt"], ["gt", "pred"]])
def test_stuff_in_several_segments_is_merged(files, sides):
    for side in sides:
        change(files, f"{side}.json", two_pieces)
        path = files / side / "5.png"
        write_ids(path, np.array([[70, 70, 300], [0, 70000, 9]], np.int32))
    result = score_folder(files)
    assert result["all"] == {"pq": 100.0, "sq": 100.0, "rq": 100.0, "n": 3}
    assert result["per_class"]["11"]["tp"] == 2
    assert {kind: note[0] for kind, note in result["notes"].items()} == {
        "stuff twice": len(sides)
    }


def test_stuff_in_several_segments_of_a_prediction_alone_counts_officially(files):
    """Neither half is above an IoU of 0.5."""
    change(files, "pred.json", two_pieces)
    path = files / "pred" / "5.png"
    write_ids(path, np.array([[70, 70, 300], [0, 70000, 9]], np.int32))
    result = score_folder(files)
    stuff = result["per_class"]["11"]
    assert (stuff["tp"], stuff["fp"], stuff["fn"]) == (1, 2, 1)
    assert result["notes"] == {}


@pytest.mark.parametrize("side", ["gt", "pred"])
@pytest.mark.parametrize("category", [THING, STUFF])
def test_segments_without_pixels_are_left_out(files, side, category):
    def add(content):
        infos = content["annotations"][1]["segments_info"]
        infos.insert(0, segment(4, category, area=7))

    change(files, f"{side}.json", add)
    result = score_folder(files)
    assert result["all"] == {"pq": 100.0, "sq": 100.0, "rq": 100.0, "n": 3}
    assert list(result["notes"]) == ["id not in PNG"]
    assert result["notes"]["id not in PNG"][0] == 1


def test_a_segment_with_id_0_has_the_pixels_of_0(files):
    """In the ground truth alone: the prediction has void there, and misses it."""

    def add(content):
        content["annotations"][0]["segments_info"].append(segment(0, OTHER, area=1))

    change(files, "gt.json", add)
    other = score_folder(files)["per_class"]["3"]
    assert (other["tp"], other["fp"], other["fn"]) == (2, 0, 1)
    change(files, "pred.json", add)
    assert score_folder(files)["all"]["pq"] == 100.0


@pytest.mark.parametrize(
    ("area", "kinds"), [(0.5, ["area", "void with the id of a segment"]), (3, ["area"])]
)
def test_void_beside_a_segment_with_id_0_is_of_it(files, area, kinds):
    def add(content):
        content["annotations"][0]["segments_info"].append(segment(0, OTHER, area=area))

    change(files, "gt.json", add)
    result = score_folder(files)
    assert list(result["notes"]) == [*kinds, "segment with id 0"]
    change(files, "pred.json", add)
    assert score_folder(files)["with_pixel_areas"]["all"]["pq"] == 100.0


def test_predictions_may_name_the_photos(files):
    def name_photos(content):
        for entry in content["annotations"]:
            entry["file_name"] = entry["file_name"].replace(".png", ".jpg")

    wanted = score_folder(files)
    change(files, "pred.json", name_photos)
    assert score_folder(files) == wanted


def test_a_json_without_images_may_name_them(files):
    def rename(content):
        content.pop("images")
        for annotation in content["annotations"]:
            annotation["file_name"] = annotation["file_name"].replace("png", "jpg")

    change(files, "gt.json", rename)
    assert score_folder(files)["all"]["pq"] == 100.0
