"""One fault of a json at a time, and exactly that one is reported."""

from __future__ import annotations

import pytest

from cmt.errors import InputError
from tests.data import faults
from tests.data.conversions import convert


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
        "give one another id, in json and PNG; if both say the same, leave one out",
    ),
    "duplicate image": (
        lambda d: d.content["images"].append(dict(d.content["images"][0])),
        "duplicate",
        1,
        "image id 1 occurs twice; give one another id",
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
    "stuff twice": (
        faults.second_stuff,
        "stuff twice",
        1,
        "draw both with one id in the PNG and keep one entry, its area the sum",
    ),
    "more things of a class than labels hold": (
        lambda d: faults.crowded(d, {faults.things(d)[0]: 256}),
        "label range",
        1,
        "at most 255 instances of a class fit in a label; got 256 of category",
    ),
    "more categories than labels hold": (
        lambda d: faults.more_categories(d, 256),
        "label range",
        1,
        "at most 255 categories fit in a label; got 256",
    ),
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
    "category of which the id is true": (
        lambda d: d.content["categories"].append({"id": True, "isthing": 1}),
        "json structure",
        1,
        '"id" must be an integer; got True; correct it',
    ),
    "category whose name is none": (
        lambda d: d.content["categories"][0].update(name={"a": 1}),
        "categories",
        1,
        "\"name\" must be text in one line; got {'a': 1}",
    ),
    "category whose name is true": (
        lambda d: d.content["categories"][0].update(name=True),
        "categories",
        1,
        '"name" must be text in one line; got True',
    ),
    "category whose name cannot be printed": (
        lambda d: d.content["categories"][0].update(name="a\ud800"),
        "categories",
        1,
        '"name" must be text',
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
    "area of a segment is true": (
        lambda d: d.infos()[0].update(area=True),
        "json structure",
        1,
        '"area" must be an integer; got True',
    ),
    "no segment has an area": (
        lambda d: [d.infos(n)[k].pop("area") for n in range(1, 7) for k in (0, 1)],
        "json structure",
        1,
        'segments_info[0]: "area" must be an integer; got nothing (and so 11 others: '
        "annotation of 000000000001.png: segments_info[1], ",
    ),
    "no image has a height": (
        lambda d: [image.pop("height") for image in d.content["images"]],
        "json structure",
        1,
        'images[0]: "height" must be an integer; got nothing (and so 5 others: '
        "images[1], images[2], images[3] and 2 more); add it",
    ),
    "heights with a point": (
        lambda d: [i.update(height=i["height"] + 0.0) for i in d.content["images"]],
        "json structure",
        1,
        '"height" must be an integer; got 65.0 (and so 5 others',
    ),
    "paths of Windows": (
        lambda d: [
            image.update(file_name="val\\" + image["file_name"])
            for image in d.content["images"]
        ],
        "file name",
        1,
        "a path of Windows); got 'val\\\\000000000001.jpg' (and so 5 others",
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


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("what", ["instances", "categories"])
def test_convert_takes_what_validate_passes(data, tmp_path, what, extra):
    """At the limit both pass, beyond it both refuse, in the same words."""
    if what == "instances":
        faults.crowded(data, {faults.things(data)[0]: 255 + extra})
    else:
        faults.more_categories(data, 255 + extra)
    problems = data.found().problems
    assert len(problems) == extra
    output = tmp_path / "out"
    options = dict(output=output, split="val", workers=1)
    if not extra:
        assert convert(**data.sources, **options).num_images == 6
        return
    with pytest.raises(InputError) as error:
        convert(**data.sources, **options)
    assert problems[0].message in str(error.value)


def test_crowd_is_no_instance(data):
    faults.crowded(data, {faults.things(data)[0]: 256})
    data.infos()[0]["iscrowd"] = 1
    assert data.found().problems == []


def test_a_removed_category_is_one_fault(data):
    """Its segments do not each tell it, but each category does."""
    used = [info["category_id"] for n in range(1, 7) for info in data.infos(n)]
    gone = sorted(faults.things(data), key=used.count)[-1]
    times = used.count(gone)
    assert 3 < times <= len(used) // 2
    data.content["categories"] = [
        c for c in data.content["categories"] if c["id"] != gone
    ]
    data.infos(1)[0]["category_id"] = 998
    found = data.found().problems
    times -= used[0] == gone
    assert len(found) == 2
    grouped = next(p for p in found if f"category_id {gone} " in p.message)
    assert f"(and so {times - 1} others: segment " in grouped.message
    assert (grouped.segment, grouped.image) == (None, None)


def test_conversion_leaves_out_images_of_one_cause(data, tmp_path):
    """What validation tells as one is a fault of each image for conversion."""
    for image in data.content["images"][:5]:
        image.update(height="65 px")
    assert len(data.found().problems) == 1
    options = dict(output=tmp_path / "out", split="val", workers=1)
    made = convert(**data.sources, **options, max_bad=5)
    assert made.num_images == 1
    assert [one.image for one in made.contents.skipped] == [
        f"images[{number}]" for number in range(5)
    ]
