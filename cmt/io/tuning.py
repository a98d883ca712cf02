"""Data sets that TensorFlow does not tune while they run."""

from __future__ import annotations

import tensorflow as tf


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The data set, whose `tf.data.AUTOTUNE` is one call for each processor.

    What tunes it looks after times that double, up to a minute. An iterator that ends
    wakes it first and says so after, so often it sleeps on, and the end of training or
    of an evaluation waits for it (TensorFlow 2.15 to 2.21). What strategies of several
    devices put behind it, to have batches on them early, is tuned still.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
