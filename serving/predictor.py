"""From images to panoptic maps: one path for evaluation, prediction and serving.

The steps are `prepare` (or `prepare_bytes`, or the evaluation pipeline), `segment`
and `restore`. All three are graphs, and the served model is made of the same three, so
that it returns the same integers as the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from cmt.data.input.decode import decode_image
from cmt.data.input.preprocess import resize_and_pad, resize_labels_back
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.predictions import check_category_ids
from cmt.labels import CATEGORY_DIVISOR, LABEL_DIVISOR
from cmt.postprocess import merge_masks


class PanopticPredictor:
    """Prepares images, runs a network on them and brings its maps back to their sizes.

    Shapes: B images of any H x W, resized and padded to the crop of h x w pixels that
    the network sees; N segments at most.
    """

    def __init__(
        self,
        network: Callable[..., Any],
        *,
        crop_size: tuple[int, int],
        categories: Sequence[Category],
        merge_options: Mapping[str, Any],
    ):
        """Keeps the parts and checks that the ids fit.

        Args:
          network: images [B, h, w, 3] float32, 0 to 255, `training` -> `Predictions`.
          crop_size: height and width of what the network sees, in pixels.
          categories: the classes of the data set; contiguous class = index + 1.
          merge_options: keywords of `cmt.postprocess.merge_masks`.

        Raises:
          InputError: category_id * 1000 + instance would not fit in a PNG colour.
        """
        check_category_ids(categories)
        self.network = network
        self.crop_size = (int(crop_size[0]), int(crop_size[1]))
        self.categories = list(categories)
        self.merge_options = dict(merge_options)
        sizes = tf.TensorSpec([None, 2], tf.int32)
        crops = tf.TensorSpec([None, *self.crop_size, 3], tf.float32)
        self._segment_graph = tf.function(
            self._segment,
            input_signature=[_inputs(crops, sizes, sizes)],
            autograph=False,
        )

    def predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments images of one size.

        Args:
          images: [B, H, W, 3] uint8 or float, 0 to 255.

        Returns:
          The outputs of `restore`.
        """
        return self.restore(self.segment(self.prepare(images)))

    def predict_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments JPEG, PNG and GIF images, of sizes that may differ.

        Args:
          image_bytes: [B] string.

        Returns:
          The outputs of `restore`.

        Raises:
          tf.errors.InvalidArgumentError: an image cannot be decoded.
        """
        return self.restore(self.segment(self.prepare_bytes(image_bytes)))

    def predict_crops(
        self, crops: tf.Tensor, resized_sizes: tf.Tensor, original_sizes: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Segments what the evaluation pipeline has resized and padded.

        Args:
          crops: [B, h, w, 3] float32, 0 to 255.
          resized_sizes: [B, 2] int32, height and width of the image in the crop.
          original_sizes: [B, 2] int32, height and width of the image.

        Returns:
          The outputs of `restore`.
        """
        inputs = _inputs(crops, resized_sizes, original_sizes)
        return self.restore(self.segment(inputs))

    def prepare(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Resizes and pads images of one size for `segment`.

        Args:
          images: [B, H, W, 3] uint8 or float, 0 to 255.
        """
        return self._prepare(tf.cast(images, tf.float32))

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)],
        autograph=False,
    )
    def _prepare(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = tf.shape(images)
        check = tf.debugging.assert_greater(
            tf.reduce_min(shape), 0, "images must be [B, H, W, 3] with no size 0"
        )
        with tf.control_dependencies([check]):  # Or resizing may be what fails.
            images = tf.identity(images)
        crops, resized = resize_and_pad(images, self.crop_size)
        return _inputs(
            crops,
            tf.repeat(resized[tf.newaxis], shape[0], axis=0),
            tf.repeat(shape[tf.newaxis, 1:3], shape[0], axis=0),
        )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def prepare_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decodes, resizes and pads images of any sizes for `segment`.

        Args:
          image_bytes: [B] string, JPEG, PNG or GIF files.
        """
        check = tf.debugging.assert_greater(
            tf.shape(image_bytes)[0], 0, "image_bytes must hold at least one image"
        )
        with tf.control_dependencies([check]):
            image_bytes = tf.identity(image_bytes)

        def one(numbered: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
            index, content = numbered
            image = decode_image(content, index)
            crop, resized = resize_and_pad(image, self.crop_size)
            return crop, resized, tf.shape(image)[:2]

        size = tf.TensorSpec([2], tf.int32)
        crop = tf.TensorSpec([*self.crop_size, 3], tf.float32)
        numbered = tf.range(tf.shape(image_bytes)[0]), image_bytes
        return _inputs(
            *tf.map_fn(one, numbered, fn_output_signature=(crop, size, size))
        )

    def segment(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Runs the network and merges its masks, at the size of the crop.

        Args:
          inputs: from `prepare` or `prepare_bytes`: crops [B, h, w, 3] float32,
            resized_sizes [B, 2] int32 and original_sizes [B, 2] int32.

        Returns:
          panoptic [B, h, w] int32 (class * 256 + instance), segment_ids [B, N] int32
          (values of it, 0 where there is none), scores [B, N] float32, and the sizes
          as they came.
        """
        return self._segment_graph(dict(inputs))

    def _segment(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        predictions = self.network(inputs["crops"], training=False)
        merged = merge_masks(
            predictions,
            is_thing=[category.is_thing for category in self.categories],
            output_size=self.crop_size,
            valid_sizes=inputs["resized_sizes"],
            **self.merge_options,
        )
        return {
            "panoptic": merged.panoptic,
            "segment_ids": merged.segment_ids,
            "scores": merged.scores,
            "resized_sizes": inputs["resized_sizes"],
            "original_sizes": inputs["original_sizes"],
        }

    @tf.function(reduce_retracing=True, autograph=False)
    def restore(self, outputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Brings the maps back to the images and to the ids of the data set.

        Args:
          outputs: the outputs of `segment`.

        Returns:
          panoptic [B, H, W] int32, category_id * 1000 + instance, 0 where void, and 0
          below and right of images smaller than the largest; sizes [B, 2] int32,
          height and width in pixels; and of the segments, in front, padded with 0:
          segment_ids [B, N] int32 (values of `panoptic`), category_ids [B, N] int32,
          scores [B, N] float32, is_thing [B, N] bool.
        """
        sizes = outputs["original_sizes"]
        largest = tf.reduce_max(sizes, axis=0)

        def one(arguments: tuple[tf.Tensor, ...]) -> tf.Tensor:
            labels, resized, original = arguments
            restored = resize_labels_back(labels, resized, original)
            missing = largest - original
            return tf.pad(restored, [[0, missing[0]], [0, missing[1]]])

        labels = tf.map_fn(
            one,
            (outputs["panoptic"], outputs["resized_sizes"], sizes),
            fn_output_signature=tf.TensorSpec([None, None], tf.int32),
        )
        segments, scores = _present(outputs["segment_ids"], outputs["scores"], labels)
        category_ids = tf.gather(
            tf.constant([0, *(item.id for item in self.categories)], tf.int32),
            segments // LABEL_DIVISOR,
        )
        is_thing = tf.gather(
            tf.constant([False, *(item.is_thing for item in self.categories)]),
            segments // LABEL_DIVISOR,
        )
        return {
            "panoptic": self._to_ids(labels),
            "sizes": sizes,
            "segment_ids": self._to_ids(segments),
            "category_ids": category_ids,
            "scores": scores,
            "is_thing": is_thing,
        }

    def _to_ids(self, labels: tf.Tensor) -> tf.Tensor:
        """Turns class * 256 + instance into category_id * 1000 + instance."""
        ids = tf.constant([0, *(item.id for item in self.categories)], tf.int32)
        classes = labels // LABEL_DIVISOR
        return tf.gather(ids, classes) * CATEGORY_DIVISOR + labels % LABEL_DIVISOR


def _inputs(
    crops: tf.Tensor, resized_sizes: tf.Tensor, original_sizes: tf.Tensor
) -> dict[str, tf.Tensor]:
    return {
        "crops": crops,
        "resized_sizes": resized_sizes,
        "original_sizes": original_sizes,
    }


def _present(
    segments: tf.Tensor, scores: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Drops segments that resizing has lost, and moves the others to the front.

    Args:
      segments: [B, N] int32, below 65536; scores: [B, N]; labels: [B, H, W] int32.
    """
    num_labels = LABEL_DIVISOR**2
    seen = tf.math.bincount(
        tf.reshape(labels, [tf.shape(labels)[0], -1]),
        minlength=num_labels,
        maxlength=num_labels,
        axis=-1,
        binary_output=True,
    )
    there = tf.gather(seen, segments, batch_dims=1) * tf.cast(segments > 0, seen.dtype)
    order = tf.argsort(there, axis=-1, direction="DESCENDING", stable=True)
    there = tf.gather(there, order, batch_dims=1)
    segments = tf.gather(segments, order, batch_dims=1)
    scores = tf.gather(scores, order, batch_dims=1)
    return (
        segments * tf.cast(there, segments.dtype),
        scores * tf.cast(there, scores.dtype),
    )
