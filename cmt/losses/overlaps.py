"""The softmax over the centers and what all terms of the masks need of it."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from cmt.losses.reduction import softmax_and_log_total
from cmt.losses.regions import Regions
from cmt.matching.masks import Overlaps


class MaskStatistics(NamedTuple):
    """What is kept of mask logits [B, P, N], of which there are too many to copy.

    Attributes:
      overlaps: of the centers' masks and the ground truth.
      log_total: [B, P] float32, log of the sum over n of exp(logit - highest logit of
        the pixel); its gradient is the softmax, as that of the log-sum-exp.
      highest: [B, P] float32, the highest logit of a pixel, a constant.
    """

    overlaps: Overlaps
    log_total: tf.Tensor
    highest: tf.Tensor


def mask_statistics(
    mask_logits: tf.Tensor, regions: Regions, areas: tf.Tensor
) -> MaskStatistics:
    """Measures the centers' masks on the regions of the ground truth.

    The softmax is computed again for the gradient, so that nothing as large as the
    logits has to be kept until then.

    Args:
      mask_logits: [B, P, N] float32, of the main output or of a layer.
      regions: the region each pixel lies in.
      areas: [B, G + 2] float32, pixels of each region.
    """

    @tf.custom_gradient
    def measure(mask_logits: tf.Tensor):
        assignment, log_total, highest = softmax_and_log_total(mask_logits)

        def gradient(
            by_overlap: tf.Tensor, by_log_total: tf.Tensor, _: tf.Tensor
        ) -> tf.Tensor:
            assignment = tf.nn.softmax(mask_logits, axis=-1)
            by_assignment = regions.at_pixels(by_overlap)
            mean = tf.reduce_sum(assignment * by_assignment, axis=-1, keepdims=True)
            shift = by_log_total[:, :, tf.newaxis] - mean
            return assignment * (by_assignment + shift)

        return (regions.sums(assignment), log_total, highest), gradient

    overlaps, log_total, highest = measure(mask_logits)
    return MaskStatistics(
        Overlaps(overlaps, areas), log_total, tf.stop_gradient(highest)
    )
