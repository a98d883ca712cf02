"""Which cluster center stands for which ground-truth mask.

The similarity of a mask and a center is the PQ of the pair taken apart: how well the
center's mask covers the pixels (dice) times the probability it gives to the class.
Nothing here is differentiated; the losses see the result as constants.

MaX-DeepLab (Wang et al., CVPR 2021), Sec. 3.3; `assign` is the Hungarian matching.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy.optimize import linear_sum_assignment

_EPSILON = 1e-5


class Matching(NamedTuple):
    """The assignment of ground-truth masks to centers; no gradient flows through it.

    Attributes:
      mask_centers: [B, G] int32, center of each mask, -1 where it has none.
      center_masks: [B, N] int32, mask of each center, -1 where it has none.
      center_classes: [B, N] int32, class 1..C of the center's mask, 0 where none.
      class_similarity: [B, N] float32 in [0, 1], probability the center gives to the
        class of its mask; 0 where it has none.
      mask_similarity: [B, N] float32 in [0, 1], dice of the center and its mask; 0
        where it has none.
      void_ratio: [B, N] float32 in [0, 1], share of the center's mask on void pixels.
    """

    mask_centers: tf.Tensor
    center_masks: tf.Tensor
    center_classes: tf.Tensor
    class_similarity: tf.Tensor
    mask_similarity: tf.Tensor
    void_ratio: tf.Tensor


def mask_similarity(
    assignment: tf.Tensor, masks: tf.Tensor, not_void: tf.Tensor
) -> tf.Tensor:
    """Dice of every ground-truth mask and every center, outside void.

    Args:
      assignment: [B, P, N] float32, softmax over the centers.
      masks: [B, P, G] float32, 1 where mask g owns pixel p, else 0.
      not_void: [B, P] float32, 0 on void pixels, else 1.

    Returns:
      [B, G, N] float32 in [0, 1].
    """
    intersection = tf.einsum("bpg,bp,bpn->bgn", masks, not_void, assignment)
    gt_area = tf.reduce_sum(masks, axis=1)[:, :, tf.newaxis]
    pred_area = tf.einsum("bp,bpn->bn", not_void, assignment)[:, tf.newaxis, :]
    return intersection / ((gt_area + pred_area) / 2.0 + _EPSILON)


def class_similarity(class_logits: tf.Tensor, mask_classes: tf.Tensor) -> tf.Tensor:
    """Probability that every center gives to the class of every ground-truth mask.

    Args:
      class_logits: [B, N, C + 1] float32, void last.
      mask_classes: [B, G] int32, class 1..C, 0 where there is no mask.

    Returns:
      [B, G, N] float32 in [0, 1]; a row without a mask has the values of class 1.
    """
    probs = tf.transpose(tf.nn.softmax(class_logits, axis=-1), [0, 2, 1])
    return tf.gather(probs, tf.maximum(mask_classes - 1, 0), batch_dims=1)


def void_ratio(assignment: tf.Tensor, not_void: tf.Tensor) -> tf.Tensor:
    """Share of each center's mask that lies on void pixels.

    Args:
      assignment: [B, P, N] float32, softmax over the centers.
      not_void: [B, P] float32, 0 on void pixels, else 1.

    Returns:
      [B, N] float32 in [0, 1].
    """
    on_void = tf.einsum("bp,bpn->bn", 1.0 - not_void, assignment)
    return on_void / (tf.reduce_sum(assignment, axis=1) + _EPSILON)


def largest_masks(areas: tf.Tensor, num_masks: int) -> tf.Tensor:
    """Marks the real masks of an image, at most its `num_masks` largest.

    Args:
      areas: [B, G] float32 in pixels, 0 where there is no mask.
      num_masks: how many masks to keep; of equal ones the first are kept.

    Returns:
      [B, G] bool.
    """
    rows = tf.range(areas.shape[1])
    one, other = areas[:, :, tf.newaxis], areas[:, tf.newaxis, :]
    before = (other > one) | ((other == one) & (rows[:, tf.newaxis] > rows))
    rank = tf.reduce_sum(tf.cast(before, tf.int32), axis=2)
    return (areas > 0.0) & (rank < num_masks)


def assign(costs: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """Matches rows to columns one to one at the least total cost, on the host.

    Args:
      costs: [B, G, N] float32, finite in real rows. Other rows are not looked at.
      real: [B, G] bool, the rows to match.

    Returns:
      [B, G] int32, column of each row; -1 where the row is not real, or where an image
      has more real rows than columns and the optimum leaves this one out.

    Raises:
      ValueError: a cost in a real row is not finite; from a graph it arrives as
        tf.errors.InvalidArgumentError with the same message.
    """
    columns = tf.numpy_function(_assign_on_host, [costs, real], tf.int32)
    columns.set_shape(real.shape)
    return tf.stop_gradient(columns)


def _assign_on_host(costs: np.ndarray, real: np.ndarray) -> np.ndarray:
    columns = np.full(real.shape, -1, np.int32)
    for image, (cost, is_real) in enumerate(zip(costs, real, strict=True)):
        rows = np.flatnonzero(is_real)
        cost = cost[rows]
        if not np.isfinite(cost).all():
            bad = int(rows[np.argwhere(~np.isfinite(cost))[0][0]])
            raise ValueError(
                "matching cost must be finite (minus the mask similarity times the"
                f" class similarity); got NaN or infinity at image {image} of the"
                f" batch, mask {bad}: mask_logits or class_logits are not finite"
            )
        chosen_rows, chosen_columns = linear_sum_assignment(cost)
        columns[image, rows[chosen_rows]] = chosen_columns
    return columns


def match_masks(
    mask_logits: tf.Tensor,
    class_logits: tf.Tensor,
    *,
    masks: tf.Tensor,
    mask_classes: tf.Tensor,
    not_void: tf.Tensor,
) -> Matching:
    """Matches the real masks of each image to centers, the most similar ones overall.

    A mask is real where it has a class and owns a pixel. Where an image has more real
    masks than centers the smallest stay without one.

    Args:
      mask_logits: [B, P, N] float32.
      class_logits: [B, N, C + 1] float32, void last.
      masks: [B, P, G] float32, 1 where mask g owns pixel p, else 0.
      mask_classes: [B, G] int32, class 1..C, 0 where there is no mask.
      not_void: [B, P] float32, 0 on void pixels, else 1.

    Returns:
      The matching; see `Matching`.
    """
    assignment = tf.nn.softmax(tf.stop_gradient(mask_logits), axis=-1)
    by_mask = mask_similarity(assignment, masks, not_void)
    by_class = class_similarity(tf.stop_gradient(class_logits), mask_classes)
    areas = tf.reduce_sum(masks, axis=1) * tf.cast(mask_classes > 0, tf.float32)
    num_centers = mask_logits.shape[-1]
    centers = assign(-by_mask * by_class, largest_masks(areas, num_centers))

    pairs = centers[:, :, tf.newaxis] == tf.range(num_centers)
    rows = tf.range(centers.shape[1])[:, tf.newaxis]
    center_masks = tf.reduce_max(tf.where(pairs, rows, -1), axis=1)
    has_mask = tf.cast(pairs, tf.float32)
    return Matching(
        mask_centers=centers,
        center_masks=center_masks,
        center_classes=take(mask_classes, center_masks, default=0),
        class_similarity=tf.reduce_sum(by_class * has_mask, axis=1),
        mask_similarity=tf.reduce_sum(by_mask * has_mask, axis=1),
        void_ratio=void_ratio(assignment, not_void),
    )


def take(values: tf.Tensor, indices: tf.Tensor, *, default: float) -> tf.Tensor:
    """Looks values up by index, image by image.

    Args:
      values: [B, G, ...].
      indices: [B, K] int32, -1 where there is nothing to look up.
      default: the value there.

    Returns:
      [B, K, ...] of the type of `values`.
    """
    found = tf.gather(values, tf.maximum(indices, 0), batch_dims=1)
    known = indices >= 0
    for _ in range(len(values.shape) - 2):
        known = known[..., tf.newaxis]
    return tf.where(known, found, tf.cast(default, values.dtype))
