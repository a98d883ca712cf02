"""Mask-ID cross entropy: every pixel towards the center of its mask."""

from __future__ import annotations

import tensorflow as tf

from cmt.losses.reduction import gradient_only, nonzero_mean


def mask_id_loss(
    mask_logits: tf.Tensor, pixel_centers: tf.Tensor, is_crowd: tf.Tensor
) -> tf.Tensor:
    """Cross entropy over all centers, averaged over the pixels that have one.

    MaX-DeepLab (Wang et al., CVPR 2021), Sec. 3.4.

    Args:
      mask_logits: [B, P, N] float32, of the main output or of a layer.
      pixel_centers: [B, P] int32, center of the pixel's mask, -1 where it has none:
        void, a crowd, or a mask that went unmatched.
      is_crowd: [B, P] bool, pixels that have a class and no mask.

    Returns:
      [B] float32.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.maximum(pixel_centers, 0), mask_logits
    )
    # Of the pixels without a center, the losses are those of center 0.
    log_sum = losses + mask_logits[:, :, 0]
    # Paper: no loss on a crowd. Here: no value, but the gradient that evens out its
    # logits, because the authors' published code has it.
    others = tf.where(is_crowd, gradient_only(log_sum), 0.0)
    return nonzero_mean(tf.where(pixel_centers >= 0, losses, others))
