"""What is said of files that the json does not name, or that are not there."""

from __future__ import annotations

import json
import pathlib

import pytest

from cmt.data.checks import reconcile as module
from cmt.data.checks.reconcile import FileCounts, Reconciliation, reconcile
from cmt.data.checks.report import validate
from cmt.data.panoptic.json import PanopticImage
from cmt.data.panoptic.kinds import Kind
from cmt.data.panoptic.registry import Paths


def entry(image: str, mask: str, number: int = 1) -> PanopticImage:
    return PanopticImage(number, image, mask, 1, 1, [])


def touch(folder: pathlib.Path, *names: str) -> str:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return str(folder)


def unused(found: Reconciliation) -> list[str]:
    return [problem.file for problem in found.unused]


def test_images_of_other_splits_in_the_folder(tmp_path):
    images = touch(tmp_path / "i", "a.jpg", "b.jpg", "c.JPG", "readme.txt", "._a.jpg")
    masks = touch(tmp_path / "m", "a.png", "x_labels.png")
    found = reconcile(Paths(images, "", masks), [entry("a.jpg", "a.png")])
    assert found.counts == FileCounts(3, 2, 0, 0, 2, 1)
    assert unused(found) == [
        f"{images}/b.jpg",
        f"{images}/c.JPG",
        f"{masks}/x_labels.png",
    ]
    assert found.missing == []


def test_only_folders_that_are_named_are_looked_at(tmp_path):
    images = touch(tmp_path / "i", "top.jpg", "aa/1.jpg", "aa/2.jpg", "bb/3.jpg")
    masks = touch(tmp_path / "m", "1.png")
    found = reconcile(Paths(images, "", masks), [entry("aa/1.jpg", "1.png")])
    assert unused(found) == [f"{images}/aa/2.jpg"]
    assert found.counts == FileCounts(2, 1, 0, 0, 1, 0)


def test_images_and_masks_in_one_folder(tmp_path):
    """A mask that the json names is no image file that it does not."""
    folder = touch(tmp_path, "a.jpg", "a.png", "more.png")
    found = reconcile(Paths(folder, "", folder), [entry("a.jpg", "a.png")])
    assert unused(found) == [f"{folder}/more.png"] * 2
    assert found.counts.missing_images == found.counts.missing_masks == 0


def test_names_that_lead_to_one_file(tmp_path):
    images = touch(tmp_path / "i", "a.jpg", "s/b.jpg")
    masks = touch(tmp_path / "m", "a.png", "b.png")
    entries = [entry("./a.jpg", "a.png"), entry("s//b.jpg", "s/../b.png", 2)]
    found = reconcile(Paths(images, "", masks), entries, image_names=["a.jpg"])
    assert found.missing == found.unused == []
    assert found.counts == FileCounts(2, 2, 0, 0, 0, 0)


def test_names_without_a_usable_entry_are_named_all_the_same(tmp_path):
    images = touch(tmp_path / "i", "a.jpg", "b.jpg")
    masks = touch(tmp_path / "m", "a.png", "b.png")
    found = reconcile(
        Paths(images, "", masks),
        [entry("a.jpg", "a.png")],
        image_names=["a.jpg", "b.jpg", "gone.jpg"],
        mask_names=["b.png"],
    )
    assert found.unused == found.missing == []
    assert found.counts == FileCounts(2, 2, 1, 0, 0, 0)


@pytest.mark.parametrize("there", ["a.png", "A.JPG", "a.jpeg"])
def test_a_file_of_another_ending_or_case_is_pointed_out(tmp_path, there):
    images = touch(tmp_path / "i", there)
    masks = touch(tmp_path / "m", "a.png")
    found = reconcile(Paths(images, "", masks), [entry("a.jpg", "a.png")])
    (problem,) = found.missing
    assert problem.message.endswith(f"; there is {there}")
    assert problem.fix.startswith('make "file_name" in the json and the name of the')
    assert found.counts == FileCounts(1, 1, 1, 0, 1, 0)
    # The fault names it; a remark that it is not used would be the same once more.
    assert found.unused == []


def test_a_missing_file_hides_no_other_that_is_not_named(tmp_path):
    images = touch(tmp_path / "i", "a.JPG", "b.jpg")
    masks = touch(tmp_path / "m", "a.png")
    found = reconcile(Paths(images, "", masks), [entry("a.jpg", "a.png")])
    assert unused(found) == [f"{images}/b.jpg"]
    assert found.counts.unused_images == 2


@pytest.mark.parametrize("advice", ["", "check --root x and --split val"])
def test_what_to_do_about_a_missing_file_fits_the_options(tmp_path, advice):
    masks = touch(tmp_path / "m", "a.png")
    options = Paths(str(tmp_path), "", masks, advice=advice)
    (problem,) = reconcile(options, [entry("a.jpg", "a.png")]).missing
    wanted = advice or "give --images the folder that has it"
    assert problem.fix == f"put it there or {wanted}"


