"""Label map -> what the losses compare with."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from cmt.outputs import Targets

LABEL_DIVISOR = 256


def make_targets(
    labels: tf.Tensor, *, is_thing: Sequence[bool], max_masks: int
) -> Targets:
    """Numbers the masks of one label map.

    A mask is one instance of a thing class, or all pixels of a stuff class. They
    are numbered in the order in which they first appear, row by row. A thing class
    with instance 0 (crowd) keeps its class and belongs to no mask. If there are
    more than `max_masks`, the smallest become void.

    Args:
      labels: [H, W] int32, class * 256 + instance, 0 for void.
      is_thing: for class 1..C in order.
      max_masks: G, the length of `mask_classes`.

    Returns:
      Targets without the batch axis: `semantic` [H, W], `mask_ids` [H, W],
      `mask_classes` [G].
    """
    shape = labels.shape
    semantic = labels // LABEL_DIVISOR
    thing = tf.gather(tf.constant([False, *is_thing]), semantic)
    # 0 stands for all that no mask owns.
    instance = labels % LABEL_DIVISOR
    key = tf.where(thing, tf.where(instance > 0, labels, 0), labels - instance)

    keys, index, area = tf.unique_with_counts(tf.reshape(key, [-1]))
    area = tf.where(keys > 0, area, 0)
    num_kept = tf.minimum(tf.math.count_nonzero(area, dtype=tf.int32), max_masks)
    kept = tf.sort(tf.math.top_k(area, num_kept, sorted=False).indices)
    number = tf.tensor_scatter_nd_update(
        tf.fill(tf.shape(keys), -1), kept[:, tf.newaxis], tf.range(num_kept)
    )
    mask_ids = tf.reshape(tf.gather(number, index), tf.shape(labels))
    classes = tf.gather(keys, kept) // LABEL_DIVISOR
    mask_classes = tf.pad(classes, [[0, max_masks - num_kept]])

    dropped = (mask_ids < 0) & (key > 0)
    return Targets(
        semantic=tf.ensure_shape(tf.where(dropped, 0, semantic), shape),
        mask_ids=tf.ensure_shape(mask_ids, shape),
        mask_classes=tf.ensure_shape(mask_classes, [max_masks]),
    )
