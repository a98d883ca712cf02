"""From images to panoptic maps: one path for evaluation, prediction and serving.

The steps are `prepare` (or `prepare_bytes`, or the evaluation pipeline), `segment`
and `restore`. All three are graphs, and the served model is made of the same three, so
that it returns the same integers as the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from cmt.data.input.preprocess import resize_and_pad, resize_labels_back
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.predictions import check_category_ids
from cmt.io.decode import decode_image
from cmt.labels import CATEGORY_DIVISOR, LABEL_DIVISOR
from cmt.passes import Pass, run_passes
from cmt.postprocess import merge_masks

# What a request may ask for: crops of a gigabyte, and maps of a gigabyte.
_MAX_CROP_PIXELS = 2**26
_MAX_MAP_PIXELS = 2**28
# Of PNGs of ids, whose rows repeat: more takes longer and saves little.
_COMPRESSION = 1


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
        passes: Sequence[Pass] = (),
    ):
        """Keeps the parts and checks that the ids fit.

        Args:
          network: images [B, h, w, 3] float32, 0 to 255, `training` -> `Predictions`.
          crop_size: height and width of what the network sees, in pixels.
          categories: the classes of the data set; contiguous class = index + 1.
          merge_options: keywords of `cmt.postprocess.merge_masks`.
          passes: further ones over each image, to average; see `run_passes`.

        Raises:
          InputError: category_id * 1000 + instance would not fit in a PNG colour.
        """
        check_category_ids(categories)
        self.network = network
        self.crop_size = (int(crop_size[0]), int(crop_size[1]))
        self.categories = list(categories)
        self.merge_options = dict(merge_options)
        self.passes = list(passes)
        sizes = tf.TensorSpec([None, 2], tf.int32)
        crops = tf.TensorSpec([None, *self.crop_size, 3], tf.float32)
        signature = [_inputs(crops, sizes, sizes)]
        self._segment_graph = tf.function(
            self._segment, input_signature=signature, autograph=False
        )
        # One graph for any number of images; `restore` alone has one for each.
        self._predict_graph = tf.function(
            lambda inputs: self.restore(self.segment(inputs)),
            input_signature=signature,
            autograph=False,
        )

    def predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments images of one size.

        Args:
          images: [B, H, W, 3] uint8 or float, 0 to 255.

        Returns:
          The outputs of `restore`.
        """
        return self._predict_graph(self.prepare(images))

    def predict_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments JPEG and PNG images, of sizes that may differ.

        Args:
          image_bytes: [B] string.

        Returns:
          The outputs of `restore`.

        Raises:
          tf.errors.InvalidArgumentError: an image cannot be decoded.
        """
        return self._predict_graph(self.prepare_bytes(image_bytes))

    def predict_png(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments images as `predict_bytes` does, into maps encoded as PNG.

        Returns:
          The outputs of `restore_png`.
        """
        return self.restore_png(self.segment(self.prepare_bytes(image_bytes)))

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
        return self._predict_graph(_inputs(crops, resized_sizes, original_sizes))

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
        # Before resizing, which else may be what fails.
        with tf.control_dependencies([check, self._check_number(shape[0])]):
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
          image_bytes: [B] string, JPEG or PNG files.
        """
        number = tf.shape(image_bytes)[0]
        check = tf.debugging.assert_greater(
            number, 0, "image_bytes must hold at least one image"
        )
        with tf.control_dependencies([check, self._check_number(number)]):
            image_bytes = tf.identity(image_bytes)

        def one(numbered: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
            index, content = numbered
            image = decode_image(content, index)
            crop, resized = resize_and_pad(image, self.crop_size)
            return crop, resized, tf.shape(image)[:2]

        size = tf.TensorSpec([2], tf.int32)
        crop = tf.TensorSpec([*self.crop_size, 3], tf.float32)
        numbered = tf.range(number), image_bytes
        return _inputs(
            *tf.map_fn(one, numbered, fn_output_signature=(crop, size, size))
        )

    def _check_number(self, number: tf.Tensor) -> tf.Operation:
        """Refuses requests of so many images that a server would die of them."""
        most = max(1, _MAX_CROP_PIXELS // (self.crop_size[0] * self.crop_size[1]))
        return tf.debugging.assert_less_equal(
            number, most, f"a request must have at most {most} images"
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

    def trace_segment(self) -> tf.types.experimental.ConcreteFunction:
        """`segment` as a graph."""
        return self._segment_graph.get_concrete_function()

    def _segment(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        predictions = run_passes(
            self.network, inputs["crops"], inputs["resized_sizes"], self.passes
        )
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

        Raises:
          tf.errors.InvalidArgumentError: `panoptic` would be too large.
        """
        sizes = outputs["original_sizes"]
        largest = tf.reduce_max(sizes, axis=0)
        pixels = tf.concat([tf.shape(sizes)[:1], largest], axis=0)
        check = tf.debugging.assert_less_equal(
            tf.reduce_prod(tf.cast(pixels, tf.int64)),
            tf.constant(_MAX_MAP_PIXELS, tf.int64),
            f"the maps of a request must have at most {_MAX_MAP_PIXELS} pixels, each "
            "padded to the largest height and width in it; send fewer images at a time",
        )
        with tf.control_dependencies([check]):
            largest = tf.identity(largest)

        def padded(labels: tf.Tensor) -> tf.Tensor:
            missing = largest - tf.shape(labels)
            return tf.pad(labels, [[0, missing[0]], [0, missing[1]]])

        spec = tf.TensorSpec([None, None], tf.int32)
        labels, segments = self._restore(outputs, padded, spec)
        return {"panoptic": self._to_ids(labels), **segments}

    @tf.function(reduce_retracing=True, autograph=False)
    def restore_png(self, outputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Brings the maps back as `restore` does, each as a file of its own size.

        Returns:
          The outputs of `restore`, but `panoptic_png` [B] string for `panoptic`: COCO
          panoptic PNGs, whose red + 256 green + 65536 blue is the value of `panoptic`.
        """

        def encoded(labels: tf.Tensor) -> tf.Tensor:
            ids = self._to_ids(labels)
            planes = [tf.bitwise.right_shift(ids, shift) & 255 for shift in (0, 8, 16)]
            colors = tf.cast(tf.stack(planes, axis=-1), tf.uint8)
            return tf.io.encode_png(colors, compression=_COMPRESSION)

        spec = tf.TensorSpec([], tf.string)
        files, segments = self._restore(outputs, encoded, spec)
        return {"panoptic_png": files, **segments}

    def _restore(
        self,
        outputs: Mapping[str, tf.Tensor],
        finish: Callable[[tf.Tensor], tf.Tensor],
        spec: tf.TensorSpec,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Restores images one after the other.

        Args:
          outputs: the outputs of `segment`.
          finish: makes of an image's labels, [H, W] int32, what is returned.
          spec: of what it makes.

        Returns:
          What `finish` made, [B, ...], and the sizes and segments of `restore`.
        """

        def one(image: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            labels, resized, original, segments, scores = image
            labels = resize_labels_back(labels, resized, original)
            return finish(labels), *_present(segments, scores, labels)

        found, segments, scores = tf.map_fn(
            one,
            (
                outputs["panoptic"],
                outputs["resized_sizes"],
                outputs["original_sizes"],
                outputs["segment_ids"],
                outputs["scores"],
            ),
            fn_output_signature=(
                spec,
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None], tf.float32),
            ),
        )
        classes = segments // LABEL_DIVISOR
        category_ids = tf.constant([0, *(item.id for item in self.categories)])
        is_thing = tf.constant([False, *(item.is_thing for item in self.categories)])
        return found, {
            "sizes": outputs["original_sizes"],
            "segment_ids": self._to_ids(segments),
            "category_ids": tf.gather(category_ids, classes),
            "scores": scores,
            "is_thing": tf.gather(is_thing, classes),
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
      segments: [N] int32, below 65536; scores: [N]; labels: [H, W] int32.
    """
    # Not a bincount, which other runtimes lack.
    places = tf.reshape(labels, [-1, 1])
    seen = tf.tensor_scatter_nd_update(
        tf.zeros([LABEL_DIVISOR**2], tf.int32), places, tf.ones_like(places[:, 0])
    )
    there = tf.gather(seen, segments) * tf.cast(segments > 0, seen.dtype)
    order = tf.argsort(there, direction="DESCENDING", stable=True)
    there, segments, scores = (tf.gather(v, order) for v in (there, segments, scores))
    return (
        segments * tf.cast(there, segments.dtype),
        scores * tf.cast(there, scores.dtype),
    )
