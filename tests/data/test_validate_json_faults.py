"""One fault of a json at a time, and exactly that one is reported."""

from __future__ import annotations

import pytest

from tests.data import faults


@pytest.fixture
def data(broken) -> faults.DataSet:
    return faults.DataSet(broken)


FAULTS = {
    "image without annotation": (
        lambda d: d.content["annotations"].pop(),
        "image without annotation",
        1,
        "000000000006.jpg has no annotation; add one",
    ),
    "annotation without image": (
        lambda d: d.content["images"].pop(),
        "image without entry",
        1,
        'annotations[5]: image_id 6 is not in "images"; add the image',
    ),
    "negative area": (lambda d: d.infos()[0].update(area=-1), "area", 1, "got -1"),
    "duplicate segment id": (
        lambda d: d.infos().append(dict(d.infos()[0])),
        "duplicate",
        1,
        "if both say the same, leave one out",
    ),
    "segment drawn with another's id": (
        lambda d: d.infos()[1].update(id=d.infos()[0]["id"]),
        "duplicate",
        1,
        "rename one",
    ),
    "duplicate image": (
        lambda d: d.content["images"].append(dict(d.content["images"][0])),
        "duplicate",
        1,
        "image id 1 occurs twice",
    ),
    "image name used twice": (
        lambda d: d.content["images"][1].update(file_name="000000000001.jpg"),
        "duplicate",
        1,
        "images 1 and 2 are both called",
    ),
    "duplicate annotation": (
        lambda d: d.content["annotations"].append(dict(d.content["annotations"][0])),
        "duplicate",
        2,
        "annotation of image id 1 occurs twice",
    ),
    "stuff twice": (faults.second_stuff, "stuff twice", 1, "one segment an image"),
    "crowd on stuff": (
        lambda d: d.info(thing=False).update(iscrowd=1),
        "crowd",
        1,
        'set "iscrowd" to 0',
    ),
    "crowd of 2": (
        lambda d: d.info(thing=True).update(iscrowd=2),
        "crowd",
        1,
        "must be 0 or 1",
    ),
    "unknown category": (
        lambda d: d.infos()[0].update(category_id=99),
        "category not in list",
        1,
        "add the category or correct",
    ),
    "categories of another data set": (
        lambda d: [c.update(id=c["id"] + 1000) for c in d.content["categories"]],
        "category not in list",
        1,
        'give the "categories" that the annotations were made with',
    ),
    "no categories": (
        lambda d: d.content["categories"].clear(),
        "categories",
        1,
        "must not be empty",
    ),
    "category without id": (
        faults.category_without_id,
        "json structure",
        1,
        '"id" must be an integer',
    ),
    "category without isthing": (
        lambda d: d.content["categories"][0].pop("isthing"),
        "categories",
        1,
        "add 1 for countable",
    ),
    "no isthing at all": (
        lambda d: faults.pop_each(d, "isthing"),
        "categories",
        1,
        "not of the instance json",
    ),
    "category id twice": (
        lambda d: d.content["categories"].append(dict(d.content["categories"][0])),
        "duplicate",
        1,
        "category id 1 occurs twice",
    ),
    "segment without id": (
        lambda d: d.infos()[0].pop("id"),
        "json structure",
        1,
        '"id" must be an integer',
    ),
    "segment without area": (
        lambda d: d.infos()[0].pop("area"),
        "json structure",
        1,
        '"area" must be an integer',
    ),
    "segment without category": (
        lambda d: d.infos()[0].pop("category_id"),
        "json structure",
        1,
        '"category_id" must be an integer',
    ),
    "segment id too large": (
        lambda d: d.infos()[0].update(id=2**24),
        "segment id",
        1,
        "renumber the segment",
    ),
    "segments that are no list": (
        lambda d: d.content["annotations"][0].update(segments_info=None),
        "json structure",
        1,
        "add the segments",
    ),
    "image without height": (
        lambda d: d.content["images"][0].pop("height"),
        "json structure",
        1,
        'images[0]: "height" must be',
    ),
    "image without id": (
        lambda d: d.content["images"][0].pop("id"),
        "json structure",
        1,
        'images[0]: "id" must be',
    ),
    "image of no height": (
        lambda d: d.content["images"][0].update(height=0),
        "json structure",
        1,
        "above 0",
    ),
    "annotation without image_id": (
        lambda d: d.content["annotations"][0].pop("image_id"),
        "json structure",
        1,
        '"image_id" must be',
    ),
    "annotation without file name": (
        lambda d: d.content["annotations"][0].pop("file_name"),
        "json structure",
        1,
        '"file_name" must name a file',
    ),
    "no annotations": (
        lambda d: d.content["annotations"].clear(),
        "empty data set",
        1,
        "got 6 and 0",
    ),
    "no images": (
        lambda d: d.content["images"].clear(),
        "empty data set",
        1,
        "got 0 and 6",
    ),
    "instance annotations": (
        faults.instances,
        "json structure",
        1,
        'annotations must have "segments_info"; got instance annotations; give',
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_one_group(data, fault):
    faults.check(data, FAULTS[fault])


def test_the_right_json_is_named(data):
    faults.instances(data)
    path = data.sources["annotations"].with_name("instances_val2017.json")
    data.sources["annotations"] = path
    (problem,) = data.found().problems
    assert problem.fix == "give the panoptic json of the split, panoptic_val2017.json"


@pytest.mark.parametrize(
    ("key", "what"), [("caption", "captions"), ("keypoints", "keypoint annotations")]
)
def test_other_json_of_coco(data, key, what):
    for annotation in data.content["annotations"]:
        annotation.pop("segments_info")
        annotation[key] = []
    (problem,) = data.found().problems
    assert problem.message.endswith(f"got {what}")
