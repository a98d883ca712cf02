from __future__ import annotations

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from cmt.data import factory
from cmt.data.manifest import Manifest
from cmt.data.pipeline import find_source
from cmt.data.preprocess import resize_and_pad
from cmt.data.record_index import index_records
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
    assert targets.image_ids == tf.TensorSpec([3], tf.int32)


def test_targets_agree_with_each_other(config):
    is_thing = np.array([False] + [True] * 6 + [False] * 4)
    num_masks = 0
    for images, semantic, mask_ids, mask_classes, _ in batches(config, 5):
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


@pytest.fixture
def everything(config) -> data_pb2.DataConfig:
    """All random changes together."""
    augmentation = config.augmentation
    augmentation.scale_step = 0
    augmentation.color_jitter.brightness = augmentation.color_jitter.hue = 0.2
    augmentation.policy.num_operations = 1
    augmentation.copy_paste.probability = 0.7
    augmentation.copy_paste.stuff_probability = 0.3
    config.min_thing_pixels = 9
    return config


@pytest.mark.parametrize("step", [4, 11, 12])
def test_a_continued_run_sees_what_it_would_have_seen(everything, step):
    """24 images in batches of 5: step 4 is in the first epoch, step 11 in the third."""
    whole = batches(everything, 13)
    assert same(whole[step:], batches(everything, 13 - step, first_step=step))


@pytest.mark.parametrize("change", ["cache_records", "snapshot_folder"])
def test_how_records_are_kept_changes_nothing(config, change, tmp_path):
    expected = batches(config, 3, first_step=1)
    setattr(config, change, str(tmp_path) if change == "snapshot_folder" else True)
    assert same(expected, batches(config, 3, first_step=1))


def test_nothing_is_read_but_what_is_used(config, shards, tmp_path):
    """Damage in the records of the first step is not seen from the second on."""
    for path in shards.glob("train*"):
        shutil.copy(path, tmp_path)
    config.train.tfrecords = str(tmp_path / "train-*.tfrecord")
    expected = batches(config, 2, first_step=1)
    source = find_source(config.train.tfrecords)
    index = index_records(source.files)
    first = batches(config, 1)[0][-1]
    for line in factory.record_names(config, first):
        file, _, record = line.partition(": record ")
        numbers = (index.file_numbers == source.files.index(file)) & (
            index.record_numbers == int(record.split()[0])
        )
        with pathlib.Path(file).open("r+b") as opened:
            opened.seek(int(index.offsets[numbers][0]) + 100)
            opened.write(b"damage")
    assert same(expected, batches(config, 2, first_step=1))
    with pytest.raises(tf.errors.InvalidArgumentError, match="cannot be read"):
        batches(config, 1)
    config.skip_damaged_records = True
    skipped = batches(config, 3)
    assert same(skipped[1:], expected)
    assert same(skipped, batches(config, 3))


def test_hosts_share_each_step(config):
    """Two hosts with two replicas each, and a step of eight images."""
    whole = batches(config, 3, size=8)
    rows = []
    for host in range(2):
        context = tf.distribute.InputContext(2, host, num_replicas_in_sync=4)
        dataset = factory.training_dataset(
            config, global_batch_size=8, seed=1, first_step=1, input_context=context
        )
        assert dataset.element_spec[0].shape == (2, 49, 65, 3)
        rows.append([tf.nest.flatten(batch) for batch in dataset.take(4)])
    for step in range(2):
        parts = [*rows[0][2 * step :][:2], *rows[1][2 * step :][:2]]
        joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
        assert same([joined], [whole[1 + step]])


def test_replicas_get_their_part(config):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    distributed = strategy.distribute_datasets_from_function(
        lambda context: factory.training_dataset(
            config, global_batch_size=5, seed=1, input_context=context
        )
    )
    first = [part.numpy() for part in tf.nest.flatten(next(iter(distributed)))]
    assert same([first], batches(config, 1))


def test_a_data_service_prepares_the_same_images(config):
    config.augmentation.min_scale = config.augmentation.max_scale = 1
    config.augmentation.flip_probability = 0
    dispatcher = tf.data.experimental.service.DispatchServer()
    address = dispatcher.target.partition("://")[2]
    worker = tf.data.experimental.service.WorkerServer(
        tf.data.experimental.service.WorkerConfig(dispatcher_address=address)
    )
    expected = {
        image.tobytes() for batch in batches(config, 6, size=4) for image in batch[0]
    }
    config.service = dispatcher.target
    served = batches(config, 6, size=4)
    assert {image.tobytes() for batch in served for image in batch[0]} == expected
    del worker


def test_images_are_known_by_name(config):
    config.augmentation.min_scale = config.augmentation.max_scale = 1
    config.augmentation.flip_probability = 0
    config.validation.CopyFrom(config.train)
    by_name = {
        name.numpy().decode(): image.numpy()
        for batch in factory.evaluation_dataset(config, batch_size=4)
        for name, image in zip(batch.names, batch.images, strict=True)
    }
    batch = batches(config, 1, first_step=7)[0]
    names = factory.record_names(config, batch[-1])
    for image, name in zip(batch[0], names, strict=True):
        np.testing.assert_array_equal(image, by_name[name.split("(")[1].rstrip(")")])


def test_small_things_become_void(config):
    config.augmentation.min_scale = config.augmentation.max_scale = 0.8
    areas = []
    for limit in (0, 60):
        config.min_thing_pixels = limit
        for _, semantic, mask_ids, classes, _ in batches(config, 4):
            for i in range(len(classes)):
                things = np.flatnonzero((classes[i] >= 1) & (classes[i] <= 6))
                areas += [(limit, np.sum(mask_ids[i] == k)) for k in things]
                assert np.all(semantic[i][mask_ids[i] < 0] == 0)
    assert min(area for limit, area in areas if limit == 0) < 50
    # Counted before growing, so not to the pixel.
    assert min(area for limit, area in areas if limit == 60) >= 50


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


def test_shards_of_deeplab2_need_no_manifest(shared, tmp_path):
    folder = shared / "golden" / "coco_labels"
    shutil.copy(folder / "val-00000-of-00001.tfrecord", tmp_path)
    samples = shared / "coco_samples" / "annotations"
    pattern = str(tmp_path / "val-*.tfrecord")
    with pytest.raises(InputError, match="no such manifest"):
        find_source(pattern)
    config = data_pb2.DataConfig(
        train=data_pb2.DatasetConfig(
            tfrecords=pattern, annotations=str(samples / "panoptic_real.json")
        ),
    )
    config.crop_height_pixels = config.crop_width_pixels = 321
    manifest = factory.training_manifest(config)
    assert (manifest.num_images, len(manifest.categories)) == (4, 133)
    assert manifest.masks == samples / "panoptic_real"
    labels = np.load(folder / "panoptic_labels.npz")
    images, semantics, *_, records = batches(config, 1, size=4, first_step=2)[0]
    names = factory.record_names(config, records)
    for image, semantic, name in zip(images, semantics, names, strict=True):
        assert image.std() > 10
        known = np.unique(labels[name.split("(")[1].rstrip(")")] // 256)
        assert set(np.unique(semantic)) <= {0, *known}
        assert semantic.any()
