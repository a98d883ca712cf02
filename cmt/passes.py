"""Several passes of a network over an image, mirrored and at other scales, as one.

Centers have no names: center 3 of one pass may be center 40 of the next. Each further
pass is therefore brought to the grid of the first one, its centers are matched to those
of the first by what they segment, and only matched centers are averaged.

Shapes: crops of H x W pixels, whose masks are h x w, N centers. Images lie in the top
left of their crops; what is right of and below them is padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from cmt.matching.assignment import assign_in_graph
from cmt.matching.masks import take
from cmt.outputs import Predictions

# Masks that share less, as dice, are taken for masks of different things. On the
# demo's scenes 0 to 0.3 gave the same quality, 0.5 and 0.7 less.
_LEAST_DICE = 0.3
_EPSILON = 1e-6
# Networks take sides of a multiple of this plus 1.
_STRIDE = 16


class Pass(NamedTuple):
    """One way to look at an image: resized to `scale` of it, and mirrored or not."""

    scale: float
    is_flipped: bool


def run_passes(
    network: Callable[..., Any],
    crops: tf.Tensor,
    sizes: tf.Tensor,
    passes: Sequence[Pass],
) -> Predictions:
    """Runs a network on crops as they are and in further ways, and averages.

    A center's class probabilities, and the logarithms of its mask's probabilities, are
    the mean over the passes in which a center was found that segments the same; a
    center without any keeps those of the first pass.

    Args:
      network: images [B, H, W, 3] float32, `training` -> `Predictions`; of any size.
      crops: [B, H, W, 3] float32.
      sizes: [B, 2] int32, height and width of the image in each crop.
      passes: beside the first; with none the result is that of the network.

    Returns:
      The predictions of the first pass. With further passes, its mask_logits
      [B, h, w, N] and class_logits [B, N, C + 1] are the logarithms of the means.
    """
    first = network(crops, training=False)
    if not passes:
        return first
    masks, classes = _log_probs(first.mask_logits), _log_probs(first.class_logits)
    valid = _inside(sizes, crops.shape[1:3], masks.shape[1:3])
    mask_sum, class_sum = masks, tf.exp(classes)
    count = tf.ones(tf.shape(classes)[:2])
    for way in passes:
        other_masks, other_classes = _run(network, crops, sizes, way, masks.shape[1:3])
        center = match_centers(masks, classes, other_masks, other_classes, valid)
        found = tf.cast(center >= 0, tf.float32)
        by_center = tf.transpose(other_masks, [0, 3, 1, 2])
        mask_sum += tf.transpose(take(by_center, center, default=0.0), [0, 2, 3, 1])
        class_sum += take(tf.exp(other_classes), center, default=0.0)
        count += found
    return first._replace(
        mask_logits=mask_sum / count[:, tf.newaxis, tf.newaxis],
        class_logits=tf.math.log(class_sum / count[:, :, tf.newaxis] + 1e-30),
    )


def match_centers(
    masks: tf.Tensor,
    classes: tf.Tensor,
    other_masks: tf.Tensor,
    other_classes: tf.Tensor,
    valid: tf.Tensor,
) -> tf.Tensor:
    """Finds the center of another pass that segments what a center does.

    Centers are matched one to one, so that the sum of dice of the masks times
    agreement of the classes (sum over classes of sqrt(p q), 1 where they are equal) is
    the largest. Masks with less than 0.3 dice do not match.

    Args:
      masks: [B, h, w, N] float32, logarithms of probabilities.
      classes: [B, N, C + 1] float32, logarithms of probabilities.
      other_masks, other_classes: of the other pass.
      valid: [B, h, w] float32, 1 in images and 0 in padding.

    Returns:
      [B, N] int32, the center of the other pass, -1 where there is none.
    """
    one, other = (
        tf.exp(logs) * valid[..., tf.newaxis] for logs in (masks, other_masks)
    )
    areas = [tf.reduce_sum(probs, axis=[1, 2]) for probs in (one, other)]
    shared = tf.einsum("bhwn,bhwm->bnm", one, other)
    dice = (
        2 * shared / (areas[0][:, :, tf.newaxis] + areas[1][:, tf.newaxis] + _EPSILON)
    )
    halves = tf.exp(classes / 2), tf.exp(other_classes / 2)
    agreement = tf.einsum("bnc,bmc->bnm", *halves)
    similarity = tf.where(dice >= _LEAST_DICE, dice * agreement, 0.0)
    center = assign_in_graph(-similarity, tf.reduce_any(similarity > 0, axis=2))
    chosen = tf.gather(similarity, tf.maximum(center, 0), axis=2, batch_dims=2)
    return tf.where((center >= 0) & (chosen > 0), center, -1)


def _run(
    network: Callable[..., Any],
    crops: tf.Tensor,
    sizes: tf.Tensor,
    way: Pass,
    grid: tuple[int, int],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Log probabilities of masks [B, h, w, N], on the first grid, and of classes."""
    seen = mirror(crops, sizes[:, 1]) if way.is_flipped else crops
    if way.scale != 1:
        size = [_scaled(side, way.scale) for side in crops.shape[1:3]]
        seen = _resize(seen, size)
    predictions = network(seen, training=False)
    logits = tf.cast(predictions.mask_logits, tf.float32)
    if way.scale != 1:
        logits = _resize(logits, grid)
    if way.is_flipped:
        logits = _mirror_grid(logits, sizes[:, 1], crops.shape[2])
    return _log_probs(logits), _log_probs(predictions.class_logits)


