from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cmt.data.coco import read_annotations
from cmt.data.inspect import find_sources, inspect
from cmt.errors import InputError


def test_counts_are_those_of_the_json(scenes, shards, tmp_path):
    (source,) = find_sources([str(shards / "train-*.tfrecord")])
    result = inspect(source, output=tmp_path)
    annotations = read_annotations(scenes / "annotations" / "panoptic_train.json")
    assert (result.split, result.images, result.shards) == ("train", 24, 3)
    assert result.pixels == 24 * 65 * 65
    segments = [
        [segment for segment in entry.segments if not segment.is_crowd]
        for entry in annotations.images
    ]
    assert result.most_masks == max(len(some) for some in segments)
    for count in result.classes:
        of_class = [
            [segment for segment in some if segment.category_id == count.category.id]
            for some in segments
        ]
        assert count.images == sum(bool(some) for some in of_class)
        assert count.instances == sum(len(some) for some in of_class)
        assert count.pixels == sum(s.area for some in of_class for s in some)
    known = sum(count.pixels for count in result.classes)
    assert 0 < result.void_pixels == result.pixels - known
    assert json.loads(json.dumps(result.to_json()))["classes"][0]["name"] == "disc"

    sheet = np.asarray(Image.open(tmp_path / "train.png"))
    assert sheet.shape[1] == 6 + 6 * (194 + 6)
    assert sheet[6:200, 6:200].std() > 10


def test_folders_and_files_are_found_by_split(shards):
    by_folder = find_sources([str(shards)])
    assert [source.manifest.split for source in by_folder] == ["train", "val"]
    files = [str(path) for path in shards.glob("*.tfrecord")]
    assert find_sources(files) == by_folder
    with pytest.raises(InputError, match="no TFRecord file"):
        find_sources([str(shards / "none-*")])


def test_a_changed_shard_is_noticed(shards, tmp_path):
    for path in shards.glob("val*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / "val-00000-of-00001.tfrecord"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    (source,) = find_sources([str(path)])
    with pytest.raises(InputError, match="SHA-256 differs"):
        inspect(source)
