"""The loss on reference masks: points spread like the pixels of the mask (Eq. 13)."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from cmt.matching.masks import Matching, take


class MaskExtents(NamedTuple):
    """Where masks lie; (h, w) coordinates i / (n - 1) in [0, 1], 0 where n = 1.

    Attributes:
      lowest: [B, G, 2] float32, least h and w of a pixel of the mask.
      highest: [B, G, 2] float32, greatest h and w.
      center: [B, G, 2] float32, mean h and w. All three are meaningless where the mask
        has no pixel.
    """

    lowest: tf.Tensor
    highest: tf.Tensor
    center: tf.Tensor


def mask_extents(row_counts: tf.Tensor, column_counts: tf.Tensor) -> MaskExtents:
    """Finds the extreme points and the mean of ground-truth masks.

    Args:
      row_counts: [B, h, G] float32, pixels of each mask in each row.
      column_counts: [B, w, G] float32, the same in each column.
    """
    rows, columns = _axis_extents(row_counts), _axis_extents(column_counts)
    return MaskExtents(
        *(tf.stack(pair, -1) for pair in zip(rows, columns, strict=True))
    )


def _axis_extents(counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Least, greatest and mean coordinate [B, G] of pixel counts [B, n, G]."""
    size = counts.shape[1]
    places = tf.range(size, dtype=tf.float32)[:, tf.newaxis] / max(size - 1, 1)
    lowest = tf.reduce_min(tf.where(counts > 0.0, places, 1.0), axis=1)
    highest = tf.reduce_max(tf.where(counts > 0.0, places, 0.0), axis=1)
    total = tf.reduce_sum(counts * places, axis=1)
    return lowest, highest, total / tf.maximum(tf.reduce_sum(counts, axis=1), 1.0)


def mask_approximation_loss(
    reference_points: tf.Tensor, extents: MaskExtents, matching: Matching
) -> tf.Tensor:
    """L1 between extremes and means of reference points and mask pixels (Eq. 13).

    Args:
      reference_points: [B, N, M, 2] float32, (h, w) in [0, 1].
      extents: of the ground-truth masks, at the resolution of the main output.
      matching: of the main output; its K matched masks are averaged over.

    Returns:
      [B] float32; 0 where K = 0.
    """
    reference = MaskExtents(
        lowest=tf.reduce_min(reference_points, axis=2),
        highest=tf.reduce_max(reference_points, axis=2),
        center=tf.reduce_mean(reference_points, axis=2),
    )
    target = MaskExtents(
        *(take(part, matching.center_masks, default=0.0) for part in extents)
    )
    lowest, highest, center = (
        tf.reduce_sum(tf.abs(predicted - wanted), axis=2)
        for predicted, wanted in zip(reference, target, strict=True)
    )
    losses = (lowest + highest) / 4.0 + center / 2.0
    matched = tf.cast(matching.center_masks >= 0, tf.float32)
    return tf.math.divide_no_nan(
        tf.reduce_sum(matched * losses, axis=1), tf.reduce_sum(matched, axis=1)
    )