def test_files_that_the_json_names_stand_for_no_other(tmp_path):
    folder = touch(tmp_path, "a.png")
    found = reconcile(Paths(folder, "", folder), [entry("a.jpg", "a.png")])
    (problem,) = found.missing
    assert "there is" not in problem.message
    assert found.unused == []


def test_file_systems_that_do_not_tell_upper_from_lower_case(tmp_path, monkeypatch):
    images = touch(tmp_path / "i", "A.JPG")
    masks = touch(tmp_path / "m", "a.png")
    monkeypatch.setattr(module, "is_file", lambda path: path.endswith("a.jpg"))
    found = reconcile(Paths(images, "", masks), [entry("a.jpg", "a.png")])
    assert found.missing == found.unused == []
    assert found.counts == FileCounts(1, 1, 0, 0, 0, 0)


def test_images_with_faults_in_the_json_are_named_by_it(broken):
    """No note says of their files that the json does not name them."""
    content = json.loads(broken["annotations"].read_text())
    content["annotations"].pop(0)
    content["images"][1].pop("height")
    content["images"][2]["file_name"] = content["images"][3]["file_name"]
    broken["annotations"].write_text(json.dumps(content))
    found = validate(Paths(**broken), workers=1)
    # Nothing names the third image, nor the first mask, any more.
    assert [note.file[-16:] for note in found.notes if "file not" in note.kind] == [
        "000000000003.jpg",
        "000000000001.png",
    ]
    assert found.files == FileCounts(6, 6, 0, 0, 1, 1)


@pytest.mark.parametrize("text", ["{", '{"images": []}'])
def test_a_json_that_cannot_be_read_has_no_remarks(broken, text):
    broken["annotations"].write_text(text)
    found = validate(Paths(**broken), workers=1)
    assert found.notes == []
    assert (found.files.image_files, found.files.mask_files) == (6, 6)


def test_places_of_a_registered_data_set_hold_for_images_without_annotation(tmp_path):
    """Cityscapes: the json has other names than the files."""
    images = touch(tmp_path / "i", "aachen/aachen_000000_000019_leftImg8bit.png")
    masks = touch(tmp_path / "m", "x.png")
    image = {"id": "a", "height": 1, "width": 1}
    image["file_name"] = "aachen_000000_000019_gtFine_leftImg8bit.png"
    other = {"image_id": "b", "file_name": "x.png", "segments_info": []}
    categories = [
        {"id": number, "name": str(number), "isthing": int(number <= 8)}
        for number in range(1, 20)
    ]
    content = {"images": [image], "annotations": [other], "categories": categories}
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    paths = Paths(images, path, masks, "cityscapes", strict=True)
    found = validate(paths, workers=1)
    assert found.kinds() == {"image without annotation": 1, "image without entry": 1}
    assert found.files == FileCounts(1, 1, 0, 0, 0, 0)
    assert found.notes == []


def test_the_folder_of_another_split_is_one_problem(tmp_path):
    """Of generated scenes the names of train are those of val, and more."""
    train = touch(tmp_path / "train", *(f"{number:03}.png" for number in range(40)))
    masks = touch(tmp_path / "m", *(f"{number:03}.png" for number in range(12)))
    entries = [entry(f"{number:03}.png", f"{number:03}.png") for number in range(12)]
    found = reconcile(Paths(train, "", masks), entries)
    (problem,) = found.summary
    assert problem.kind is Kind.UNUSED_IMAGE
    assert problem.line == (
        f"{train}: the json names 12 of the images in this folder and not 28, such as "
        "012.png; is it of another split?; give --images the folder that has them, or "
        "the json that names all"
    )
    assert unused(found) == found.missing == []
    assert found.counts.unused_images == 28

    val = touch(tmp_path / "val", *(f"{number:03}.png" for number in range(12)))
    entries = [
        entry(f"{number:03}.png", f"{number % 12:03}.png") for number in range(40)
    ]
    found = reconcile(Paths(val, "", masks), entries)
    (problem,) = found.summary
    assert problem.kind is Kind.MISSING
    assert problem.message == (
        "28 of the 40 images that the json names are not in this folder, such as "
        "012.png"
    )
    assert len(found.missing) == 28


def test_a_few_other_files_are_remarks(tmp_path):
    images = touch(tmp_path / "i", *(f"{number}.jpg" for number in range(22)))
    masks = touch(tmp_path / "m", *(f"{number}.png" for number in range(11)))
    entries = [entry(f"{number}.jpg", f"{number}.png") for number in range(11)]
    found = reconcile(Paths(images, "", masks), entries)
    assert found.summary == []
    assert len(unused(found)) == 11
