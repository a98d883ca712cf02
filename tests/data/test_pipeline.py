from __future__ import annotations

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.input.open import Data, find_split
from cmt.data.input.preprocess import resize_and_pad, resize_labels
from cmt.data.records.index import index_records
from cmt.data.records.reader import example_reader
from cmt.errors import InputError
from cmt.io.decode import decode_image
from cmt.protos import data_pb2


@pytest.fixture
def config(shards) -> data_pb2.DataConfig:
    return config_of(shards)


def config_of(shards: pathlib.Path) -> data_pb2.DataConfig:
    return data_pb2.DataConfig(
        train=data_pb2.DatasetConfig(tfrecords=str(shards / "train-*.tfrecord")),
        validation=data_pb2.DatasetConfig(tfrecords=str(shards / "val-*.tfrecord")),
        crop_height_pixels=49,
        crop_width_pixels=65,
        max_masks=12,
        parallel_calls=2,
    )


def batches(config, count: int, *, size: int = 5, seed: int = 1, first_step: int = 0):
    dataset = Data(config).train.batches(
        global_batch_size=size, seed=seed, first_step=first_step
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


@pytest.fixture(scope="module")
def plain(shards):
    """The first batches of `config`, which many tests compare with theirs."""
    return batches(config_of(shards), 3)


def test_training_shapes_are_static(config):
    dataset = Data(config).train.batches(global_batch_size=3, seed=0)
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


def test_order_and_augmentation_depend_on_the_seed(config, plain):
    assert same(plain, batches(config, 3))
    assert not same(plain[:1], batches(config, 1, seed=2))


def test_the_global_seed_changes_nothing(config, plain):
    tf.random.set_seed(3)
    assert same(plain, batches(config, 3))


@pytest.fixture
def everything(shards) -> data_pb2.DataConfig:
    """All random changes together."""
    return everything_of(shards)


@pytest.fixture(scope="module")
def whole(shards):
    """The first batches of `everything`, into the third epoch."""
    return batches(everything_of(shards), 14)


def everything_of(shards: pathlib.Path) -> data_pb2.DataConfig:
    config = config_of(shards)
    augmentation = config.augmentation
    augmentation.scale_step = 0
    augmentation.color_jitter.brightness = augmentation.color_jitter.hue = 0.2
    augmentation.policy.num_operations = 1
    augmentation.copy_paste.probability = 0.7
    augmentation.copy_paste.stuff_probability = 0.3
    config.min_thing_pixels = 9
    return config


def test_a_continued_run_sees_what_it_would_have_seen(everything, whole):
    """24 images in batches of 5: step 11 is in the third epoch.

    `test_augmented_pipeline` goes on in the first.
    """
    assert same(whole[11:13], batches(everything, 2, first_step=11))


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ("cache_records", 11),
        pytest.param("snapshot_folder", 0, marks=pytest.mark.slow),
    ],
)
def test_how_records_are_kept_changes_nothing(
    everything, whole, change, step, tmp_path
):
    """With all random changes, from the first step, or from one in the third epoch."""
    value = str(tmp_path) if change == "snapshot_folder" else True
    setattr(everything, change, value)
    assert same(whole[step : step + 3], batches(everything, 3, first_step=step))


