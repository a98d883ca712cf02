"""Registered data sets, and any by its manifest."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cmt.cli.data_paths import find_paths
from cmt.data.checks.report import validate
from cmt.data.panoptic import registry
from cmt.data.panoptic.masks import read_ids
from cmt.data.records.manifest import Manifest
from cmt.data.records.reader import decode_example
from cmt.errors import InputError
from cmt.evaluation.annotations import read_annotations
from tests.data.conversions import convert, convert_paths
from tests.data.records import read_records


def edit(path: pathlib.Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def as_cityscapes(sources: dict, root: pathlib.Path) -> None:
    """The scenes as a Cityscapes of 3 cities: names for ids, folders of cities."""
    content = json.loads(sources["annotations"].read_text())
    names = {}
    for number, image in enumerate(content["images"]):
        city = ("aachen", "bonn", "köln")[number % 3]
        name = f"{city}_{number:06d}_000019"
        names[image["id"]] = name
        path = root / "leftImg8bit" / "val" / city / f"{name}_leftImg8bit.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(sources["images"] / image["file_name"]).save(path)
        image.update(id=name, file_name=f"{name}_gtFine_leftImg8bit.png")
    masks = root / "gtFine" / "cityscapes_panoptic_val"
    masks.mkdir(parents=True)
    for annotation in content["annotations"]:
        name = names[annotation["image_id"]]
        mask = (sources["masks"] / annotation["file_name"]).read_bytes()
        annotation.update(image_id=name, file_name=f"{name}_gtFine_panoptic.png")
        (masks / annotation["file_name"]).write_bytes(mask)
    (root / "gtFine" / "cityscapes_panoptic_val.json").write_text(json.dumps(content))


def with_classes(monkeypatch, name: str, categories: list) -> None:
    """Makes these the number of classes of a data set."""
    things = sum(category.is_thing for category in categories)
    layout = registry.LAYOUTS[name]._replace(
        things=things, stuff=len(categories) - things
    )
    monkeypatch.setitem(registry.LAYOUTS, name, layout)


def test_cityscapes(broken, tmp_path, monkeypatch):
    root = tmp_path / "cityscapes"
    as_cityscapes(broken, root)
    paths = find_paths("cityscapes", root, "val")
    with pytest.raises(InputError, match="must have 8 things and 11 stuff; got"):
        convert_paths(paths, output=tmp_path / "out", split="val")
    entries = read_annotations(paths.annotations)
    with_classes(monkeypatch, "cityscapes", entries.categories)
    assert validate(paths).problems == []
    manifest = convert_paths(paths, output=tmp_path / "out", split="val")
    assert manifest.num_images == 6
    example = decode_example(
        tf.constant(list(read_records(tmp_path / "out" / manifest.shards[0].name))[2])
    )
    name = example.name.numpy().decode()
    assert name == "köln_000002_000019_gtFine_leftImg8bit"
    images = entries.images.values()
    (image_id,) = [image.image_id for image in images if image.name == name]
    assert image_id == "köln_000002_000019"
    # Once more, from nothing but its manifest.
    again = find_paths(str(tmp_path / "out" / "val.manifest.json"), None, "")
    assert again.dataset == "cityscapes"
    copy = convert_paths(again, output=tmp_path / "copy", split="val")
    assert [s.sha256 for s in copy.shards] == [s.sha256 for s in manifest.shards]


def test_category_ids_from_zero(broken, tmp_path, monkeypatch):
    def shift(content):
        for category in content["categories"]:
            category["id"] -= 1
        for annotation in content["annotations"]:
            for info in annotation["segments_info"]:
                info["category_id"] -= 1

    plain = convert(**broken, output=tmp_path / "plain", split="val")
    edit(broken["annotations"], shift)
    with pytest.raises(InputError, match=r"got 0; raise all ids with --category-off"):
        convert(**broken, output=tmp_path / "out", split="val")
    root = tmp_path / "ade"
    (root / "images").mkdir(parents=True)
    broken["images"].rename(root / "images" / "validation")
    broken["masks"].rename(root / "ade20k_panoptic_val")
    broken["annotations"].rename(root / "ade20k_panoptic_val.json")
    paths = find_paths("ade20k", root, "val")
    with_classes(monkeypatch, "ade20k", plain.categories)
    assert validate(paths).problems == []
    convert_paths(paths, output=tmp_path / "out", split="val")
    manifest = Manifest.read(tmp_path / "out" / "val.manifest.json")
    assert [s.sha256 for s in manifest.shards] == [s.sha256 for s in plain.shards]
    assert manifest.categories == plain.categories
    # Predictions have the raised ids; so must the json they are scored with.
    shifted = read_annotations(manifest.annotations)
    assert shifted.categories == plain.categories
    image = next(iter(shifted.images.values()))
    ids = read_ids(pathlib.Path(manifest.masks) / image.mask_name)
    assert {segment.id for segment in image.segments} <= set(np.unique(ids))
    assert manifest.origin.annotations.name == "ade20k_panoptic_val.json"
    names = ["val-00000-of-00001.tfrecord", "val.manifest.json", "val.panoptic.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


@pytest.mark.parametrize(
    ("dataset", "root", "message"),
    [
        ("coc", "x", "--dataset must be one of ade20k, cityscapes, coco or a path"),
        ("coco", None, "--dataset coco needs --root"),
        ("x.manifest.json", "x", "names its own folders"),
        ("x.manifest.json", None, "no such manifest"),
    ],
)
def test_data_sets_that_cannot_be_found(dataset, root, message):
    with pytest.raises(InputError, match=message):
        find_paths(dataset, root, "val")


def test_coco_is_found_below_its_root():
    paths = find_paths("coco", "/data/coco", "train")
    assert paths.images == "/data/coco/train2017"
    assert paths.annotations == "/data/coco/annotations/panoptic_train2017.json"
    assert paths.masks == "/data/coco/annotations/panoptic_train2017"
