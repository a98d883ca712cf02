"""Cross entropy of the auxiliary semantic branch."""

from __future__ import annotations

import tensorflow as tf

from cmt.losses.reduction import cross_entropy, nonzero_mean


def semantic_loss(semantic_logits: tf.Tensor, semantic: tf.Tensor) -> tf.Tensor:
    """Softmax cross entropy over the classes, averaged over the pixels not void.

    Args:
      semantic_logits: [B, P, C + 1] float32, channel = class.
      semantic: [B, P] int32, class 1..C, 0 where void.

    Returns:
      [B] float32.
    """
    losses = cross_entropy(semantic_logits, semantic)
    return nonzero_mean(tf.where(semantic > 0, losses, 0.0))
