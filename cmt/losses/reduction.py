"""What all cross entropies here share: the mean, and pixels without a target."""

from __future__ import annotations

import tensorflow as tf


def nonzero_mean(values: tf.Tensor) -> tf.Tensor:
    """Mean over the entries of each image that are not zero; 0 where all are.

    Args:
      values: [B, K] float32, weighted losses of pixels or centers.

    Returns:
      [B] float32.
    """
    count = tf.reduce_sum(tf.cast(tf.not_equal(values, 0.0), tf.float32), axis=1)
    return tf.math.divide_no_nan(tf.reduce_sum(values, axis=1), count)


def gradient_only(values: tf.Tensor) -> tf.Tensor:
    """Zeros with the gradient of `values`, which are finite.

    For a pixel whose target is all zeros: the cross entropy of the authors' published
    code is 0 there, and its gradient that of the log-sum-exp of the logits.
    """
    return values - tf.stop_gradient(values)
