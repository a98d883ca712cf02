"""Which shards a pattern names, and what is known of them."""

from __future__ import annotations

import pathlib
import shutil

import numpy as np
import pytest

from cmt.config import parse_experiment
from cmt.data.input.open import Data, find_split
from cmt.data.records.manifest import Manifest
from cmt.errors import InputError
from cmt.protos import data_pb2
from cmt.trainer import factory as trainer_factory


@pytest.fixture
def config(shards) -> data_pb2.DataConfig:
    return data_pb2.DataConfig(
        train=data_pb2.DatasetConfig(tfrecords=str(shards / "train-*.tfrecord")),
        validation=data_pb2.DatasetConfig(tfrecords=str(shards / "val-*.tfrecord")),
    )


def test_ground_truth_comes_from_the_manifest_or_the_config(config, scenes, shards):
    manifest = Data(config).validation.manifest
    assert manifest.annotations == (
        (scenes / "annotations" / "panoptic_val.json").resolve()
    )
    assert Data(config).train.manifest.num_images == 24
    config.validation.annotations = "elsewhere.json"
    config.validation.masks = "elsewhere"
    manifest = Data(config).validation.manifest
    assert manifest.annotations == pathlib.Path("elsewhere.json")
    assert manifest.masks == pathlib.Path("elsewhere")
    config.validation.manifest = str(shards / "none.manifest.json")
    with pytest.raises(InputError, match="no such manifest"):
        _ = Data(config).validation


def test_shards_that_cannot_be_used(shards, tmp_path):
    data = Data(data_pb2.DataConfig())
    with pytest.raises(InputError, match="data.train.tfrecords is not set"):
        _ = data.train
    with pytest.raises(InputError, match="data.validation.tfrecords is not set"):
        _ = data.validation
    with pytest.raises(InputError, match="no file fits"):
        find_split(str(tmp_path / "x-*.tfrecord"))
    with pytest.raises(InputError, match="shards of one split"):
        find_split(str(shards / "*.tfrecord"))

    (tmp_path / "train-00000-of-00003.tfrecord").touch()
    with pytest.raises(InputError, match="no such manifest"):
        find_split(str(tmp_path / "*.tfrecord"))
    manifest = Manifest.read(shards / "train.manifest.json")
    manifest.write(tmp_path / "train.manifest.json")
    with pytest.raises(InputError, match=r"train-00001-of-00003.*missing"):
        find_split(str(tmp_path / "*.tfrecord"))
    (tmp_path / "train-00007-of-00003.tfrecord").touch()
    with pytest.raises(InputError, match="not a shard of"):
        find_split(str(tmp_path / "*.tfrecord"))


def test_some_of_the_shards(shards):
    split = find_split(str(shards / "train-0000[01]-*"))
    assert split.num_images == split.manifest.num_images == 16
    assert len(split.manifest.shards) == 2
    assert [pathlib.Path(file).name for file in split.files] == [
        "train-00000-of-00003.tfrecord",
        "train-00001-of-00003.tfrecord",
    ]


def test_counts_are_of_the_shards_in_use(config, shards):
    config.train.tfrecords = str(shards / "train-00001-*")
    config.validation.tfrecords = str(shards / "train-0000[02]-*")
    assert Data(config).train.manifest.num_images == 8
    assert Data(config).validation.manifest.num_images == 16
    experiment = parse_experiment("", "defaults", ["trainer.global_batch_size=2"])
    assert trainer_factory.validation_steps(experiment, 16) == 8
    experiment.evaluation.max_images = 20
    assert trainer_factory.validation_steps(experiment, 16) == 8
    experiment.evaluation.max_images = 7
    assert trainer_factory.validation_steps(experiment, 16) == 3


def test_patterns_of_folders(config, shards, tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for path in shards.glob(f"{split}*"):
            shutil.copy(path, tmp_path / split)
    split = find_split(str(tmp_path / "*" / "val-*.tfrecord"))
    assert split.files == [str(tmp_path / "val" / "val-00000-of-00001.tfrecord")]
    with pytest.raises(InputError, match="which are in one folder; got .*train and"):
        find_split(str(tmp_path / "*" / "*.tfrecord"))


def test_shards_of_deeplab2_need_no_manifest(shared, tmp_path):
    folder = shared / "golden" / "coco_labels"
    shutil.copy(folder / "val-00000-of-00001.tfrecord", tmp_path)
    samples = shared / "coco_samples" / "annotations"
    pattern = str(tmp_path / "val-*.tfrecord")
    with pytest.raises(InputError, match="no such manifest"):
        find_split(pattern)
    config = data_pb2.DataConfig(
        train=data_pb2.DatasetConfig(
            tfrecords=pattern, annotations=str(samples / "panoptic_real.json")
        ),
    )
    config.crop_height_pixels = config.crop_width_pixels = 321
    manifest = Data(config).train.manifest
    assert (manifest.num_images, len(manifest.categories)) == (4, 133)
    assert manifest.masks == samples / "panoptic_real"
    labels = np.load(folder / "panoptic_labels.npz")
    dataset = Data(config).train.batches(global_batch_size=4, seed=1, first_step=2)
    images, targets = next(dataset.as_numpy_iterator())
    semantics, records = targets.semantic, targets.image_ids
    names = Data(config).train.names(records)
    for image, semantic, name in zip(images, semantics, names, strict=True):
        assert image.std() > 10
        known = np.unique(labels[name.split("(")[1].rstrip(")")] // 256)
        assert set(np.unique(semantic)) <= {0, *known}
        assert semantic.any()
