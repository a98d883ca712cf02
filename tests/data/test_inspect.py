from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cmt.cli.main import main
from cmt.data.input.inspect import draw_batches, inspect
from cmt.data.input.open import find_splits
from cmt.data.panoptic.categories import Category
from cmt.data.records.manifest import Manifest, Shard
from cmt.data.records.tfrecord import frame
from cmt.errors import InputError
from cmt.evaluation.annotations import read_annotations
from cmt.io import storage
from cmt.outputs import Targets
from tests.data.records import read_records


def test_counts_are_those_of_the_json(scenes, shards, tmp_path):
    (split,) = find_splits([str(shards / "train-*.tfrecord")])
    result = inspect(split, picture=tmp_path / "train.png")
    annotations = read_annotations(scenes / "annotations" / "panoptic_train.json")
    assert (result.split, result.images, result.shards) == ("train", 24, 3)
    assert result.pixels == 24 * 65 * 65
    segments = [
        [segment for segment in entry.segments if not segment.is_crowd]
        for entry in annotations.images.values()
    ]
    assert result.most_masks == max(len(some) for some in segments)
    for count in result.classes:
        of_class = [
            [segment for segment in some if segment.category_id == count.id]
            for some in segments
        ]
        assert count.images == sum(bool(some) for some in of_class)
        assert count.instances == sum(len(some) for some in of_class)
        assert count.pixels == sum(s.area for some in of_class for s in some)
    known = sum(count.pixels for count in result.classes)
    assert 0 < result.void_pixels == result.pixels - known
    assert json.loads(json.dumps(result.to_json()))["classes"][0]["name"] == "disc"

    assert len(result.masks_per_image) == result.most_masks + 1
    for number, images in enumerate(result.masks_per_image):
        assert images == sum(len(some) == number for some in segments)
    assert result.heights == result.widths == (65, 65, 65)
    is_thing = {count.id: count.isthing for count in result.classes}
    areas = [s.area for some in segments for s in some if is_thing[s.category_id]]
    small = sum(area < 32**2 for area in areas)
    assert result.thing_sizes == (small, len(areas) - small, 0)
    assert small > 100

    sheet = np.asarray(Image.open(tmp_path / "train.png"))
    assert sheet.shape[1] == 6 + 6 * (194 + 6)
    assert sheet[6:200, 6:200].std() > 10


def test_folders_and_files_are_found_by_split(shards):
    by_folder = find_splits([str(shards)])
    assert [split.manifest.split for split in by_folder] == ["train", "val"]
    files = [str(path) for path in shards.glob("*.tfrecord")]
    assert find_splits(files) == by_folder
    with pytest.raises(InputError, match="no TFRecord file"):
        find_splits([str(shards / "none-*")])


def test_only_the_shards_that_are_named_are_counted(shards):
    (split,) = find_splits([str(shards / "train-0000[02]-*")])
    result = inspect(split)
    assert (result.shards, result.images) == (2, 16)


