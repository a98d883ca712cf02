from __future__ import annotations

import csv
import hashlib
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cmt.data.convert import convert as convert_module
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import Segment
from cmt.data.panoptic.masks import label_values, read_ids
from cmt.data.panoptic.registry import Paths
from cmt.data.records.manifest import Manifest
from cmt.data.records.reader import decode_example
from cmt.errors import InputError
from cmt.evaluation.annotations import read_annotations
from tests.data.conversions import convert, convert_paths
from tests.data.records import read_records


def listing(folder: pathlib.Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def decoded(folder: pathlib.Path, manifest: Manifest) -> dict[str, np.ndarray]:
    labels = {}
    for shard in manifest.shards:
        for record in read_records(folder / shard.name):
            example = decode_example(tf.constant(record))
            labels[example.name.numpy().decode()] = example.labels.numpy()
    return labels


def test_round_trip(scene_sources, shards):
    manifest = Manifest.read(shards / "train.manifest.json")
    assert manifest.num_images == 24
    assert [shard.num_images for shard in manifest.shards] == [8, 8, 8]
    hashes = listing(shards)
    assert [hashes[shard.name] for shard in manifest.shards] == [
        shard.sha256 for shard in manifest.shards
    ]
    assert manifest.annotations == scene_sources["annotations"].resolve()
    assert manifest.masks == scene_sources["masks"].resolve()

    annotations = read_annotations(scene_sources["annotations"])
    assert manifest.categories == annotations.categories
    labels = decoded(shards, manifest)
    assert list(labels) == [entry.name for entry in annotations.images.values()]
    class_of = {c.id: index + 1 for index, c in enumerate(annotations.categories)}
    for entry in annotations.images.values():
        ids = read_ids(scene_sources["masks"] / entry.mask_name)
        result = labels[entry.name]
        assert np.all(result[ids == 0] == 0)
        for segment in entry.segments:
            (value,) = np.unique(result[ids == segment.id])
            number = 0 if segment.is_crowd else class_of[segment.category_id]
            assert value // 256 == number


def test_image_bytes_are_kept(scene_sources, shards):
    record = next(read_records(shards / "train-00000-of-00003.tfrecord"))
    features = tf.train.Example.FromString(record).features.feature
    (kept,) = features["image/encoded"].bytes_list.value
    assert kept == (scene_sources["images"] / "000000000001.jpg").read_bytes()


def coco(shared: pathlib.Path) -> dict[str, pathlib.Path]:
    folder = shared / "coco_samples"
    return {
        "images": folder / "images",
        "annotations": folder / "annotations" / "panoptic_real.json",
        "masks": folder / "annotations" / "panoptic_real",
    }


@pytest.mark.parametrize("keep_crowd", [False, True])
def test_labels_are_those_of_the_reference(shared, tmp_path, keep_crowd):
    folder = shared / "golden" / "coco_labels"
    golden = np.load(folder / "panoptic_labels.npz")
    options = dict(output=tmp_path, split="val", keep_crowd=keep_crowd)
    manifest = convert(**coco(shared), **options, workers=1)
    labels = decoded(tmp_path, manifest)
    assert len(labels) == 14
    differing = 0
    for name, result in labels.items():
        kept = f"{name}_crowd_kept"
        expected = golden[kept] if keep_crowd and kept in golden else golden[name]
        np.testing.assert_array_equal(result, expected)
        differing += keep_crowd and kept in golden
    assert differing == (6 if keep_crowd else 0)

    with (folder / "category_mapping.csv").open() as file:
        mapping = [
            (int(row["coco_category_id"]), int(row["contiguous_id"]))
            for row in csv.DictReader(file)
        ]
    ids = [category.id for category in manifest.categories]
    assert mapping == [(number, index + 1) for index, number in enumerate(ids)]


def test_shards_do_not_depend_on_the_workers(scene_sources, shards, tmp_path):
    convert(**scene_sources, output=tmp_path, split="train", shards=3, workers=2)
    for name, digest in listing(tmp_path).items():
        if name.endswith(".tfrecord"):
            assert digest == listing(shards)[name]


def test_limit_takes_the_first_images(scene_sources, tmp_path):
    manifest = convert(
        **scene_sources, output=tmp_path, split="some", limit=3, workers=1
    )
    assert manifest.num_images == 3
    assert list(decoded(tmp_path, manifest)) == [f"{n:012d}" for n in (1, 2, 3)]


def test_images_that_are_not_rgb_are_encoded_again(broken, tmp_path):
    path = broken["images"] / "000000000001.jpg"
    Image.open(path).convert("L").save(path, "JPEG", quality=95)
    other = broken["images"] / "000000000002.jpg"
    Image.open(other).convert("RGBA").save(other, "PNG")
    manifest = convert(**broken, output=tmp_path / "out", split="val", workers=1)
    records = list(read_records(tmp_path / "out" / manifest.shards[0].name))
    for record in records[:2]:
        features = tf.train.Example.FromString(record).features.feature
        assert features["image/format"].bytes_list.value == [b"png"]
    image = decode_example(tf.constant(records[0])).image.numpy()
    # Without loss: what the file decodes to.
    expected = np.asarray(Image.open(path))[..., np.newaxis].repeat(3, axis=2)
    np.testing.assert_array_equal(image, expected)


def test_a_fault_leaves_nothing(broken, tmp_path):
    (broken["images"] / "000000000004.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"000000000004\.jpg.*cannot be read"):
        convert(**broken, output=tmp_path / "a" / "b", split="val", workers=1)
    assert not (tmp_path / "a").exists()


def test_a_fault_leaves_what_was_there(broken, tmp_path):
    output = tmp_path / "out"
    convert(**broken, output=output, split="val", workers=1)
    before = listing(output)
    content = json.loads(broken["annotations"].read_text())
    content["annotations"][5]["segments_info"][0]["category_id"] = 99
    broken["annotations"].write_text(json.dumps(content))
    with pytest.raises(InputError, match="category_id 99 is not in"):
        convert(**broken, output=output, split="val", workers=1, overwrite=True)
    assert listing(output) == before


def test_an_existing_split_is_refused_or_replaced(broken, tmp_path):
    output = tmp_path / "out"
    options = dict(**broken, output=output, split="val", workers=1)
    convert(**options, shards=2)
    with pytest.raises(InputError, match="already holds the split val"):
        convert(**options)
    convert(**options, shards=1, overwrite=True)
    assert sorted(listing(output)) == [
        "val-00000-of-00001.tfrecord",
        "val.manifest.json",
    ]


def test_resume_keeps_what_is_current(broken, tmp_path, monkeypatch):
    """An interrupted run is continued; damaged and outdated shards are made again."""
    output = tmp_path / "out"
    options = dict(**broken, output=output, split="val", shards=3, workers=1)
    encoded = []
    plain = convert_module.encode_image
    monkeypatch.setattr(convert_module, "_CHUNK_IMAGES", 1)

    def count(encoding, entry):
        encoded.append(entry.image_id)
        return plain(encoding, entry)

    def interrupt(encoding, entry):
        if entry.image_id == 5:
            raise KeyboardInterrupt
        return count(encoding, entry)

    monkeypatch.setattr(convert_module, "encode_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(**options)
    assert not list(output.glob("*.tfrecord"))

    monkeypatch.setattr(convert_module, "encode_image", count)
    encoded.clear()
    convert(**options, resume=True)
    assert encoded == [5, 6]
    complete = listing(output)
    assert len(complete) == 4

    (output / "val-00001-of-00003.tfrecord").write_bytes(b"damaged")
    image = broken["images"] / "000000000001.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    encoded.clear()
    convert(**options, resume=True)
    assert encoded == [1, 2, 3, 4]
    repaired = listing(output)
    changed = {name for name in complete if complete[name] != repaired[name]}
    assert changed == {"val-00000-of-00003.tfrecord", "val.manifest.json"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(split="a/b"), "--split must be"),
        (dict(split="."), "--split must be"),
        (dict(split=".."), "--split must be"),
        (dict(split=".val"), "--split must be"),
        (dict(output=""), "--output must name a folder"),
        (dict(images="nowhere://a"), "reads no nowhere://"),
        (dict(resume=True, overwrite=True), "exclude each other"),
        (dict(shards=7), "at most the number of images, 6; got 7"),
        (dict(images="none"), "no such folder"),
        (dict(annotations="none.json"), "no such annotation file"),
    ],
)
def test_options_out_of_range(broken, tmp_path, options, message):
    keywords = {**broken, "output": tmp_path / "out", "split": "val", "workers": 1}
    with pytest.raises(InputError, match=message):
        convert(**{**keywords, **options})
    assert not (tmp_path / "out").exists()


def segments(count: int, category: int, *, crowd: int = 0) -> list[Segment]:
    return [Segment(n + 1, category, 1, n < crowd) for n in range(count)]


def category(number: int, *, is_thing: bool = True) -> Category:
    return Category(number, "x", is_thing, (0, 0, 0))


def test_labels_by_hand():
    classes = [category(5), category(9), category(20, is_thing=False)]
    some = [
        Segment(1, 9, 1, False),
        Segment(2, 5, 1, True),
        Segment(3, 20, 1, False),
        Segment(4, 5, 1, False),
        Segment(5, 9, 1, False),
    ]
    plain = label_values(some, classes, keep_crowd=False)
    assert plain == [2 * 256 + 1, 0, 3 * 256, 256 + 1, 2 * 256 + 2]
    kept = label_values(some, classes, keep_crowd=True)
    assert kept == [2 * 256 + 1, 256, 3 * 256, 256 + 1, 2 * 256 + 2]


def test_the_largest_label():
    classes = [category(number) for number in range(1, 256)]
    values = label_values(segments(256, 255, crowd=1), classes, keep_crowd=False)
    assert values[-1] == 65535


def test_the_image_with_too_many_instances_is_named(broken, tmp_path, monkeypatch):
    monkeypatch.setattr("cmt.data.checks.json.MAX_LABEL_PART", 1)
    with pytest.raises(InputError, match=r"0000000000\d\d\.png: at most 1 instances"):
        convert(**broken, output=tmp_path / "out", split="val", workers=1)


def test_overwriting_keeps_the_manifest_until_the_new_one_is_written(
    broken, tmp_path, monkeypatch
):
    output = tmp_path / "out"
    convert(**broken, output=output, split="val", workers=1)
    before = listing(output)
    plain = Manifest.write

    def fail(manifest, *arguments):
        # The one that is written before the shards are made knows no checksums.
        if manifest.shards[0].sha256:
            raise OSError(28, "No space left on device")
        plain(manifest, *arguments)

    monkeypatch.setattr(Manifest, "write", fail)
    with pytest.raises(OSError, match="No space left"):
        convert(
            **broken, output=output, split="val", shards=2, workers=1, overwrite=True
        )
    shutil.rmtree(output / ".val.partial")
    assert listing(output) == before


def test_colors_are_checked(broken, tmp_path):
    content = json.loads(broken["annotations"].read_text())
    content["categories"][0]["color"] = "red"
    broken["annotations"].write_text(json.dumps(content))
    out = {"output": tmp_path / "out", "split": "val", "workers": 1}
    with pytest.raises(InputError, match='"color" must be three integers'):
        convert_paths(Paths(**broken, strict=True), **out)
    first = convert(**broken, **out).categories[0]
    assert first.color == Category.from_json({"id": first.id, "isthing": 1}).color
