"""Panoptic copy-paste: segments of another image on top of one.

After Shin et al., "kMaX-DeepLab" (ECCV 2022), section 4, and Ghiasi et al., "Simple
Copy-Paste" (CVPR 2021), section 3: the other image gets a scale, crop and flip of its
own, and some of its things and stuff cover what was there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cmt.data.input import augment, preprocess
from cmt.data.panoptic.categories import Category
from cmt.errors import InputError
from cmt.labels import LABEL_DIVISOR

# Labels with pasted segments leave room for the instances of two images.
PASTED_DIVISOR = 2 * LABEL_DIVISOR


class CopyPaste(NamedTuple):
    """What is pasted; `CopyPasteConfig` of data.proto explains the fields."""

    probability: float = 0.0
    min_scale: float = 0.5
    max_scale: float = 1.0
    thing_probability: float = 0.5
    stuff_probability: float = 0.0
    things: str = ""
    stuff: str = ""


def paste_shares(options: CopyPaste, categories: Sequence[Category]) -> np.ndarray:
    """[(C + 1) * 256] float32: how likely the pixels of each label are pasted.

    Void and crowd (things without instance) never are.

    Raises:
      InputError: a category is not in the data set, or of the other kind.
    """
    shares = np.zeros([len(categories) + 1, LABEL_DIVISOR], np.float32)
    things = _chosen(options.things, categories, True)
    stuff = _chosen(options.stuff, categories, False)
    for number, category in enumerate(categories, start=1):
        if category.id in things:
            shares[number, 1:] = options.thing_probability
        elif category.id in stuff:
            shares[number] = options.stuff_probability
    return shares.reshape(-1)


def _chosen(text: str, categories: Sequence[Category], is_thing: bool) -> set[int]:
    """Ids of the categories that a list of names and ids means."""
    candidates = [c for c in categories if c.is_thing == is_thing]
    if not text.strip():
        return {category.id for category in candidates}
    by_name = {_evened(c.name): c.id for c in candidates}
    by_name |= {str(c.id): c.id for c in candidates}
    wanted, rest = set(), _evened(text)
    while rest:
        # Names may hold commas themselves.
        fitting = [name for name in by_name if f"{rest},".startswith(f"{name},")]
        if not fitting:
            field = "things" if is_thing else "stuff"
            known = "; ".join(category.name.strip() for category in candidates[:5])
            raise InputError(
                f"data.augmentation.copy_paste.{field}: must hold names or ids of "
                f"categories of the data set, such as {known}; got "
                f"{rest.partition(',')[0].strip()!r}"
            )
        name = max(fitting, key=len)
        wanted.add(by_name[name])
        rest = rest[len(name) :].lstrip(",")
    return wanted


def _evened(text: str) -> str:
    """Without spaces around commas, or commas and spaces around the whole."""
    return re.sub(r"\s*,\s*", ",", text).strip(" ,")


def paste(
    image: tf.Tensor,
    labels: tf.Tensor,
    other_image: tf.Tensor,
    other_labels: tf.Tensor,
    *,
    seed: tf.Tensor,
    shares: np.ndarray,
    scales: tuple[float, float],
    flip_probability: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pastes segments of another image.

    Args:
      image, labels: [h, w, 3] float32, 0 to 255; [h, w] int32, class * 256 + instance.
      other_image, other_labels: the same of [H, W] pixels.
      seed: [2] int64.
      shares: see `paste_shares`.
      scales, flip_probability: smallest and largest scale, and flip, of the other.

    Returns:
      [h, w, 3] float32, and [h, w] int32, class * `PASTED_DIVISOR` + instance. No
      instance of one image has the label of one of the other.
    """
    crop_size = tuple(image.shape[:2])
    fold_in = tf.random.experimental.stateless_fold_in
    view = augment.draw_view(
        tf.shape(other_labels),
        seed=fold_in(seed, 0),
        crop_size=crop_size,
        augmentation=augment.Augmentation(*scales, 0.0, flip_probability),
    )
    other_image = augment.window_of_image(other_image, view)
    other_image = preprocess.resize_image(other_image, view.size)
    other_labels = augment.window_of_labels(other_labels, view)
    other_labels = preprocess.resize_labels(other_labels, view.size)
    # A label is pasted with all its pixels or not at all.
    kept = tf.random.stateless_uniform([len(shares)], fold_in(seed, 1)) < shares
    covered = tf.gather(kept, other_labels)

    room = tf.cast(crop_size - view.size + 1, tf.float32)
    place = tf.cast(tf.random.stateless_uniform([2], fold_in(seed, 2)) * room, tf.int32)
    place = tf.minimum(place, crop_size - view.size)
    before_after = tf.stack([place, crop_size - view.size - place], axis=1)
    covered = tf.pad(covered, before_after)
    other_image = tf.pad(other_image, tf.pad(before_after, [[0, 1], [0, 0]]))
    other_labels = tf.pad(other_labels, before_after)

    # Instances of the other image get numbers that the image has none of.
    added = tf.where(other_labels % LABEL_DIVISOR > 0, LABEL_DIVISOR, 0)
    image = tf.where(covered[..., tf.newaxis], other_image, image)
    return image, tf.where(covered, widened(other_labels) + added, widened(labels))


def widened(labels: tf.Tensor) -> tf.Tensor:
    """Labels with `LABEL_DIVISOR` as labels with `PASTED_DIVISOR`."""
    return labels // LABEL_DIVISOR * LABEL_DIVISOR + labels
