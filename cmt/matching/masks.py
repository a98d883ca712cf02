"""Which cluster center stands for which ground-truth mask.

The similarity of a mask and a center is the PQ of the pair taken apart: how well the
center's mask covers the pixels (dice) times the probability it gives to the class.
Nothing here is differentiated; the losses see the result as constants.

MaX-DeepLab (Wang et al., CVPR 2021), Sec. 3.3; `assign` is the Hungarian matching.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from cmt.errors import InputError
from cmt.matching.assignment import assign_in_graph
from cmt.tracing import is_host_out_of_reach

MATCHERS = ("AUTO", "IN_GRAPH", "HOST")

_EPSILON = 1e-5


class Overlaps(NamedTuple):
    """Pixels of each center's mask (softmax over the centers) by what they lie on.

    Attributes:
      regions: [B, G + 2, N] float32 in pixels, on each ground-truth mask, on crowds and
        on void, in this order; see `PixelTargets.regions`.
      areas: [B, G + 2] float32 in pixels, of the mask, of all crowds and of void.
    """

    regions: tf.Tensor
    areas: tf.Tensor

    @property
    def masks(self) -> tf.Tensor:
        """[B, G, N], the part of `regions` on masks."""
        return self.regions[:, :-2]

    @property
    def mask_areas(self) -> tf.Tensor:
        """[B, G], the part of `areas` of masks."""
        return self.areas[:, :-2]


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
      num_unmatched: [B] float32, real masks without a center, in an image that has
        more of them than centers.
    """

    mask_centers: tf.Tensor
    center_masks: tf.Tensor
    center_classes: tf.Tensor
    class_similarity: tf.Tensor
    mask_similarity: tf.Tensor
    void_ratio: tf.Tensor
    num_unmatched: tf.Tensor


def mask_similarity(overlaps: Overlaps) -> tf.Tensor:
    """Dice of every ground-truth mask and every center, outside void.

    Args:
      overlaps: of the main output.

    Returns:
      [B, G, N] float32 in [0, 1].
    """
    gt_area = overlaps.mask_areas[:, :, tf.newaxis]
    pred_area = tf.reduce_sum(overlaps.regions[:, :-1], axis=1, keepdims=True)
    return overlaps.masks / ((gt_area + pred_area) / 2.0 + _EPSILON)


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


def void_ratio(overlaps: Overlaps) -> tf.Tensor:
    """Share of each center's mask that lies on void pixels.

    Args:
      overlaps: of the main output.

    Returns:
      [B, N] float32 in [0, 1].
    """
    regions = overlaps.regions
    return regions[:, -1] / (tf.reduce_sum(regions, axis=1) + _EPSILON)


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
      costs: [B, G, N] float32, finite in real rows. Other rows are not looked at. If
        one is not finite, columns stay one to one, but need not be the best: the loss
        is not finite then either, and what stops training names its term.
      real: [B, G] bool, the rows to match.

    Returns:
      [B, G] int32, column of each row; -1 where the row is not real, or where an image
      has more real rows than columns and the optimum leaves this one out.
    """
    columns = tf.numpy_function(_assign_on_host, [costs, real], tf.int32)
    columns.set_shape(real.shape)
    return tf.stop_gradient(columns)


def _assign_on_host(costs: np.ndarray, real: np.ndarray) -> np.ndarray:
    # A quarter of a second, which commands that do not train need not spend.
    from scipy.optimize import linear_sum_assignment

    # Once, instead of by SciPy for each image.
    rows = costs[real].astype(np.float64)
    if not np.isfinite(rows).all():
        rows = np.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
    chosen = np.full(len(rows), -1, np.int32)
    stop = 0
    for count in np.count_nonzero(real, axis=1).tolist():
        start, stop = stop, stop + count
        image_rows, image_columns = linear_sum_assignment(rows[start:stop])
        chosen[start:stop][image_rows] = image_columns
    columns = np.full(real.shape, -1, np.int32)
    columns[real] = chosen
    return columns


def choose_matcher(
    matcher: Literal["AUTO", "IN_GRAPH", "HOST"],
) -> Literal["IN_GRAPH", "HOST"]:
    """Where to solve the assignment of what is being traced, or run eagerly.

    AUTO is IN_GRAPH under a TPUStrategy and in what XLA must compile: a tf.function
    with `jit_compile=True`, all that is traced inside it, and so Keras's
    `compile(jit_compile=True)`. Else it is HOST, in clusters that XLA picks by itself
    (`tf.config.optimizer.set_jit`) too. A tf.function that was traced before stays as
    it is when one that XLA compiles calls it: set IN_GRAPH there.

    Raises:
      InputError: HOST, where no host can be called.
    """
    no_host = is_host_out_of_reach()
    if matcher == "HOST" and no_host:
        raise InputError(
            "loss.matcher must be AUTO or IN_GRAPH on a TPU and in a step that XLA"
            " compiles, because neither calls the host; got HOST"
        )
    if matcher == "AUTO":
        return "IN_GRAPH" if no_host else "HOST"
    return matcher


def match_masks(
    overlaps: Overlaps,
    class_logits: tf.Tensor,
    *,
    mask_classes: tf.Tensor,
    matcher: Literal["AUTO", "IN_GRAPH", "HOST"] = "AUTO",
) -> Matching:
    """Matches the real masks of each image to centers, the most similar ones overall.

    A mask is real where it has a class and owns a pixel. Where an image has more real
    masks than centers the smallest stay without one.

    Args:
      overlaps: of the main output.
      class_logits: [B, N, C + 1] float32, void last.
      mask_classes: [B, G] int32, class 1..C, 0 where there is no mask.
      matcher: where the assignment is solved; see `choose_matcher`. With logits that
        are not finite it ends, and similarities are not finite.

    Returns:
      The matching; see `Matching`.

    Raises:
      InputError: see `choose_matcher`.
    """
    overlaps = Overlaps(*(tf.stop_gradient(part) for part in overlaps))
    by_mask = mask_similarity(overlaps)
    by_class = class_similarity(tf.stop_gradient(class_logits), mask_classes)
    num_centers = by_mask.shape[-1]
    areas = overlaps.mask_areas * tf.cast(mask_classes > 0, tf.float32)
    real = largest_masks(areas, num_centers)
    solve = assign_in_graph if choose_matcher(matcher) == "IN_GRAPH" else assign
    centers = solve(-by_mask * by_class, real)

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
        void_ratio=void_ratio(overlaps),
        num_unmatched=_count(areas > 0.0) - _count(centers >= 0),
    )


def _count(chosen: tf.Tensor) -> tf.Tensor:
    """[B] float32, how many of chosen [B, G] are true."""
    return tf.reduce_sum(tf.cast(chosen, tf.float32), axis=1)


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
