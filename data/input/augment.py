"""Random scale, crop and flip, without hidden state.

What is drawn depends on a seed given with the image alone, so that a continued run
sees the same images as one that was never interrupted. The crop is drawn first and
only what it shows is resized.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from cmt.data.input import preprocess


class Augmentation(NamedTuple):
    """Ranges to draw from; `AugmentationConfig` of data.proto explains the fields.

    By default nothing is changed.
    """

    min_scale: float = 1.0
    max_scale: float = 1.0
    scale_step: float = 0.0
    flip_probability: float = 0.0


class View(NamedTuple):
    """What is seen of an image, and how large.

    Attributes:
      start, extent: [2] int32, first row and column of the window, and its size, in
        pixels of the image.
      size: [2] int32, height and width it is resized to, at most the crop's.
      flipped: [] bool, left and right change places.
    """

    start: tf.Tensor
    extent: tf.Tensor
    size: tf.Tensor
    flipped: tf.Tensor


def draw_view(
    image_size: tf.Tensor,
    *,
    seed: tf.Tensor,
    crop_size: tuple[int, int],
    augmentation: Augmentation,
) -> View:
    """Draws scale, crop and flip, in the ranges of the augmentation.

    The size is that of the evaluation's resize times the scale. Of what is larger
    than the crop, a random window is seen, of whole pixels of the image, so that the
    scale can differ from the drawn one by less than a pixel of the window. Sizes are
    [2] int32, height and width in pixels; `seed` is [2] int64.
    """
    draws = tf.random.stateless_uniform([4], seed=seed)
    fitted = preprocess.resized_size(image_size, crop_size)
    scaled = tf.cast(fitted, tf.float32) * _scale(draws[0], augmentation)
    scaled = tf.maximum(tf.cast(tf.round(scaled), tf.int32), 1)
    size = tf.minimum(scaled, crop_size)

    # Corners of the window lie on pixels, so one less of both counts.
    share = (size - 1) / tf.maximum(scaled - 1, 1)
    steps = tf.round(share * tf.cast(image_size - 1, tf.float64))
    extent = tf.where(size < scaled, tf.cast(steps, tf.int32) + 1, image_size)
    room = tf.cast(image_size - extent + 1, tf.float32)
    start = tf.cast(tf.floor(draws[1:3] * room), tf.int32)
    return View(
        start=tf.minimum(start, image_size - extent),
        extent=extent,
        size=size,
        flipped=draws[3] < augmentation.flip_probability,
    )


def _scale(draw: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """The scale for a number drawn from [0, 1)."""
    low, high, step = augmentation[:3]
    if step == 0 or high == low:
        return low + draw * (high - low)
    # The small number keeps the last step where (high - low) / step rounds down.
    num_steps = math.floor((high - low) / step + 1e-6) + 1
    return low + step * tf.floor(draw * num_steps)


def window_of_image(image: tf.Tensor, view: View) -> tf.Tensor:
    """The window, flipped but not resized: [h, w, 3] of the image's type."""
    begin, end = view.start, view.start + view.extent
    window = image[begin[0] : end[0], begin[1] : end[1]]
    return tf.cond(view.flipped, lambda: tf.reverse(window, [1]), lambda: window)


def window_of_labels(labels: tf.Tensor, view: View) -> tf.Tensor:
    """The window, flipped, and resized where that makes it smaller: [h, w].

    What is left is to repeat pixels, by `preprocess.resize_labels` to `view.size`.
    """
    begin, end = view.start, view.start + view.extent
    window = labels[begin[0] : end[0], begin[1] : end[1]]
    size = tf.minimum(view.extent, view.size)
    return preprocess.resize_labels(window, size, flipped=view.flipped)
