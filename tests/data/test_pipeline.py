from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from cmt.data import factory
from cmt.data.manifest import Manifest
from cmt.data.pipeline import find_source
from cmt.data.preprocess import resize_and_pad
from cmt.errors import InputError
from cmt.protos import data_pb2


@pytest.fixture
def config(shards) -> data_pb2.DataConfig:
    return data_pb2.DataConfig(
        train=data_pb2.DatasetConfig(tfrecords=str(shards / "train-*.tfrecord")),
        validation=data_pb2.DatasetConfig(tfrecords=str(shards / "val-*.tfrecord")),
        crop_height_pixels=49,
        crop_width_pixels=65,
        max_masks=12,
        shuffle_buffer_images=7,
        parallel_calls=2,
    )


def batches(config, count: int, *, size: int = 5, seed: int = 1, first_step: int = 0):
    dataset = factory.training_dataset(
        config, global_batch_size=size, seed=seed, first_step=first_step
    )
    return [
        [part.numpy() for part in tf.nest.flatten(batch)]
        for batch in dataset.take(count)
    ]


def same(some, others) -> bool:
    assert len(some) == len(others)
    return all(
        np.array_equal(part, other)
        for batch, other_batch in zip(some, others, strict=True)
        for part, other in zip(batch, other_batch, strict=True)
    )


def test_training_shapes_are_static(config):
    dataset = factory.training_dataset(config, global_batch_size=3, seed=0)
    images, targets = dataset.element_spec
    assert images == tf.TensorSpec([3, 49, 65, 3], tf.float32)
    assert targets.semantic == tf.TensorSpec([3, 49, 65], tf.int32)
    assert targets.mask_ids == tf.TensorSpec([3, 49, 65], tf.int32)
    assert targets.mask_classes == tf.TensorSpec([3, 12], tf.int32)


def test_targets_agree_with_each_other(config):
    is_thing = np.array([False] + [True] * 6 + [False] * 4)
    num_masks = 0
    for images, semantic, mask_ids, mask_classes in batches(config, 5):
        assert images.min() >= 0
        assert images.max() <= 255
        assert images.std() > 10
        for index in range(len(images)):
            owned = mask_ids[index] >= 0
            owners = mask_classes[index][mask_ids[index][owned]]
            np.testing.assert_array_equal(owners, semantic[index][owned])
            # Crowd is void, so whatever no mask owns is void.
            assert np.all(semantic[index][~owned] == 0)
            count = int((mask_classes[index] > 0).sum())
            assert set(np.unique(mask_ids[index][owned])) == set(range(count))
            stuff = mask_classes[index][:count][~is_thing[mask_classes[index][:count]]]
            assert len(stuff) == len(set(stuff))
            num_masks += count
    assert num_masks > 50


def test_order_and_augmentation_depend_on_the_seed(config):
    first = batches(config, 3)
    assert same(first, batches(config, 3))
    assert not same(first[:1], batches(config, 1, seed=2))


@pytest.mark.parametrize("global_seed", [0, 3])
def test_the_global_seed_changes_nothing(config, global_seed):
    expected = batches(config, 3)
    tf.random.set_seed(global_seed)
    assert same(expected, batches(config, 3))


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("step", [4, 11])
def test_a_continued_run_sees_what_it_would_have_seen(config, cache, step):
    """24 images in batches of 5: step 4 is in the first epoch, step 11 in the third."""
    config.cache_records = cache
    whole = batches(config, 13)
    assert same(whole[step:], batches(config, 13 - step, first_step=step))


@pytest.mark.parametrize("cache", [False, True])
def test_an_epoch_has_every_image_once_in_a_new_order(config, cache):
    config.cache_records = cache
    config.augmentation.min_scale = config.augmentation.max_scale = 1
    config.augmentation.flip_probability = 0
    keys = []
    for images, *_ in batches(config, 6, size=8):
        keys += [image.tobytes() for image in images]
    assert len(set(keys)) == 24
    assert set(keys[:24]) == set(keys[24:])
    assert keys[:24] != keys[24:]


def test_evaluation_has_every_image_once_in_order(config, scenes):
    rows = list(factory.evaluation_dataset(config, batch_size=4))
    assert [len(batch.images) for batch in rows] == [4, 2]
    names = [name.decode() for batch in rows for name in batch.names.numpy()]
    assert names == [f"{number:012d}" for number in range(1, 7)]
    batch = rows[0]
    assert batch.images.shape[1:] == (49, 65, 3)
    assert batch.original_sizes.numpy().tolist() == [[65, 65]] * 4
    assert batch.resized_sizes.numpy().tolist() == [[49, 49]] * 4
    image = tf.io.read_file(str(scenes / "images" / "val" / "000000000002.jpg"))
    expected, _ = resize_and_pad(tf.io.decode_jpeg(image), (49, 65))
    np.testing.assert_array_equal(batch.images[1], expected)

    limited = factory.evaluation_dataset(config, batch_size=4, max_images=3)
    assert [len(batch.images) for batch in limited] == [3]


def test_ground_truth_comes_from_the_manifest_or_the_config(config, scenes, shards):
    manifest = factory.validation_manifest(config)
    assert manifest.annotations == (
        (scenes / "annotations" / "panoptic_val.json").resolve()
    )
    assert factory.training_manifest(config).num_images == 24
    config.validation.annotations = "elsewhere.json"
    config.validation.masks = "elsewhere"
    manifest = factory.validation_manifest(config)
    assert manifest.annotations == pathlib.Path("elsewhere.json")
    assert manifest.masks == pathlib.Path("elsewhere")
    config.validation.manifest = str(shards / "none.manifest.json")
    with pytest.raises(InputError, match="no such manifest"):
        factory.validation_manifest(config)


def test_shards_that_cannot_be_used(shards, tmp_path):
    with pytest.raises(InputError, match="no TFRecord files given"):
        find_source("")
    with pytest.raises(InputError, match="no file fits"):
        find_source(str(tmp_path / "x-*.tfrecord"))
    with pytest.raises(InputError, match="shards of one split"):
        find_source(str(shards / "*.tfrecord"))

    (tmp_path / "train-00000-of-00003.tfrecord").touch()
    with pytest.raises(InputError, match="no such manifest"):
        find_source(str(tmp_path / "*.tfrecord"))
    manifest = Manifest.read(shards / "train.manifest.json")
    manifest.write(tmp_path / "train.manifest.json")
    with pytest.raises(InputError, match=r"train-00001-of-00003.*missing"):
        find_source(str(tmp_path / "*.tfrecord"))
    (tmp_path / "train-00007-of-00003.tfrecord").touch()
    with pytest.raises(InputError, match="not a shard of"):
        find_source(str(tmp_path / "*.tfrecord"))


def test_some_of_the_shards(shards):
    source = find_source(str(shards / "train-0000[01]-*"))
    assert source.num_images == 16
    assert [pathlib.Path(file).name for file in source.files] == [
        "train-00000-of-00003.tfrecord",
        "train-00001-of-00003.tfrecord",
    ]
