"""What the terms share: the mean, pixels without a target, cross entropies."""

from __future__ import annotations

import tensorflow as tf

from cmt.tracing import is_host_out_of_reach


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


def at_least(values: tf.Tensor, least: float) -> tf.Tensor:
    """The maximum of `values` and `least` that keeps NaN; XLA's may drop it."""
    return tf.where(values < least, least, values)


def softmax_and_log_total(
    logits: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The softmax, and the log-sum-exp in two parts that lose no digits.

    Args:
      logits: [B, P, K] float32.

    Returns:
      [B, P, K] the softmax; [B, P] the log of the sum over k of exp(logit - highest);
      [B, P] the highest logit.
    """
    probs = tf.nn.softmax(logits, axis=-1)
    # The highest logit adds exp(0) = 1 to the sum, so its share is 1 over the sum.
    log_total = -tf.math.log(tf.reduce_max(probs, axis=-1))
    return probs, log_total, tf.reduce_max(logits, axis=-1)


@tf.custom_gradient
def pick(logits: tf.Tensor, indices: tf.Tensor):
    """Takes one logit of each pixel; its gradient is no scatter, slow on accelerators.

    Args:
      logits: [B, P, K] float32.
      indices: [B, P] int32 in [0, K).

    Returns:
      [B, P] float32.
    """

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        one_hot = tf.one_hot(indices, logits.shape[-1], dtype=tf.float32)
        return upstream[:, :, tf.newaxis] * one_hot, None

    if not is_host_out_of_reach():
        return tf.gather(logits, indices, batch_dims=2), gradient
    # XLA's gather reads from one row of all logits, and making that is much work.
    is_picked = tf.one_hot(indices, logits.shape[-1], True, False, dtype=tf.bool)
    return tf.reduce_sum(tf.where(is_picked, logits, 0.0), axis=-1), gradient


@tf.custom_gradient
def cross_entropy(logits: tf.Tensor, labels: tf.Tensor):
    """Softmax cross entropy of pixels, the softmax computed again for the gradient.

    TensorFlow's own keeps a tensor as large as the logits until then.

    Args:
      logits: [B, P, K] float32.
      labels: [B, P] int32 in [0, K).

    Returns:
      [B, P] float32.
    """
    _, log_total, highest = softmax_and_log_total(logits)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        one_hot = tf.one_hot(labels, logits.shape[-1], dtype=tf.float32)
        difference = tf.nn.softmax(logits, axis=-1) - one_hot
        return upstream[:, :, tf.newaxis] * difference, None

    return log_total - (pick(logits, labels) - highest), gradient