def test_nothing_is_read_but_what_is_used(config, shards, tmp_path):
    """Damage in the records of the first step is not seen from the second on."""
    for path in shards.glob("train*"):
        shutil.copy(path, tmp_path)
    config.train.tfrecords = str(tmp_path / "train-*.tfrecord")
    expected = batches(config, 2, first_step=1)
    split = find_split(config.train.tfrecords)
    index = split.index
    first = batches(config, 1)[0][-1]
    for line in Data(config).train.names(first):
        file, _, record = line.partition(": record ")
        numbers = (index.file_numbers == split.files.index(file)) & (
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
    assert not set(skipped[0][-1]) & set(first)


@pytest.mark.parametrize(
    "kept",
    [
        "",
        pytest.param("cache_records", marks=pytest.mark.slow),
        pytest.param("snapshot_folder", marks=pytest.mark.slow),
    ],
)
def test_images_in_place_of_damaged_ones_have_their_own_names(
    config, shards, tmp_path, kept
):
    for path in shards.glob("train*"):
        shutil.copy(path, tmp_path)
    config.train.tfrecords = str(tmp_path / "train-*.tfrecord")
    config.validation.CopyFrom(config.train)
    config.augmentation.min_scale = config.augmentation.max_scale = 1
    config.augmentation.flip_probability = 0
    # Other images are read, too, and are not the ones named.
    config.augmentation.copy_paste.probability = 1
    config.augmentation.copy_paste.thing_probability = 0
    by_name = {
        name.numpy().decode(): image.numpy()
        for batch in Data(config).validation.evaluation_batches(batch_size=4)
        for name, image in zip(batch.names, batch.images, strict=True)
    }
    index = index_records(find_split(config.train.tfrecords).files)
    damaged = (3, 4, 17)
    for record in damaged:
        file = pathlib.Path(index.files[index.file_numbers[record]])
        with file.open("r+b") as opened:
            opened.seek(int(index.offsets[record]) + 100)
            opened.write(b"damage")
    config.skip_damaged_records = True
    if kept:
        value = str(tmp_path / "kept") if kept == "snapshot_folder" else True
        setattr(config, kept, value)
    seen = []
    for images, *_, records in batches(config, 3, size=8):
        for image, name in zip(images, Data(config).train.names(records), strict=True):
            np.testing.assert_array_equal(
                image, by_name[name.split("(")[1].rstrip(")")]
            )
        seen += records.tolist()
    assert sorted(seen) == sorted([*({*range(24)} - {*damaged}), 5, 5, 18])


def test_evaluation_never_skips(config, shards, tmp_path):
    """An image is neither counted twice nor left out, and its scores are its own."""
    for path in shards.glob("val*"):
        shutil.copy(path, tmp_path)
    config.validation.tfrecords = str(tmp_path / "val-*.tfrecord")
    config.skip_damaged_records = True
    index = index_records(find_split(config.validation.tfrecords).files)
    with pathlib.Path(index.files[0]).open("r+b") as opened:
        opened.seek(int(index.offsets[2]) + 100)
        opened.write(b"damage")
    with pytest.raises(tf.errors.InvalidArgumentError, match="record 2 cannot be read"):
        list(Data(config).validation.evaluation_batches(batch_size=4))
    losses = Data(config).validation.batches(global_batch_size=6, seed=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="record 2 cannot be read"):
        next(iter(losses))


def test_hosts_share_each_step(config):
    """Two hosts with two replicas each, and a step of eight images."""
    whole = batches(config, 3, size=8)
    rows = []
    for host in range(2):
        context = tf.distribute.InputContext(2, host, num_replicas_in_sync=4)
        dataset = Data(config).train.batches(
            global_batch_size=8, seed=1, first_step=1, input_context=context
        )
        assert dataset.element_spec[0].shape == (2, 49, 65, 3)
        rows.append([tf.nest.flatten(batch) for batch in dataset.take(4)])
    for step in range(2):
        parts = [*rows[0][2 * step :][:2], *rows[1][2 * step :][:2]]
        joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
        assert same([joined], [whole[1 + step]])


def test_hosts_have_equal_parts(config):
    context = tf.distribute.InputContext(2, 0, num_replicas_in_sync=2)
    with pytest.raises(InputError, match="divisible .* got 5 images and 2 hosts"):
        Data(config).train.batches(global_batch_size=5, seed=1, input_context=context)


def test_replicas_get_their_part(config, plain):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    distributed = strategy.distribute_datasets_from_function(
        lambda context: Data(config).train.batches(
            global_batch_size=5, seed=1, input_context=context
        )
    )
    first = [part.numpy() for part in tf.nest.flatten(next(iter(distributed)))]
    assert same([first], plain[:1])


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
        for batch in Data(config).validation.evaluation_batches(batch_size=4)
        for name, image in zip(batch.names, batch.images, strict=True)
    }
    batch = batches(config, 1, first_step=7)[0]
    names = Data(config).train.names(batch[-1])
    for image, name in zip(batch[0], names, strict=True):
        np.testing.assert_array_equal(image, by_name[name.split("(")[1].rstrip(")")])


