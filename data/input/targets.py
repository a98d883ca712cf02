"""Label map -> what the losses compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from cmt.errors import InputError
from cmt.labels import LABEL_DIVISOR
from cmt.outputs import Targets


class Masks(NamedTuple):
    """The numbered masks of one label map, or of a batch.

    Attributes:
      pixels: [H, W] uint16, class * 256 + mask + 1, or class * 256 without a mask.
      classes: [G] int32, class 1..C of each mask, 0 where there is no mask.
    """

    pixels: tf.Tensor
    classes: tf.Tensor


def number_masks(
    labels: tf.Tensor,
    *,
    is_thing: Sequence[bool],
    max_masks: int,
    min_thing_pixels: tf.Tensor | float = 0,
    divisor: int = LABEL_DIVISOR,
) -> Masks:
    """Numbers the masks of one label map.

    A mask is one instance of a thing class, or all pixels of a stuff class; masks are
    numbered as they first appear, row by row. Crowd (a thing class with instance 0)
    keeps its class and belongs to no mask. Things that are too small become void, and
    so do the smallest masks if there are more than `max_masks`.

    Args:
      labels: [H, W] int32, class * `divisor` + instance, 0 for void.
      is_thing: for class 1..C in order.
      max_masks: G, at most 255: mask + 1 and class share 16 bits.
      min_thing_pixels: things of fewer pixels of `labels` become void.

    Raises:
      InputError: there are more than 255 classes.
    """
    if len(is_thing) >= LABEL_DIVISOR:
        raise InputError(
            f"a data set must have at most {LABEL_DIVISOR - 1} categories to train on; "
            f"got {len(is_thing)}"
        )
    values, index, pixels = tf.unique_with_counts(tf.reshape(labels, [-1]))
    classes, instance = values // divisor, values % divisor
    is_thing = tf.constant([False, *is_thing])
    # 0 stands for all that no mask owns.
    of_things = tf.where(instance > 0, values, 0)
    key = tf.where(tf.gather(is_thing, classes), of_things, values - instance)

    # From here on everything is as long as there are labels, and not pixels.
    keys, key_index = tf.unique(key)
    area = tf.math.unsorted_segment_sum(pixels, key_index, tf.size(keys))
    too_small = tf.cast(area, tf.float32) < min_thing_pixels
    too_small &= tf.gather(is_thing, keys // divisor)
    area = tf.where((keys > 0) & ~too_small, area, 0)
    num_kept = tf.minimum(tf.math.count_nonzero(area, dtype=tf.int32), max_masks)
    kept = tf.sort(tf.math.top_k(area, num_kept, sorted=False).indices)
    number = tf.tensor_scatter_nd_update(
        tf.fill(tf.shape(keys), -1), kept[:, tf.newaxis], tf.range(num_kept)
    )
    number = tf.gather(number, key_index)
    dropped = (number < 0) & (key > 0)
    packed = tf.where(dropped, 0, classes * LABEL_DIVISOR + number + 1)
    pixels = tf.gather(tf.cast(packed, tf.uint16), index)
    mask_classes = tf.gather(keys, kept) // divisor
    mask_classes = tf.pad(mask_classes, [[0, max_masks - num_kept]])
    return Masks(
        pixels=tf.reshape(pixels, tf.shape(labels)),
        classes=tf.ensure_shape(mask_classes, [max_masks]),
    )


def unpack(masks: Masks) -> Targets:
    """Masks, of an image or a batch, as the losses take them."""
    # Shift and mask: divisions of whole numbers are ten times as slow.
    semantic = tf.bitwise.right_shift(masks.pixels, tf.constant(8, tf.uint16))
    numbers = tf.bitwise.bitwise_and(masks.pixels, tf.constant(255, tf.uint16))
    return Targets(
        semantic=tf.cast(semantic, tf.int32),
        mask_ids=tf.cast(numbers, tf.int32) - 1,
        mask_classes=masks.classes,
    )
