"""From the network's masks and classes to one panoptic map, in TensorFlow.

Two ways: MASK_WISE pastes whole masks in the order of their scores (MaskFormer; the
one of this paper), PIXEL_WISE gives each pixel its most likely mask (MaX-DeepLab).
Graph-safe. Images are treated one after the other, only live centers get masks at full
resolution, and the logits of all centers exist there a few rows at a time.

Shapes: h x w is the resolution of the masks, H x W the output size, N centers,
C classes (void not counted), L live centers: those whose class is confident enough.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from cmt.errors import InputError
from cmt.labels import LABEL_DIVISOR
from cmt.outputs import Predictions
from cmt.upsampling import map_upsampled_strips


class PanopticSegmentation(NamedTuple):
    """The panoptic maps of a batch.

    Attributes:
      panoptic: [B, H, W] int32, class * 256 + instance; class 1..C, instance 1..255
        for things and 0 for stuff; 0 is void.
      segment_ids: [B, N] int32, the values other than 0 that occur in `panoptic`, best
        score first, padded with 0.
      scores: [B, N] float32 in [0, 1], the score of each of them, padded with 0.
    """

    panoptic: tf.Tensor
    segment_ids: tf.Tensor
    scores: tf.Tensor


class _Centers(NamedTuple):
    """The centers of an image, [N] each.

    confidence: float32, probability of class_id, 1..C; is_thing, is_live: bool.
    """

    confidence: tf.Tensor
    class_id: tf.Tensor
    is_thing: tf.Tensor
    is_live: tf.Tensor


class _Live(NamedTuple):
    """The live centers of an image, [L] each, in the order in which they count.

    class_id: 1..C; is_thing: bool; instance: 1..N, the instance number a thing gets;
    score: float32 in [0, 1].
    """

    class_id: tf.Tensor
    is_thing: tf.Tensor
    instance: tf.Tensor
    score: tf.Tensor


def merge_masks(
    predictions: Predictions,
    *,
    is_thing: Sequence[bool],
    output_size: tuple[int, int],
    merge: str,
    thing_confidence: float,
    stuff_confidence: float,
    pixel_confidence: float,
    free_share: float,
    class_power: float,
    mask_power: float,
    min_thing_area_pixels: int,
    min_stuff_area_pixels: int,
    valid_sizes: tf.Tensor | None = None,
) -> PanopticSegmentation:
    """Merges masks into panoptic maps that give each pixel at most one segment.

    Args:
      predictions: mask_logits [B, h, w, N] and class_logits [B, N, C + 1] are used.
      is_thing: [C], whether class 1..C is a thing.
      output_size: (H, W) in pixels; logits are brought to it, bilinear, align-corners.
      merge: "MASK_WISE" or "PIXEL_WISE".
      thing_confidence: least class probability of a thing, inclusive.
      stuff_confidence: the same of stuff.
      pixel_confidence: a pixel needs a mask probability above it.
      free_share: MASK_WISE: a mask is pasted if more than this share of it is free.
      class_power: MASK_WISE: score = class probability ** class_power
        * mean mask probability ** mask_power. PIXEL_WISE: their plain product.
      mask_power: see class_power.
      min_thing_area_pixels: a thing with fewer output pixels becomes void.
      min_stuff_area_pixels: the same for all pixels of a stuff class together.
      valid_sizes: [B, 2] int32 (height, width): output pixels outside this top left
        part are padding and become void before areas are counted. None: all valid.

    Raises:
      InputError: see `_check`.
    """
    num_centers = _check(merge, is_thing, predictions.class_logits)
    assign = _assign_pixel_wise
    if merge == "MASK_WISE":
        powers = {"class_power": class_power, "mask_power": mask_power}
        assign = functools.partial(_assign_mask_wise, free_share=free_share, **powers)
    finish = functools.partial(
        drop_small_segments,
        min_thing_area_pixels=min_thing_area_pixels,
        min_stuff_area_pixels=min_stuff_area_pixels,
        num_entries=num_centers,
    )
    is_thing = [False, *is_thing]
    least = [thing_confidence if thing else stuff_confidence for thing in is_thing]

    def merge_image(image: tuple[tf.Tensor, ...]) -> PanopticSegmentation:
        mask_logits, class_logits, *valid_size = image
        valid = _inside(valid_size[0] if valid_size else output_size, output_size)
        centers = describe_centers(class_logits, is_thing, least)
        return finish(*assign(mask_logits, centers, valid, pixel_confidence))

    return _map_images(merge_image, predictions, valid_sizes, output_size)


def _check(merge: str, is_thing: Sequence[bool], class_logits: tf.Tensor) -> int:
    """Refuses what cannot be merged; returns the number of centers.

    Raises:
      InputError: `merge` is unknown, `is_thing` does not fit the class logits, or
        there are more centers than instance numbers.
    """
    if merge not in ("MASK_WISE", "PIXEL_WISE"):
        raise InputError(f"merge must be MASK_WISE or PIXEL_WISE; got {merge}")
    num_centers, num_channels = class_logits.shape[1:]
    if len(is_thing) + 1 != num_channels:
        raise InputError(
            "is_thing must name every class of class_logits but void: "
            f"{num_channels - 1} classes; got {len(is_thing)}"
        )
    if num_centers >= LABEL_DIVISOR:
        raise InputError(
            "merging needs fewer centers than the label divisor, so that each can be "
            f"an instance number; got {num_centers} and {LABEL_DIVISOR}"
        )
    return num_centers


def _map_images(
    function: Callable[[tuple[tf.Tensor, ...]], PanopticSegmentation],
    predictions: Predictions,
    valid_sizes: tf.Tensor | None,
    output_size: tuple[int, int],
) -> PanopticSegmentation:
    """Applies a function of (mask logits, class logits[, valid size]) to each image."""
    images = [
        tf.cast(predictions.mask_logits, tf.float32),
        tf.cast(predictions.class_logits, tf.float32),
    ]
    if valid_sizes is not None:
        images.append(tf.cast(valid_sizes, tf.int32))
    num_centers = predictions.class_logits.shape[1]
    return tf.map_fn(
        function,
        tuple(images),
        fn_output_signature=PanopticSegmentation(
            tf.TensorSpec(output_size, tf.int32),
            tf.TensorSpec([num_centers], tf.int32),
            tf.TensorSpec([num_centers], tf.float32),
        ),
        parallel_iterations=1,
    )


def describe_centers(
    class_logits: tf.Tensor, is_thing: Sequence[bool], least: Sequence[float]
) -> _Centers:
    """Step 1: the most likely class but void of each center, and whether it is live.

    Args:
      class_logits: [N, C + 1], void last.
      is_thing: [C + 1], of class 0 (void) to C.
      least: [C + 1], least probability of a live center, inclusive.
    """
    class_probs = tf.nn.softmax(class_logits, axis=-1)[:, :-1]
    class_id = tf.argmax(class_probs, axis=-1, output_type=tf.int32) + 1
    confidence = tf.reduce_max(class_probs, axis=-1)
    return _Centers(
        confidence=confidence,
        class_id=class_id,
        is_thing=tf.gather(tf.constant(is_thing), class_id),
        is_live=confidence >= tf.gather(tf.constant(least, tf.float32), class_id),
    )


def _assign_mask_wise(
    mask_logits: tf.Tensor,
    centers: _Centers,
    valid: tf.Tensor,
    pixel_confidence: float,
    *,
    free_share: float,
    class_power: float,
    mask_power: float,
) -> tuple[tf.Tensor, _Live]:
    """Gives pixels to whole masks; returns owner [H, W] (-1: none), live centers."""
    mask_score = mean_mask_probability(mask_logits, pixel_confidence)
    score = centers.confidence**class_power * mask_score**mask_power
    order = tf.argsort(score, direction="DESCENDING", stable=True)
    # The rank is among all centers, live or not.
    rank = tf.where(tf.gather(centers.is_live, order))[:, 0]
    center = tf.gather(order, rank)
    live = _Live(
        class_id=tf.gather(centers.class_id, center),
        is_thing=tf.gather(centers.is_thing, center),
        instance=tf.cast(rank, tf.int32) + 1,
        score=tf.gather(score, center),
    )
    masks = binary_masks(mask_logits, center, valid.shape, pixel_confidence)
    return tf.where(valid, paste(masks, free_share), -1), live


def mean_mask_probability(mask_logits: tf.Tensor, pixel_confidence: float) -> tf.Tensor:
    """Mask-wise step 2: [h, w, N] -> [N], mean probability of a mask's own pixels.

    Its own are those where its probability is above `pixel_confidence`, at the low
    resolution; 0 where there are none.
    """
    mask_probs = tf.nn.softmax(mask_logits, axis=-1)
    own = tf.cast(mask_probs > pixel_confidence, tf.float32)
    return tf.math.divide_no_nan(
        tf.reduce_sum(mask_probs * own, axis=[0, 1]), tf.reduce_sum(own, axis=[0, 1])
    )


def binary_masks(
    mask_logits: tf.Tensor,
    center: tf.Tensor,
    output_size: tuple[int, int],
    pixel_confidence: float,
) -> tf.Tensor:
    """Mask-wise step 4: masks of the given centers, [L, H, W] bool."""

    num_live = tf.size(center)

    def strip(logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(logits, axis=-1)[..., :num_live] > pixel_confidence

    masks = map_upsampled_strips(
        strip,
        (live_first(mask_logits, center),),
        output_size,
        tf.TensorSpec([None], tf.bool),
    )
    return tf.transpose(masks, [2, 0, 1])


def paste(masks: tf.Tensor, free_share: float) -> tf.Tensor:
    """Mask-wise step 5: pastes [L, H, W] in turn; owner [H, W] int32, -1: none."""

    def area(mask: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(mask, tf.float32))  # Exact up to 2^24 pixels.

    def step(index: tf.Tensor, owner: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mask = tf.gather(masks, index)
        free = mask & (owner == 0)
        pasted = free & (area(free) > free_share * area(mask))
        # A product takes half the time of a choice.
        number = tf.cast(index + 1, tf.uint8)
        return index + 1, owner + tf.cast(pasted, tf.uint8) * number

    num_masks = tf.shape(masks)[0]
    # A byte: there are fewer centers than LABEL_DIVISOR, 256. 0: none.
    _, owner = tf.while_loop(
        lambda index, _: index < num_masks,
        step,
        (tf.constant(0), tf.zeros(tf.shape(masks)[1:], tf.uint8)),
    )
    return tf.cast(owner, tf.int32) - 1


def _assign_pixel_wise(
    mask_logits: tf.Tensor,
    centers: _Centers,
    valid: tf.Tensor,
    pixel_confidence: float,
) -> tuple[tf.Tensor, _Live]:
    """Gives each pixel to a mask; returns owner [H, W] (-1: none), live centers."""
    center = tf.cast(tf.where(centers.is_live)[:, 0], tf.int32)
    owner, probability = most_likely_masks(
        mask_logits, center, valid.shape, pixel_confidence
    )
    owner = tf.where(valid, owner, -1)
    mean_probability = tf.math.unsorted_segment_mean(
        probability, owner, num_segments=tf.size(center)
    )
    live = _Live(
        class_id=tf.gather(centers.class_id, center),
        is_thing=tf.gather(centers.is_thing, center),
        instance=center + 1,
        score=tf.gather(centers.confidence, center) * mean_probability,
    )
    return owner, live


def most_likely_masks(
    mask_logits: tf.Tensor,
    center: tf.Tensor,
    output_size: tuple[int, int],
    pixel_confidence: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pixel-wise steps 2 to 5: which live center owns a pixel, how probably.

    The probability is among the live centers; a pixel where a center that is not live
    has a larger logit than all live ones belongs to none and is not handed to the
    runner-up.

    Returns:
      [H, W] int32, index in `center` or -1; [H, W] float32 in [0, 1].
    """
    # Without a live center arg-max would have nothing to choose from.
    lowest = tf.fill([*tf.unstack(tf.shape(mask_logits)[:2]), 1], tf.float32.min)
    live = tf.concat([tf.gather(mask_logits, center, axis=-1), lowest], axis=-1)

    def strip(live: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        owner = tf.argmax(live, axis=-1, output_type=tf.int32)
        best = tf.reduce_max(live, axis=-1, keepdims=True)
        probability = 1 / tf.reduce_sum(tf.exp(live - best), axis=-1)
        won_by_live = best[..., 0] >= tf.reduce_max(logits, axis=-1)
        is_confident = (probability > pixel_confidence) & won_by_live
        return tf.where(is_confident, owner, -1), probability

    signature = (tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float32))
    parts = live, mask_logits
    return map_upsampled_strips(strip, parts, output_size, signature)


