"""One fault of a file at a time, and exactly that one is reported."""

from __future__ import annotations

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from cmt.data.panoptic.masks import read_ids, write_ids
from tests.data import faults


@pytest.fixture
def data(broken) -> faults.DataSet:
    return faults.DataSet(broken)


FAULTS = {
    "image file missing": (
        lambda d: d.image().unlink(),
        "missing file",
        1,
        "no such image, though the json names 000000000001.jpg; put it there",
    ),
    "all images missing": (
        lambda d: [d.image(n).unlink() for n in range(1, 7)],
        "missing file",
        1,
        "none of the 6 images that the json names is in this folder, such as "
        "000000000001.jpg; give --images the folder",
    ),
    "image under another ending": (
        lambda d: d.image().rename(d.image().with_suffix(".jpeg")),
        "missing file",
        1,
        "there is 000000000001.jpeg; make",
    ),
    "images under another ending": (
        lambda d: (
            [d.image(n).rename(d.image(n).with_suffix(".jpeg")) for n in (1, 2)]
            + [d.image(n).rename(d.image(n).with_suffix(".JPG")) for n in (3, 4, 5, 6)]
        ),
        "missing file",
        6,
        "there is 000000000001.jpeg; make",
    ),
    "area and box of a segment": (
        lambda d: d.infos()[0].update(area=1, bbox=[0, 0, 1, 1]),
        "area",
        1,
        'set "area" to',
    ),
    "mask file missing": (
        lambda d: d.mask().unlink(),
        "missing file",
        1,
        "no such mask, though",
    ),
    "unreadable image": (
        lambda d: d.image().write_text("x"),
        "not an image",
        1,
        "download",
    ),
    "unreadable mask": (
        lambda d: d.mask().write_text("x"),
        "not an image",
        1,
        "it is no PNG; download",
    ),
    "JPEG for a mask": (
        lambda d: shutil.copy(d.image(), d.mask()),
        "not a panoptic PNG",
        1,
        "000000000001.png: must be a PNG; got a JPEG, which changes colours",
    ),
    "truncated image": (
        lambda d: faults.cut(d.image(), 2),
        "truncated file",
        1,
        "download",
    ),
    "truncated mask": (
        lambda d: faults.cut(d.mask(), 12),
        "truncated file",
        1,
        "download",
    ),
    "damaged mask": (
        lambda d: faults.flip_byte(d.mask(), -20),
        "damaged file",
        1,
        "does not fit its checksum",
    ),
    "size of the image": (
        lambda d: Image.new("RGB", (60, 65)).save(d.image()),
        "size",
        1,
        "got 65x60 here and 65x65 in the json",
    ),
    "size of the mask": (
        lambda d: Image.new("RGB", (60, 65)).save(d.mask()),
        "size",
        1,
        "got 65x60 here and 65x65 in the json; use the files",
    ),
    "size in the json": (
        lambda d: d.content["images"][0].update(height=99),
        "size",
        1,
        'image and mask agree on 65x65 here and 99x65 in the json; correct "height"',
    ),
    "palette mask": (
        lambda d: faults.saved_as(d.mask(), "P"),
        "not a panoptic PNG",
        1,
        "000000000001.png: must be an RGB PNG of 8 bits a channel, with id = R + 256 G "
        "+ 65536 B; got a palette PNG",
    ),
    "grey mask": (
        lambda d: faults.saved_as(d.mask(), "L"),
        "not a panoptic PNG",
        1,
        "with id = R + 256 G + 65536 B; got a grey PNG",
    ),
    "id missing from the json": (
        lambda d: d.infos().pop(),
        "id not in json",
        1,
        "add the segment",
    ),
    "id missing from the PNG": (
        lambda d: d.infos().append({"id": 777, "category_id": 1, "area": 9}),
        "id not in PNG",
        1,
        "segment 777: the json lists it",
    ),
    "id renamed in the PNG": (
        lambda d: d.change_ids(lambda i: np.where(i == d.infos()[0]["id"], 777, i)),
        "ids that differ",
        1,
        "is 777, going by the areas",
    ),
    "mask of another image": (
        faults.exchange,
        "ids that differ",
        1,
        "give the PNG that",
    ),
    "mask as BGR": (faults.bgr, "ids that differ", 1, "save the PNG as RGB, not BGR"),
    "mask resized with interpolation": (
        faults.interpolated,
        "ids that differ",
        1,
        "resizing with interpolation",
    ),
    "mask all void": (
        lambda d: d.change_ids(np.zeros_like),
        "id not in PNG",
        1,
        "all pixels have id 0",
    ),
    "no segments listed": (
        lambda d: d.infos().clear(),
        "id not in json",
        1,
        'add the segments to "segments_info"',
    ),
    "area": (
        lambda d: d.infos()[0].update(area=d.infos()[0]["area"] + 1),
        "area",
        1,
        'set "area" to',
    ),
    "all areas": (
        lambda d: [i.update(area=i["area"] + 1) for i in d.infos()],
        "area",
        1,
        'no "area" of the',
    ),
    "box": (lambda d: d.infos()[0].update(bbox=[1, 2, 3, 4]), "box", 1, 'set "bbox"'),
    "orientation that the size does not tell": (
        lambda d: faults.turned(d.image(), 3),
        "orientation",
        1,
        "give --exif ignore (as stored) or --exif apply",
    ),
    "image beyond the sizes of records": (
        lambda d: Image.new("L", (65_501, 1)).save(d.image(), "PNG"),
        "too large",
        1,
        "got 1x65501",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_one_group(data, fault):
    faults.check(data, FAULTS[fault])


NOTES = {
    "CMYK image": (
        lambda d: faults.saved_as(d.image(), "CMYK"),
        "CMYK image",
        "mode is CMYK",
    ),
    "grey image": (
        lambda d: faults.saved_as(d.image(), "L"),
        "grey image",
        "mode is L",
    ),
    "void image": (
        lambda d: (d.infos().clear(), d.change_ids(np.zeros_like)),
        "annotation without segments",
        "all of it is void",
    ),
    "category name twice": (
        lambda d: d.content["categories"][1].update(
            name=d.content["categories"][0]["name"]
        ),
        "duplicate category name",
        "categories 1, 2 are all called",
    ),
    "image file not named": (
        lambda d: Image.new("RGB", (3, 3)).save(d.image(99)),
        "image file not in json",
        "000000000099.jpg: the json does not name this file",
    ),
    "mask file not named": (
        lambda d: Image.new("RGB", (3, 3)).save(d.mask(99)),
        "mask file not in json",
        "000000000099.png",
    ),
}


@pytest.mark.parametrize("case", NOTES)
def test_one_remark_is_one_note(data, case):
    plant, kind, line = NOTES[case]
    plant(data)
    found = data.found()
    assert found.problems == []
    notes = [note for note in found.notes if note.kind not in faults.ALWAYS]
    assert [note.kind for note in notes] == [kind]
    assert line in notes[0].line


def test_two_faults_of_an_image_are_both_found(data):
    """Nothing but what follows from the first is left out."""
    data.infos()[0].update(area=data.infos()[0]["area"] + 1)
    data.infos()[1]["bbox"] = [0, 0, 1, 1]
    data.infos(2).pop()
    faults.cut(data.image(2), 2)
    assert data.found(strict=True).kinds() == {
        "area": 1,
        "box": 1,
        "id not in json": 1,
        "truncated file": 1,
    }


def test_areas_beyond_the_pixels_that_are_lost_are_named(data):
    """A segment that lost pixels to an unknown id is no fault of its own."""
    first, second = data.infos()[0], data.infos()[1]
    ids = read_ids(data.mask())
    rows, columns = np.nonzero(ids == first["id"])
    ids[rows[:3], columns[:3]] = 777
    write_ids(data.mask(), ids)
    assert data.found(strict=True).kinds() == {"id not in json": 1}
    second["area"] += 4
    assert data.found(strict=True).kinds() == {"id not in json": 1, "area": 1}


@pytest.mark.parametrize(
    ("exif", "fix"), [("ignore", "give --exif auto"), ("auto", ""), ("apply", "")]
)
def test_orientations_that_the_option_takes_the_wrong_way(data, exif, fix):
    """The files are fine, so they are not to be changed."""
    faults.upright_not_square(data)
    problems = data.found(exif=exif).problems
    assert [problem.fix.partition(",")[0] for problem in problems] == [fix] * bool(fix)
    assert all("with --exif ignore" not in problem.fix for problem in problems)


def test_turned_files_that_the_json_describes_as_stored(data):
    """Applying the orientation is wrong for this one."""
    faults.upright_not_square(data)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 65)).save(data.image(), exif=exif)
    (problem,) = data.found(exif="apply").problems
    assert problem.kind == "size" and problem.fix.startswith("give --exif auto")
    assert data.found(exif="auto").problems == []