def test_small_things_become_void(config):
    """To the pixel, where images get smaller."""
    config.augmentation.min_scale = config.augmentation.max_scale = 0.8
    areas = []
    for limit in (0, 30):
        config.min_thing_pixels = limit
        for _, semantic, mask_ids, classes, _ in batches(config, 4):
            for i in range(len(classes)):
                things = np.flatnonzero((classes[i] >= 1) & (classes[i] <= 6))
                areas += [(limit, np.sum(mask_ids[i] == k)) for k in things]
                assert np.all(semantic[i][mask_ids[i] < 0] == 0)
    plain, limited = ([a for limit, a in areas if limit == k] for k in (0, 30))
    assert sorted(a for a in plain if a >= 30) == sorted(limited)
    assert 30 in limited or min(limited) < 40
    assert len(limited) < len(plain)


@pytest.fixture(scope="module")
def labels_of(shards) -> list[np.ndarray]:
    """The label map of each record of the training split."""
    index = index_records(find_split(config_of(shards).train.tfrecords).files)
    read = example_reader(index, num_classes=10)
    examples = tf.data.Dataset.range(index.num_records).map(read)
    return [example.labels.numpy() for example in examples]


@pytest.mark.parametrize("change", ["min_thing_pixels", "max_masks"])
def test_masks_of_enlarged_images_are_counted_before(config, labels_of, change):
    """As the config says: pixels of the part that is seen, times its growth."""
    config.crop_height_pixels = config.crop_width_pixels = 97
    config.augmentation.min_scale = config.augmentation.max_scale = 1
    config.augmentation.flip_probability = 0
    config.max_masks, limit = 40, 250
    setattr(config, change, limit if change == "min_thing_pixels" else 4)
    growth, dropped = (97 / 65) ** 2, 0
    for _, _, mask_ids, classes, records in batches(config, 5):
        for row, record in enumerate(records):
            labels = labels_of[record]
            values, areas = np.unique(labels[labels > 0], return_counts=True)
            crowd = (values % 256 == 0) & (values // 256 <= 6)
            values, areas = values[~crowd], areas[~crowd]
            if change == "min_thing_pixels":
                kept = values[(values // 256 > 6) | (areas * growth >= limit)]
            else:
                smallest = np.sort(areas)[-4:].min()
                kept = values[areas >= smallest]
                if len(kept) > 4:
                    continue  # several are the smallest
            dropped += len(values) - len(kept)
            resized = resize_labels(labels, (97, 97)).numpy()
            np.testing.assert_array_equal(
                mask_ids[row] >= 0, np.isin(resized, kept), err_msg=str(record)
            )
            found = classes[row][classes[row] > 0]
            assert sorted(found) == sorted(kept // 256)
    assert dropped > 20


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
    rows = list(Data(config).validation.evaluation_batches(batch_size=4))
    assert [len(batch.images) for batch in rows] == [4, 2]
    names = [name.decode() for batch in rows for name in batch.names.numpy()]
    assert names == [f"{number:012d}" for number in range(1, 7)]
    batch = rows[0]
    assert batch.images.shape[1:] == (49, 65, 3)
    assert batch.original_sizes.numpy().tolist() == [[65, 65]] * 4
    assert batch.resized_sizes.numpy().tolist() == [[49, 49]] * 4
    image = tf.io.read_file(str(scenes / "images" / "val" / "000000000002.jpg"))
    expected, _ = resize_and_pad(decode_image(image), (49, 65))
    np.testing.assert_array_equal(batch.images[1], expected)

    limited = Data(config).validation.evaluation_batches(batch_size=4, max_images=3)
    assert [len(batch.images) for batch in limited] == [3]
