"""No iterator of a run has a thread that tunes it, which its end would wait for."""

from __future__ import annotations

import tensorflow as tf

from cmt.io.tuning import untuned
from cmt.trainer import strategy


def test_a_data_set_is_not_tuned():
    dataset = untuned(tf.data.Dataset.range(3).map(lambda n: n + 1, tf.data.AUTOTUNE))
    assert dataset.options().autotune.enabled is False
    assert [*dataset.as_numpy_iterator()] == [1, 2, 3]


def test_one_device_takes_the_data_set_as_it_is():
    """Other strategies put a tuned one behind it, which prefetches to the device."""
    dataset = untuned(tf.data.Dataset.range(3))
    found = strategy.build_strategy("ONE_DEVICE")
    assert found.experimental_distribute_dataset(dataset) is dataset
    assert strategy.describe(found) in ("one CPU", "one GPU")
    assert strategy.is_chief(found) and strategy.num_processes(found) == 1
