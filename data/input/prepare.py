"""The number of an image in a run -> what the network gets of this image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cmt.data.input import preprocess
from cmt.data.input.augment import (
    Augmentation,
    View,
    draw_view,
    window_of_image,
    window_of_labels,
)
from cmt.data.input.colour import ColorJitter, Policy, change_colors
from cmt.data.input.copy_paste import PASTED_DIVISOR, CopyPaste, paste
from cmt.data.input.targets import Masks, number_masks
from cmt.data.records.reader import ReadExample

_fold = tf.random.experimental.stateless_fold_in

# What the random numbers of an image are for.
_VIEW, _COLORS, _WHETHER_TO_PASTE, _PARTNER, _PASTE, _PASTED_COLORS = range(6)


class Changes(NamedTuple):
    """The random changes of training images: of geometry, colours and segments."""

    augmentation: Augmentation = Augmentation()
    jitter: ColorJitter = ColorJitter()
    policy: Policy = Policy()
    copy_paste: CopyPaste = CopyPaste()


class Options(NamedTuple):
    """What becomes of the records of a split; see `DataConfig` of data.proto.

    `crop_size` is the height and width of what the network sees, in pixels.
    """

    crop_size: tuple[int, int]
    max_masks: int
    min_thing_pixels: int = 0
    changes: Changes = Changes()
    parallel_calls: int = 0
    prefetch_batches: int = 2
    cache_records: bool = False
    skip_damaged_records: bool = False
    snapshot_folder: str = ""
    service: str = ""


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Reads and changes one image; the result depends on number and seed alone.

    Attributes:
      read: reads one of `num_records` records, from `reader.example_reader`.
      is_thing: whether class 1..C is a thing.
      shares: how likely each label is pasted; see `copy_paste.paste_shares`.
      options: sizes of the results, and the random changes.
      seed: of order and changes.
    """

    read: ReadExample
    num_records: int
    is_thing: Sequence[bool]
    shares: np.ndarray
    options: Options
    seed: int

    # Nothing below branches on tensors in Python, and converting it takes seconds.
    @tf.autograph.experimental.do_not_convert
    def __call__(self, number: tf.Tensor) -> tuple[tf.Tensor, Masks, tf.Tensor]:
        """Prepares the image of a number in the run, [] int64.

        Returns:
          The image [crop height, crop width, 3] float32, 0 to 255, its masks, and []
          int64, the record that it is from: another one where that was damaged.
        """
        changes, crop_size = self.options.changes, self.options.crop_size
        example = self.read(record_of(number, self.seed, self.num_records))
        seed = tf.stack([tf.constant(self.seed, tf.int64), number])
        view = draw_view(
            tf.shape(example.labels),
            seed=_fold(seed, _VIEW),
            crop_size=crop_size,
            augmentation=changes.augmentation,
        )
        window = window_of_image(example.image, view)
        window = self._colored(window, _fold(seed, _COLORS))
        image = preprocess.resize_image(window, view.size)
        image = preprocess.pad_image(image, crop_size)
        labels = window_of_labels(example.labels, view)
        if not changes.copy_paste.probability:
            return image, self._number_growing(labels, view), example.record
        draw = tf.random.stateless_uniform([], _fold(seed, _WHETHER_TO_PASTE))
        image, masks = tf.cond(
            draw < changes.copy_paste.probability,
            lambda: self._pasted(image, labels, view, seed),
            lambda: (image, self._number_growing(labels, view)),
        )
        return image, masks, example.record

    def _colored(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        changes = self.options.changes
        return change_colors(
            image, seed=seed, jitter=changes.jitter, policy=changes.policy
        )

    def _number_growing(self, labels: tf.Tensor, view: View) -> Masks:
        """Numbers the masks of labels that have yet to grow to the view's size."""
        # Growing repeats pixels: masks and their order stay, and before it there are
        # fewer pixels. Counts are scaled to what they will be.
        growth = tf.cast(tf.reduce_prod(view.size) / tf.size(labels), tf.float32)
        masks = number_masks(
            labels,
            is_thing=self.is_thing,
            max_masks=self.options.max_masks,
            min_thing_pixels=self.options.min_thing_pixels / growth,
        )
        pixels = preprocess.resize_labels(masks.pixels, view.size)
        pixels = preprocess.pad_labels(pixels, self.options.crop_size)
        return masks._replace(pixels=pixels)

    def _pasted(
        self, image: tf.Tensor, labels: tf.Tensor, view: View, seed: tf.Tensor
    ) -> tuple[tf.Tensor, Masks]:
        """Puts segments of another image of the split on top."""
        changes, crop_size = self.options.changes, self.options.crop_size
        number = tf.random.stateless_uniform(
            [], _fold(seed, _PARTNER), maxval=self.num_records, dtype=tf.int64
        )
        partner = self.read(number)
        labels = preprocess.resize_labels(labels, view.size)
        image, labels = paste(
            image,
            preprocess.pad_labels(labels, crop_size),
            self._colored(partner.image, _fold(seed, _PASTED_COLORS)),
            partner.labels,
            seed=_fold(seed, _PASTE),
            shares=self.shares,
            scales=(changes.copy_paste.min_scale, changes.copy_paste.max_scale),
            flip_probability=changes.augmentation.flip_probability,
        )
        masks = number_masks(
            labels,
            is_thing=self.is_thing,
            max_masks=self.options.max_masks,
            min_thing_pixels=self.options.min_thing_pixels,
            divisor=PASTED_DIVISOR,
        )
        pixels = tf.ensure_shape(masks.pixels, crop_size)
        return image, masks._replace(pixels=pixels)


def record_of(number: tf.Tensor, seed: int, num_records: int) -> tf.Tensor:
    """The record of an image of a run; each epoch has an order of its own."""
    if num_records == 1:
        return tf.zeros([], tf.int64)
    return tf.random.experimental.index_shuffle(
        number % num_records,
        seed=tf.stack([tf.constant(seed, tf.int64), number // num_records]),
        max_index=num_records - 1,
    )
