"""Mask-ID cross entropy: every pixel towards the center of its mask."""

from __future__ import annotations

import tensorflow as tf

from cmt.losses.reduction import gradient_only, nonzero_mean, pick
from cmt.losses.statistics import MaskStatistics


def mask_id_loss(
    mask_logits: tf.Tensor,
    statistics: MaskStatistics,
    pixel_centers: tf.Tensor,
    is_crowd: tf.Tensor,
) -> tf.Tensor:
    """Cross entropy over all centers, averaged over the pixels that have one.

    MaX-DeepLab (Wang et al., CVPR 2021), Sec. 3.4.

    Args:
      mask_logits: [B, P, N] float32, of the main output or of a layer.
      statistics: of these logits.
      pixel_centers: [B, P] int32, center of the pixel's mask, -1 where it has none:
        void, a crowd, or a mask that went unmatched.
      is_crowd: [B, P] bool, pixels that have a class and no mask.

    Returns:
      [B] float32.
    """
    own_logits = pick(mask_logits, tf.maximum(pixel_centers, 0))
    log_total = statistics.log_total
    losses = log_total - (own_logits - statistics.highest)
    # Paper: no loss on a crowd. Here: no value, but the gradient that evens out its
    # logits, because the authors' published code has it.
    others = tf.where(is_crowd, gradient_only(log_total), 0.0)
    return nonzero_mean(tf.where(pixel_centers >= 0, losses, others))
