"""Random changes of colour: jitter, and a policy of random operations.

They change no geometry, so labels stay as they are. What is drawn depends on a seed
given with the image alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

# Weights of red, green and blue in brightness (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)
_MAX_MAGNITUDE = 10.0
_fold = tf.random.experimental.stateless_fold_in


class ColorJitter(NamedTuple):
    """How far colours may go; `ColorJitterConfig` of data.proto explains the fields."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0


class Policy(NamedTuple):
    """Random operations; `PolicyConfig` of data.proto explains the fields."""

    num_operations: int = 0
    magnitude: float = 5.0


def change_colors(
    image: tf.Tensor, *, seed: tf.Tensor, jitter: ColorJitter, policy: Policy
) -> tf.Tensor:
    """Applies the policy, then the jitter.

    Args:
      image: [H, W, 3] uint8, 0 to 255.
      seed: [2] int64.

    Returns:
      [H, W, 3] float32, 0 to 255; uint8 as it came where nothing is changed.
    """
    if not any(jitter) and not policy.num_operations:
        return image
    image = tf.cast(image, tf.float32)
    for number in range(policy.num_operations):
        strength = policy.magnitude / _MAX_MAGNITUDE
        image = _random_operation(image, _fold(seed, number), strength)
    if any(jitter):
        image = _jitter(image, _fold(seed, policy.num_operations), jitter)
    return image


def _jitter(image: tf.Tensor, seed: tf.Tensor, jitter: ColorJitter) -> tf.Tensor:
    """All four changes are linear in a pixel, so they are one 3 x 3 product."""
    draws = tf.random.stateless_uniform([4], seed, -1.0, 1.0) * tf.constant([*jitter])
    brightness, contrast, saturation = tf.unstack(1.0 + draws[:3])
    grey = tf.ones([3, 1]) * tf.constant([_LUMA])  # rows: red, green, blue
    mixing = saturation * tf.eye(3) + (1.0 - saturation) * grey
    mixing = brightness * contrast * tf.matmul(_hue_rotation(draws[3]), mixing)
    mean = tf.tensordot(tf.reduce_mean(image, [0, 1]), tf.constant(_LUMA), 1)
    shift = brightness * (1.0 - contrast) * mean
    flat = tf.matmul(tf.reshape(image, [-1, 3]), mixing, transpose_b=True) + shift
    return tf.reshape(tf.clip_by_value(flat, 0.0, 255.0), tf.shape(image))


def _hue_rotation(turns: tf.Tensor) -> tf.Tensor:
    """[3, 3]: rotation about the grey axis, which stays where it is (Rodrigues)."""
    angle = turns * (2 * 3.141592653589793)
    cross = tf.constant([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3.0**0.5
    along = tf.fill([3, 3], 1.0 / 3.0)
    cosine = tf.cos(angle)
    return cosine * tf.eye(3) + tf.sin(angle) * cross + (1.0 - cosine) * along


def _random_operation(image: tf.Tensor, seed: tf.Tensor, strength: float) -> tf.Tensor:
    """Draws one of the operations, and whether it strengthens or weakens."""
    sign = 2.0 * tf.round(tf.random.stateless_uniform([], _fold(seed, 1))) - 1.0
    operations = _operations(image, 1.0 + 0.9 * strength * sign, strength)
    choice = tf.random.stateless_uniform([], seed, 0, len(operations), tf.int32)
    changed = tf.switch_case(choice, list(operations.values()))
    return tf.clip_by_value(changed, 0.0, 255.0)


def _operations(
    image: tf.Tensor, factor: tf.Tensor, strength: float
) -> dict[str, Callable[[], tf.Tensor]]:
    """What each makes of an image; `factor` is of the distance to its base."""

    def from_base(base: tf.Tensor) -> tf.Tensor:
        return base + (image - base) * factor

    step = 2.0 ** round(4 * strength)
    light = 256.0 * (1.0 - strength)
    return {
        "brightness": lambda: image * factor,
        "contrast": lambda: from_base(tf.reduce_mean(_grey(image))),
        "saturation": lambda: from_base(_grey(image)),
        "sharpness": lambda: from_base(_smooth(image)),
        "auto_contrast": lambda: _auto_contrast(image),
        "equalize": lambda: _equalize(image),
        "posterize": lambda: tf.floor(image / step) * step,
        "solarize": lambda: tf.where(image < light, image, 255.0 - image),
    }


def _grey(image: tf.Tensor) -> tf.Tensor:
    return tf.tensordot(image, tf.constant(_LUMA), 1)[..., tf.newaxis]


def _smooth(image: tf.Tensor) -> tf.Tensor:
    """The mean of 3 x 3 pixels, the middle one five times; mirrored at the border."""
    weights = tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13.0
    filters = tf.tile(weights[:, :, tf.newaxis, tf.newaxis], [1, 1, 3, 1])
    padded = tf.pad(image, [[1, 1], [1, 1], [0, 0]], "SYMMETRIC")[tf.newaxis]
    return tf.nn.depthwise_conv2d(padded, filters, [1, 1, 1, 1], "VALID")[0]


def _auto_contrast(image: tf.Tensor) -> tf.Tensor:
    low = tf.reduce_min(image, [0, 1])
    high = tf.reduce_max(image, [0, 1])
    stretched = (image - low) * (255.0 / tf.maximum(high - low, 1.0))
    return tf.where(high > low, stretched, image)


def _equalize(image: tf.Tensor) -> tf.Tensor:
    """Makes every value of a channel about equally frequent."""
    values = tf.cast(tf.round(image), tf.int32)
    places = values + tf.constant([0, 256, 512])
    counts = tf.math.bincount(tf.reshape(places, [-1]), minlength=768, maxlength=768)
    shares = tf.cumsum(tf.reshape(tf.cast(counts, tf.float32), [3, 256]), axis=1)
    present = tf.where(shares > 0, shares, shares[:, -1:])
    lowest = tf.reduce_min(present, axis=1, keepdims=True)
    room = shares[:, -1:] - lowest
    spread = (shares - lowest) * 255.0 / tf.maximum(room, 1.0)
    table = tf.where(room > 0, spread, tf.range(256.0))
    return tf.gather(tf.reshape(table, [-1]), places)
