"""Sums over the masks of an image, without tensors of pixels x masks if possible."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from cmt.losses.products import one_hot_matmul
from cmt.tracing import is_for_tpu, is_host_out_of_reach


class Regions(NamedTuple):
    """What every pixel lies on: one of S = G + 2 regions, the masks, crowds and void.

    Sums are segment sums. XLA, which has none that a TPU is fast at, gets products with
    a one-hot tensor instead; a NaN is then in the sums of all regions, not of one.

    Attributes:
      ids: [B, P] int32, in [0, S), row by row.
      num_regions: S.
      height: rows of pixels; P = height * width.
      one_hot: [B, P, S], `ids` as zeros and ones, bfloat16 on a TPU, else float32;
        None where not needed.
    """

    ids: tf.Tensor
    num_regions: int
    height: int
    one_hot: tf.Tensor | None

    @classmethod
    def of(cls, ids: tf.Tensor, num_regions: int, height: int) -> Regions:
        """The regions of pixels, in the form that suits what is being traced."""
        one_hot = None
        if is_host_out_of_reach():
            dtype = tf.bfloat16 if is_for_tpu() else tf.float32
            one_hot = tf.one_hot(ids, num_regions, dtype=dtype)
        return cls(ids, num_regions, height, one_hot)

    def sums(self, values: tf.Tensor) -> tf.Tensor:
        """Sums values [B, P, K] over each region, [B, S, K]."""
        if self.one_hot is not None:
            return one_hot_matmul(self.one_hot, values, transpose=True)
        return _segment_sums(values, self.ids, self.num_regions)

    def at_pixels(self, values: tf.Tensor) -> tf.Tensor:
        """Gives each pixel the values [B, S, K] of its region, [B, P, K]."""
        if self.one_hot is not None:
            return one_hot_matmul(self.one_hot, values)
        return tf.gather(values, self.ids, batch_dims=1)

    def counts(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Pixels of each region in each row, [B, h, S], and column, [B, w, S]."""
        width = self.ids.shape[1] // self.height
        if self.one_hot is not None:
            grid = tf.cast(self.one_hot, tf.float32)
            grid = tf.reshape(grid, [-1, self.height, width, self.num_regions])
            return tf.reduce_sum(grid, axis=2), tf.reduce_sum(grid, axis=1)
        ones = tf.ones_like(self.ids, tf.float32)[:, :, tf.newaxis]
        pixels = tf.range(self.ids.shape[1])
        found = []
        for places, size in ((pixels // width, self.height), (pixels % width, width)):
            cells = places * self.num_regions + self.ids
            sums = _segment_sums(ones, cells, size * self.num_regions)
            found.append(tf.reshape(sums, [-1, size, self.num_regions]))
        return found[0], found[1]


def _segment_sums(values: tf.Tensor, ids: tf.Tensor, size: int) -> tf.Tensor:
    """Sums values [B, P, K] by ids [B, P] in [0, size), [B, size, K]."""
    images = tf.shape(ids)[0]
    first = tf.range(images)[:, tf.newaxis] * size
    channels = values.shape[2]
    sums = tf.math.unsorted_segment_sum(
        tf.reshape(values, [-1, channels]),
        tf.reshape(first + ids, [-1]),
        images * size,
    )
    return tf.reshape(sums, [-1, size, channels])