def test_a_wrong_orientation_does_not_excuse_the_mask(data):
    faults.upright_not_square(data)
    Image.new("RGB", (10, 10)).save(data.mask())
    by_file = {
        pathlib.Path(problem.file).suffix: problem.fix
        for problem in data.found(exif="ignore").problems
    }
    assert by_file[".jpg"].startswith("give --exif auto")
    assert by_file[".png"].startswith("use the files")


def test_merging_stuff_as_the_fix_says(data):
    faults.second_stuff(data)
    (problem,) = data.found(strict=True).problems
    assert problem.kind == "stuff twice"
    new = data.infos().pop()
    kept = next(i for i in data.infos() if i["category_id"] == new["category_id"])
    data.change_ids(lambda ids: np.where(ids == new["id"], kept["id"], ids))
    kept["area"] += new["area"]
    assert data.found(strict=True).problems == []


@pytest.mark.parametrize("count", [255, 256])
def test_more_masks_than_any_model_has_centers(data, count):
    """Then no number of centers is asked for that the config would refuse."""
    first, second = faults.things(data)[:2]
    faults.crowded(data, {first: 155, second: count - 155})
    found = data.found(num_centers=128)
    assert found.problems == []
    (note,) = [n for n in found.notes if n.kind == "more masks than centers"]
    assert ("set model.num_centers" in note.fix) == (count <= 255)
    assert "training makes the smallest void" in note.fix
