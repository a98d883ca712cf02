"""The ground truth at the resolution of a prediction, shared by all terms."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from cmt.losses.regions import Regions
from cmt.matching.masks import take
from cmt.outputs import Targets


class PixelTargets(NamedTuple):
    """The ground truth of a batch at a prediction's resolution, P = h * w pixels.

    Attributes:
      semantic: [B, P] int32, class 1..C, 0 where void.
      mask_ids: [B, P] int32, mask that owns the pixel, -1 where none does.
    """

    semantic: tf.Tensor
    mask_ids: tf.Tensor

    @property
    def not_void(self) -> tf.Tensor:
        """[B, P] float32, 0 on void pixels, else 1."""
        return tf.cast(self.semantic > 0, tf.float32)

    @property
    def is_crowd(self) -> tf.Tensor:
        """[B, P] bool, pixels that have a class and no mask."""
        return (self.semantic > 0) & (self.mask_ids < 0)

    def regions(self, num_masks: int, height: int) -> Regions:
        """The G = `num_masks` masks, crowds and void, of `height` rows of pixels."""
        other = tf.where(self.semantic > 0, num_masks, num_masks + 1)
        mask_ids = tf.cast(self.mask_ids, tf.int32)
        ids = tf.where(mask_ids >= 0, mask_ids, other)
        return Regions.of(ids, num_masks + 2, height)


def label_stride(label_size: int, prediction_size: int, axis: str) -> int:
    """Pixels of the label from one pixel of the prediction to the next.

    Args:
      label_size: pixels of the label along the axis.
      prediction_size: pixels of the prediction along the axis.
      axis: its name, for the error.

    Raises:
      ValueError: no whole stride keeps the corner pixels where they are.
    """
    if prediction_size == 1:
        return label_size
    steps, rest = divmod(label_size - 1, prediction_size - 1)
    if rest or not steps:
        raise ValueError(
            f"the {axis} of the labels minus 1 must be a multiple of the {axis} of the"
            f" predictions minus 1; got {label_size} and {prediction_size}"
        )
    return steps


def stride_labels(labels: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Takes labels at a prediction's resolution, from the top left, no interpolation.

    Args:
      labels: [B, H, W], of static size.
      height: rows of the prediction.
      width: columns of the prediction.

    Returns:
      [B, height * width], row by row.

    Raises:
      ValueError: a size of the labels does not fit the prediction's.
    """
    row_stride = label_stride(labels.shape[1], height, "height")
    column_stride = label_stride(labels.shape[2], width, "width")
    strided = labels[:, ::row_stride, ::column_stride]
    return tf.reshape(strided, [-1, height * width])


def pixel_targets(targets: Targets, height: int, width: int) -> PixelTargets:
    """Brings the ground truth to a prediction's resolution.

    Args:
      targets: the ground truth, H x W.
      height: rows of the prediction.
      width: columns of the prediction.

    Raises:
      ValueError: a size of the labels does not fit the prediction's.
    """
    semantic = stride_labels(targets.semantic, height, width)
    mask_ids = stride_labels(targets.mask_ids, height, width)
    owner_class = take(targets.mask_classes, mask_ids, default=0)
    owned = (owner_class > 0) & (semantic > 0)
    return PixelTargets(semantic, tf.where(owned, mask_ids, -1))
