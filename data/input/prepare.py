"""Number of an image in a run -> what the network gets: all that is per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
from cmt.data.input.copy_paste import (
    PASTED_DIVISOR,
    CopyPaste,
    paste,
    paste_shares,
)
from cmt.data.input.targets import Masks, number_masks
from cmt.data.panoptic.categories import Category
from cmt.data.records.reader import ReadExample
from cmt.data.records.tfrecord import Example

# What the random numbers of an image are for.
_VIEW, _COLORS, _WHETHER_TO_PASTE, _PARTNER, _PASTE, _PASTED_COLORS = range(6)


class Changes(NamedTuple):
    """The random changes of training images.

    Attributes:
      augmentation: scale, crop and flip.
      jitter: of colours.
      policy: operations on colours.
      copy_paste: segments of other images.
    """

    augmentation: Augmentation
    jitter: ColorJitter = ColorJitter()
    policy: Policy = Policy()
    copy_paste: CopyPaste = CopyPaste()


class Sizes(NamedTuple):
    """Of what the network gets.

    Attributes:
      crop: height and width of an image, in pixels.
      max_masks: G of `Targets`.
      min_thing_pixels: things of fewer pixels, in the image as the network sees it,
        become void.
    """

    crop: tuple[int, int]
    max_masks: int
    min_thing_pixels: int = 0


class Preparation:
    """Reads and changes one image.

    Called with the number [] int64 of an image in a run, it returns the image
    [crop height, crop width, 3] float32, 0 to 255, and its Masks. The result depends
    on the number and the seed alone.
    """

    def __init__(
        self,
        read: ReadExample,
        *,
        num_records: int,
        categories: Sequence[Category],
        sizes: Sizes,
        changes: Changes,
        seed: int,
    ):
        """Checks the categories to paste.

        Args:
          read: see `reader.example_reader`.
          num_records: records there are.
          categories: the classes of the labels.
          sizes: of the results.
          changes: the random changes.
          seed: of order and changes.

        Raises:
          InputError: a category to paste is unknown.
        """
        self._read = read
        self._num_records = num_records
        self._is_thing = [category.is_thing for category in categories]
        self._sizes = sizes
        self._changes = changes
        self._seed = seed
        self._shares = paste_shares(changes.copy_paste, categories)

    # Nothing below branches on tensors in Python, and converting it takes seconds.
    @tf.autograph.experimental.do_not_convert
    def __call__(self, number: tf.Tensor) -> tuple[tf.Tensor, Masks]:
        """Returns the image and its masks."""
        example = self._read(record_of(number, self._seed, self._num_records))
        seed = tf.stack([tf.constant(self._seed, tf.int64), number])
        image, labels, view = self._see(example, seed)
        probability = self._changes.copy_paste.probability
        if not probability:
            return image, self._number_growing(labels, view)
        draw = tf.random.stateless_uniform([], _fold(seed, _WHETHER_TO_PASTE))
        return tf.cond(
            draw < probability,
            lambda: self._pasted(image, labels, view, seed),
            lambda: (image, self._number_growing(labels, view)),
        )

    def _see(
        self, example: Example, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, View]:
        """The padded image; the labels of its window, see `window_of_labels`."""
        view = draw_view(
            tf.shape(example.labels),
            seed=_fold(seed, _VIEW),
            crop_size=self._sizes.crop,
            augmentation=self._changes.augmentation,
        )
        window = self._colored(
            window_of_image(example.image, view), _fold(seed, _COLORS)
        )
        image = preprocess.resize_image(window, view.size)
        labels = window_of_labels(example.labels, view)
        return preprocess.pad_image(image, self._sizes.crop), labels, view

    def _colored(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        changes = self._changes
        return change_colors(
            image, seed=seed, jitter=changes.jitter, policy=changes.policy
        )

    def _number_growing(self, labels: tf.Tensor, view: View) -> Masks:
        """Numbers the masks of labels that have yet to grow to the view's size.

        Growing repeats pixels: it changes neither which masks there are nor their
        order, and before it there are fewer pixels. Counts are scaled to what they
        will be.
        """
        growth = tf.reduce_prod(view.size) / tf.size(labels)
        masks = number_masks(
            labels,
            is_thing=self._is_thing,
            max_masks=self._sizes.max_masks,
            min_thing_pixels=self._sizes.min_thing_pixels / tf.cast(growth, tf.float32),
        )
        pixels = preprocess.resize_labels(masks.pixels, view.size)
        pixels = preprocess.pad_labels(pixels, self._sizes.crop)
        return masks._replace(pixels=pixels)

    def _pasted(
        self, image: tf.Tensor, labels: tf.Tensor, view: View, seed: tf.Tensor
    ) -> tuple[tf.Tensor, Masks]:
        """The image with segments of another of the split on top."""
        options = self._changes.copy_paste
        partner = self._read(
            tf.random.stateless_uniform(
                [], _fold(seed, _PARTNER), maxval=self._num_records, dtype=tf.int64
            )
        )
        labels = preprocess.resize_labels(labels, view.size)
        image, labels = paste(
            image,
            preprocess.pad_labels(labels, self._sizes.crop),
            self._colored(partner.image, _fold(seed, _PASTED_COLORS)),
            partner.labels,
            seed=_fold(seed, _PASTE),
            shares=self._shares,
            scales=(options.min_scale, options.max_scale),
            flip_probability=self._changes.augmentation.flip_probability,
        )
        masks = number_masks(
            labels,
            is_thing=self._is_thing,
            max_masks=self._sizes.max_masks,
            min_thing_pixels=self._sizes.min_thing_pixels,
            divisor=PASTED_DIVISOR,
        )
        pixels = tf.ensure_shape(masks.pixels, self._sizes.crop)
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


def _fold(seed: tf.Tensor, purpose: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, purpose)
