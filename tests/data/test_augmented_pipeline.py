"""Runs with all random changes at once: the same whichever way they are made."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.input.open import Data
from cmt.data.input.prepare import record_of
from cmt.protos import data_pb2

# 24 images in batches of 5: step 4 has images of two epochs.
_BATCH = 5
_STEPS = 7


@pytest.fixture
def config(shards) -> data_pb2.DataConfig:
    config = data_pb2.DataConfig(
        train=data_pb2.DatasetConfig(tfrecords=str(shards / "train-*.tfrecord")),
        crop_height_pixels=33,
        crop_width_pixels=49,
        max_masks=12,
        min_thing_pixels=5,
    )
    augmentation = config.augmentation
    augmentation.min_scale, augmentation.max_scale = 0.5, 1.5
    augmentation.color_jitter.brightness = augmentation.color_jitter.contrast = 0.3
    augmentation.color_jitter.saturation = augmentation.color_jitter.hue = 0.2
    augmentation.policy.num_operations = 2
    augmentation.copy_paste.probability = 0.6
    augmentation.copy_paste.stuff_probability = 0.3
    return config


def batches(config, count: int, *, parallel_calls: int, seed: int = 1, first_step=0):
    config.parallel_calls = parallel_calls
    dataset = Data(config).train.batches(
        global_batch_size=_BATCH, seed=seed, first_step=first_step
    )
    return [
        [part.numpy() for part in tf.nest.flatten(batch)]
        for batch in dataset.take(count)
    ]


def equal(some, others) -> list[bool]:
    """Of each batch, whether all its parts are the same."""
    return [
        all(np.array_equal(*parts) for parts in zip(one, other, strict=True))
        for one, other in zip(some, others, strict=True)
    ]


def check_continued(config, whole, steps, calls) -> None:
    for step, parallel_calls in zip(steps, calls, strict=True):
        rest = batches(
            config,
            len(whole) - step,
            parallel_calls=parallel_calls,
            first_step=step,
        )
        assert all(equal(rest, whole[step:])), (step, parallel_calls)


@pytest.mark.slow
def test_a_run_is_the_same_from_any_step_by_any_number_of_calls(config):
    """One image at a time is compared with five, across the end of an epoch."""
    whole = batches(config, _STEPS, parallel_calls=1)
    check_continued(config, whole, [random.Random(3).randrange(1, 5)], [_BATCH])
    # The order is that of the epochs, each image with changes of its own.
    numbers = range(_STEPS * _BATCH)
    order = [int(record_of(tf.constant(n, tf.int64), 1, 24)) for n in numbers]
    assert np.concatenate([batch[-1] for batch in whole]).tolist() == order
    images = [image.tobytes() for batch in whole for image in batch[0]]
    assert len(set(images)) == len(images)


@pytest.mark.slow
def test_runs_continued_at_ten_steps(config):
    chance = random.Random(4)
    whole = batches(config, 30, parallel_calls=1)
    steps = [chance.randrange(1, 30) for _ in range(10)]
    check_continued(config, whole, steps, [0, 2, 3, 4, 5, 6, 7, 8, 16, 1])
    other = batches(config, 30, parallel_calls=_BATCH, seed=2)
    assert not any(equal(other, whole))
