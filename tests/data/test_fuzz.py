"""Damaged records and files: an error or a good result, soon, and nothing else."""

from __future__ import annotations

import resource
import time

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.input.augment import Augmentation
from cmt.data.input.copy_paste import paste_shares
from cmt.data.input.prepare import Changes, Options, Preparation
from cmt.data.input.targets import unpack
from cmt.data.panoptic.categories import Category
from cmt.data.records.index import index_records
from cmt.data.records.reader import decode_example, read_record
from cmt.errors import InputError
from tests.data import mutations

CHANGES = Changes(Augmentation(0.5, 1.5, 0.1, 0.5))
OPTIONS = Options((33, 49), max_masks=7, changes=CHANGES)
CATEGORIES = [
    Category(number + 1, f"c{number}", number < 5, (0, 0, 0))
    for number in range(mutations.NUM_CLASSES)
]
MAX_SECONDS = 5.0  # of the processor: others may hold it
MAX_MEGABYTES = 1500


@pytest.fixture(scope="module")
def prepare():
    """Record -> sizes of what was decoded, and what the network would get."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def run(record):
        example = decode_example(record, mutations.NUM_CLASSES)
        preparation = Preparation(
            lambda _: example,
            num_records=1,
            is_thing=[category.is_thing for category in CATEGORIES],
            shares=paste_shares(CHANGES.copy_paste, CATEGORIES),
            options=OPTIONS,
            seed=1,
        )
        image, masks, _ = preparation(tf.constant(3, tf.int64))
        shapes = tf.shape(example.image), tf.shape(example.labels)
        return shapes, image, unpack(masks)

    return run


def check(result) -> None:
    (image_shape, labels_shape), image, targets = result
    height, width, channels = image_shape.numpy().tolist()
    assert labels_shape.numpy().tolist() == [height, width]
    assert channels == 3
    assert min(height, width) >= 1
    assert image.shape == (*OPTIONS.crop_size, 3)
    assert np.isfinite(image).all()
    assert 0 <= image.numpy().min() <= image.numpy().max() <= 255
    assert targets.semantic.shape == targets.mask_ids.shape == OPTIONS.crop_size
    assert targets.mask_classes.shape == (OPTIONS.max_masks,)
    assert targets.semantic.numpy().min() >= 0
    assert targets.semantic.numpy().max() <= mutations.NUM_CLASSES
    assert targets.mask_ids.numpy().min() >= -1
    assert targets.mask_ids.numpy().max() < OPTIONS.max_masks


def run_records(prepare, count: int, seed: int) -> int:
    """Returns how many of `count` damaged records were refused."""
    rng = np.random.default_rng(seed)
    good = mutations.seeds()
    for record in good:
        check(prepare(record))
    refused = 0
    for _ in range(count):
        record = mutations.mutated_record(rng, good)
        start = time.process_time()
        try:
            result = prepare(record)
        # UnicodeDecodeError: TensorFlow's message quotes what it cannot parse.
        except (tf.errors.OpError, UnicodeDecodeError):
            refused += 1
        else:
            check(result)
        assert time.process_time() - start < MAX_SECONDS
    return refused


def run_files(prepare, folder, count: int, seed: int) -> int:
    """Returns how many good records were read of `count` damaged files."""
    rng = np.random.default_rng(seed)
    good = mutations.seeds()
    num_read = 0
    path = folder / "damaged.tfrecord"
    for _ in range(count):
        path.write_bytes(mutations.mutated_file(rng, good))
        start = time.process_time()
        try:
            index = index_records([str(path)], skip_damaged=True)
        except InputError:
            continue  # No record at all.
        for record in range(index.num_records):
            try:
                result = prepare(read_record(index, record))
            except (tf.errors.OpError, UnicodeDecodeError):
                continue
            check(result)
            num_read += 1
        assert time.process_time() - start < MAX_SECONDS
    return num_read


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_damaged_records(prepare):
    assert 200 < run_records(prepare, 400, seed=0) < 400


def test_damaged_files(prepare, tmp_path):
    assert run_files(prepare, tmp_path, 40, seed=0) > 20


@pytest.mark.slow
def test_ten_thousand(prepare, tmp_path):
    before = peak_megabytes()
    assert 5000 < run_records(prepare, 9500, seed=1) < 9500
    assert run_files(prepare, tmp_path, 500, seed=1) > 200
    assert peak_megabytes() - before < MAX_MEGABYTES