def mirror(images: tf.Tensor, widths: tf.Tensor) -> tf.Tensor:
    """Mirrors the first columns, `widths` [B] int32, of each of [B, H, W, ...]."""
    return tf.reverse_sequence(images, widths, seq_axis=2, batch_axis=0)


def _mirror_grid(logits: tf.Tensor, widths: tf.Tensor, crop_width: int) -> tf.Tensor:
    """Takes logits [B, h, w, N] of mirrored images back, linear between columns.

    Column j of the grid is pixel j (W - 1) / (w - 1), whose mirror image mostly is
    between two columns.
    """
    last = logits.shape[2] - 1
    edge = tf.cast(widths - 1, tf.float32)[:, tf.newaxis] * (last / (crop_width - 1))
    column = tf.range(last + 1, dtype=tf.float32)
    position = tf.where(column <= edge, edge - column, column)
    left = tf.cast(position, tf.int32)
    weight = (position - tf.cast(left, tf.float32))[:, tf.newaxis, :, tf.newaxis]
    ahead = tf.gather(logits, tf.minimum(left + 1, last), axis=2, batch_dims=1)
    here = tf.gather(logits, left, axis=2, batch_dims=1)
    return here + (ahead - here) * weight


def _inside(
    sizes: tf.Tensor, crop: tuple[int, int], grid: tuple[int, int]
) -> tf.Tensor:
    """[B, h, w] float32, 1 where a point of the grid lies in the image."""
    rows, columns = (
        tf.range(points, dtype=tf.float32) * ((side - 1) / (points - 1))
        < tf.cast(sizes[:, axis, tf.newaxis], tf.float32)
        for axis, (side, points) in enumerate(zip(crop, grid, strict=True))
    )
    return tf.cast(rows[:, :, tf.newaxis] & columns[:, tf.newaxis], tf.float32)


def _scaled(side: int, scale: float) -> int:
    """The side that networks take nearest to `scale` of one that they take."""
    return _STRIDE * max(2, round((side - 1) * scale / _STRIDE)) + 1


def _resize(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    return tf.raw_ops.ResizeBilinear(images=images, size=size, align_corners=True)


def _log_probs(logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.log_softmax(tf.cast(logits, tf.float32), axis=-1)