def test_a_split_in_several_folders_is_several(shards, tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for path in shards.glob("val*"):
            shutil.copy(path, tmp_path / folder)
    pattern = str(tmp_path / "*" / "val-*.tfrecord")
    folders = [str(tmp_path / folder) for folder in ("a", "b")]
    found = find_splits([pattern])
    assert [storage.split(split.files[0])[0] for split in found] == folders
    output = tmp_path / "pictures"
    assert run("data", "inspect", pattern, "--output", str(output)) == 0
    names = ["val-2.png", "val.png"]
    assert sorted(path.name for path in output.iterdir()) == names
    shown = capsys.readouterr().out
    for folder, name in zip(folders, reversed(names), strict=True):
        assert f"folder: {folder}\n" in shown
        assert f"pictures: {output / name}\n" in shown


@pytest.mark.parametrize("width", [None, 60, 80])
def test_tables_show_whole_names(shards, tmp_path, monkeypatch, capsys, width):
    for path in shards.glob("val*"):
        shutil.copy(path, tmp_path)
    manifest = Manifest.read(tmp_path / "val.manifest.json")
    name = "wall-other-merged-and-more-than-fits-into-a-line-of-eighty-characters"
    first = manifest.categories[0]._replace(name=name)
    dataclasses.replace(manifest, categories=[first, *manifest.categories[1:]]).write(
        tmp_path / "val.manifest.json"
    )
    if width:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
    assert run("data", "inspect", str(tmp_path)) == 0
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    lines = shown.splitlines()
    assert "…" not in "".join(lines)
    rows = [re.split("[│┃]", line) for line in lines if re.search("[│┃]", line)]
    table = [[cell.strip() for cell in row[1:-1]] for row in rows]
    cells = [row[0] for row in table if len(row) == 7]
    assert name in "".join(cells)
    assert (name in cells) == (width is None)
    for header in ("class", "kind", "id", "images", "instances", "% of pixels"):
        assert header in table[0]
    assert not width or max(map(len, lines[1:])) <= max(width, 79)


def test_a_changed_shard_is_noticed(shards, tmp_path):
    for path in shards.glob("val*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / "val-00000-of-00001.tfrecord"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    (split,) = find_splits([str(path)])
    with pytest.raises(InputError, match="SHA-256 differs"):
        inspect(split)


def test_a_damaged_record_is_named_with_its_fault(shards, tmp_path):
    """Also where the checksums of the manifest are right, or unknown."""
    good = next(iter(read_records(shards / "val-00000-of-00001.tfrecord")))
    example = tf.train.Example.FromString(good)
    example.features.feature["image/height"].int64_list.value[:] = [66]
    path = tmp_path / "val-00000-of-00001.tfrecord"
    path.write_bytes(frame(good) + frame(example.SerializeToString()))
    manifest = Manifest.read(shards / "val.manifest.json")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    shard = Shard(path.name, 2, digest)
    dataclasses.replace(manifest, shards=[shard], num_images=2).write(
        tmp_path / "val.manifest.json"
    )
    (split,) = find_splits([str(tmp_path)])
    with pytest.raises(InputError, match=r"tfrecord: record 1: .*impossible .* size"):
        inspect(split)


def test_what_the_network_sees_is_drawn(tmp_path):
    images = np.full([2, 33, 49, 3], 100.0, np.float32)
    semantic = np.zeros([2, 33, 49], np.int32)
    semantic[:, 10:20, 10:30] = 1
    targets = Targets(semantic, semantic - 1, np.ones([2, 1], np.int32))
    batches = tf.data.Dataset.from_tensors((images, Targets(*targets)))
    category = Category(1, "disc", True, (250, 0, 0))
    draw_batches(batches, [category], tmp_path / "x.png")
    sheet = np.asarray(Image.open(tmp_path / "x.png"))
    assert sheet.shape == (6 + 2 * 200, 6 + 2 * 200, 3)
    scale = 194 / 49
    top = 6 + (194 - round(33 * scale)) // 2  # of an image, which is in the middle
    place = top + int(15 * scale), 6 + int(20 * scale)
    np.testing.assert_allclose(sheet[place], 100, atol=1)
    below = sheet[place[0] + 200, place[1]]
    np.testing.assert_allclose(below, 0.45 * 100 + 0.55 * np.array([250, 0, 0]), atol=2)
    outside = sheet[top + 200 + int(5 * scale), 6 + int(5 * scale)]
    np.testing.assert_allclose(outside, 100, atol=1)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return stopped.value.code


@pytest.mark.parametrize(
    "config",
    [pytest.param([], marks=pytest.mark.slow), ["--config", "scenes/tiny"]],
)
def test_augmented_pictures_of_the_command(shards, tmp_path, config, capsys):
    size = ["--set", "data.crop_height_pixels=65", "--set", "data.crop_width_pixels=65"]
    arguments = ["data", "inspect", str(shards / "val-*"), "--output", str(tmp_path)]
    assert run(*arguments, "--augmented", *config, *size, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["images"] == 6
    first = (tmp_path / "val-augmented.png").read_bytes()
    picture = np.asarray(Image.open(tmp_path / "val-augmented.png"))
    assert picture.shape[0] == 6 + 8 * 200
    if config:
        return
    assert run(*arguments, "--augmented", *size, "--seed", "1") == 0
    assert (tmp_path / "val-augmented.png").read_bytes() != first
    assert run(*arguments[:3], "--augmented") == 2
    assert run(*arguments, "--set", "data.max_masks=3") == 2


@pytest.mark.parametrize(
    ("split", "text"), [("val", "1 shard,"), ("train", "3 shards,")]
)
def test_shards_are_counted_in_words(shards, capsys, split, text):
    assert run("data", "inspect", str(shards / f"{split}-*.tfrecord")) == 0
    assert f" images in {text} at most" in capsys.readouterr().out
