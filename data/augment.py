"""Random scale, crop and flip, without hidden state.

What is drawn depends on a seed given with the image alone, so that a continued run
sees the same images as one that was never interrupted.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from cmt.data import preprocess


class Augmentation(NamedTuple):
    """Ranges to draw from.

    Attributes:
      min_scale: smallest scale, on top of the resize to the crop.
      max_scale: largest scale.
      scale_step: step between scales; 0 draws from the whole range.
      flip_probability: of a left-right flip.
    """

    min_scale: float
    max_scale: float
    scale_step: float
    flip_probability: float


def augment(
    image: tf.Tensor,
    labels: tf.Tensor,
    *,
    seed: tf.Tensor,
    crop_size: tuple[int, int],
    augmentation: Augmentation,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scales, crops, flips and pads one image and its labels.

    The image is resized once, to the size of the evaluation's resize times the
    scale. What is larger than the crop is cropped at random; what is smaller is
    padded at the bottom and right, as in evaluation.

    Args:
      image: [H, W, 3] uint8 or float, 0 to 255.
      labels: [H, W] int32.
      seed: [2] int64.
      crop_size: height and width of the results, in pixels.
      augmentation: the ranges.

    Returns:
      [crop height, crop width, 3] float32 and [crop height, crop width] int32.
    """
    draws = tf.random.stateless_uniform([4], seed=seed)
    fitted = preprocess.resized_size(tf.shape(labels), crop_size)
    scaled = tf.round(tf.cast(fitted, tf.float32) * _scale(draws[0], augmentation))
    size = tf.maximum(tf.cast(scaled, tf.int32), 1)

    kept = tf.minimum(size, crop_size)
    room = tf.cast(size - kept + 1, tf.float32)
    start = tf.minimum(tf.cast(tf.floor(draws[1:3] * room), tf.int32), size - kept)
    stop = start + kept
    image = preprocess.resize_image(image, size)
    labels = preprocess.resize_labels(labels, size)
    image = image[start[0] : stop[0], start[1] : stop[1]]
    labels = labels[start[0] : stop[0], start[1] : stop[1]]

    image, labels = tf.cond(
        draws[3] < augmentation.flip_probability,
        lambda: (image[:, ::-1], labels[:, ::-1]),
        lambda: (image, labels),
    )
    return (
        preprocess.pad_image(image, crop_size),
        preprocess.pad_labels(labels, crop_size),
    )


def _scale(draw: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """The scale for a number drawn from [0, 1)."""
    low, high, step = augmentation[:3]
    if step == 0 or high == low:
        return low + draw * (high - low)
    # The small number keeps the last step where (high - low) / step rounds down.
    num_steps = math.floor((high - low) / step + 1e-6) + 1
    return low + step * tf.floor(draw * num_steps)