def live_first(mask_logits: tf.Tensor, center: tf.Tensor) -> tf.Tensor:
    """Moves the given centers, [L] int32, to the front of [h, w, N].

    To take single channels out is slow, and there are fewer pixels here than later.
    """
    number = tf.range(mask_logits.shape[-1])[:, tf.newaxis]
    others = tf.where(tf.reduce_all(number != center, axis=1))[:, 0]
    order = tf.concat([center, tf.cast(others, tf.int32)], axis=0)
    # Sooner done with whole masks than with every pixel.
    masks = tf.gather(tf.transpose(mask_logits, [2, 0, 1]), order)
    return tf.transpose(masks, [1, 2, 0])


def drop_small_segments(
    owner: tf.Tensor,
    live: _Live,
    *,
    min_thing_area_pixels: int,
    min_stuff_area_pixels: int,
    num_entries: int,
) -> PanopticSegmentation:
    """Last steps: a value for each pixel, small segments to void; without batch axis.

    Args:
      owner: [H, W] int32, index in `live` or -1.
      live: the live centers; those of one stuff class become one segment.
      min_thing_area_pixels: least area of a thing.
      min_stuff_area_pixels: least area of all pixels of a stuff class.
      num_entries: length of segment_ids and scores, at least L.
    """
    value = live.class_id * LABEL_DIVISOR + tf.where(live.is_thing, live.instance, 0)
    # Not a bincount, which other runtimes lack.
    ones, count = tf.ones_like(owner), tf.size(value) + 1
    area = tf.math.unsorted_segment_sum(ones, owner + 1, count)[1:]
    same = (value[:, tf.newaxis] == value) & (area > 0)  # [L, L]
    segment_area = tf.reduce_sum(tf.where(same, area, 0), axis=1)
    segment_score = tf.reduce_max(tf.where(same, live.score, 0.0), axis=1)
    least = tf.where(live.is_thing, min_thing_area_pixels, min_stuff_area_pixels)
    is_kept = segment_area >= least
    kept_value = tf.where(is_kept, value, 0)
    panoptic = tf.gather(tf.concat([[0], kept_value], axis=0), owner + 1)

    index = tf.range(tf.size(value))
    is_later_member = tf.reduce_any(same & (index < index[:, tf.newaxis]), axis=1)
    listed = is_kept & (area > 0) & ~is_later_member
    ids, scores = tf.boolean_mask(value, listed), tf.boolean_mask(segment_score, listed)
    order = tf.argsort(scores, direction="DESCENDING", stable=True)
    padding = [[0, num_entries - tf.size(ids)]]
    return PanopticSegmentation(
        panoptic,
        tf.ensure_shape(tf.pad(tf.gather(ids, order), padding), [num_entries]),
        tf.ensure_shape(tf.pad(tf.gather(scores, order), padding), [num_entries]),
    )


def _inside(
    valid_size: Sequence[int] | tf.Tensor, output_size: tuple[int, int]
) -> tf.Tensor:
    """[H, W] bool, true in the top left `valid_size` (height, width) pixels."""
    rows, columns = (tf.range(size) for size in output_size)
    return (rows < valid_size[0])[:, tf.newaxis] & (columns < valid_size[1])
