"""Resizing and padding, the same in training, evaluation and the served model.

All functions are TensorFlow operations that work in graphs with unknown sizes.
Both resizes align the corners: output pixel i looks at i * (n_in - 1) / (n_out - 1).
"""

from __future__ import annotations

import tensorflow as tf

# Mean of the range 0..255: 0 after the network's x / 127.5 - 1.
_PADDING_VALUE = 127.5


def resized_size(size: tf.Tensor, crop_size: tuple[int, int]) -> tf.Tensor:
    """The size, [2] int32 as `size`, at which an image just fits into the crop.

    The image is scaled until both sides reach the crop, then until both fit, with
    the roundings and float32 products of DeepLab2, so that the short side can be
    one pixel more than the exact value.
    """
    size = tf.cast(size, tf.float32)
    crop = tf.constant(crop_size, tf.float32)
    grown = tf.floor(size * tf.reduce_max(crop / size))
    fitted = tf.floor(grown * tf.minimum(tf.reduce_min(crop / grown), 1.0))
    return tf.cast(tf.maximum(fitted, 1.0), tf.int32)


def resize_image(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Bilinear resize of [..., H, W, 3], of rank 3 or 4, to `size`, as float32."""
    batched = image if image.shape.rank == 4 else image[tf.newaxis]
    if batched.dtype != tf.uint8:  # which it takes, at a quarter of the memory
        batched = tf.cast(batched, tf.float32)
    resized = tf.raw_ops.ResizeBilinear(images=batched, size=size, align_corners=True)
    return resized if image.shape.rank == 4 else resized[0]


def resize_labels(
    labels: tf.Tensor, size: tf.Tensor, *, flipped: tf.Tensor | bool = False
) -> tf.Tensor:
    """Nearest-neighbour resize of [..., H, W] to [2] int32, with aligned corners.

    Two gathers instead of TensorFlow's operation (with the same result), because
    that has no integer kernel on GPUs. Both gather rows, which are contiguous: four
    times as fast as gathering columns, the transpositions included. Where `flipped`, []
    bool, left and right change places.
    """
    shape = tf.shape(labels)
    rows = _nearest(shape[-2], size[0])
    columns = _nearest(shape[-1], size[1])
    if flipped is not False:
        columns = tf.where(flipped, columns[::-1], columns)
    turned = tf.gather(tf.linalg.matrix_transpose(labels), columns, axis=-2)
    return tf.gather(tf.linalg.matrix_transpose(turned), rows, axis=-2)


def _nearest(num_inputs: tf.Tensor, num_outputs: tf.Tensor) -> tf.Tensor:
    """[num_outputs] int32: the input nearest to each output; halves go up."""
    steps = tf.cast(tf.maximum(num_outputs - 1, 1), tf.float32)
    scale = tf.cast(num_inputs - 1, tf.float32) / steps
    position = tf.cast(tf.range(num_outputs), tf.float32) * scale
    below = tf.floor(position)
    nearest = tf.cast(below, tf.int32) + tf.cast(position - below >= 0.5, tf.int32)
    return tf.minimum(nearest, num_inputs - 1)


def pad_image(image: tf.Tensor, crop_size: tuple[int, int]) -> tf.Tensor:
    """Pads [..., h, w, 3] at the bottom and right with 127.5 to the crop's size."""
    shape = tf.shape(image)
    missing = [[0, crop_size[0] - shape[-3]], [0, crop_size[1] - shape[-2]]]
    batch = [[0, 0]] * (image.shape.rank - 3)
    padded = tf.pad(image, [*batch, *missing, [0, 0]], constant_values=_PADDING_VALUE)
    return tf.ensure_shape(padded, [*image.shape[:-3], *crop_size, 3])


def pad_labels(labels: tf.Tensor, crop_size: tuple[int, int]) -> tf.Tensor:
    """Pads [h, w] labels at the bottom and right with 0, void, to the crop."""
    missing = crop_size - tf.shape(labels)
    padded = tf.pad(labels, tf.stack([tf.zeros_like(missing), missing], axis=1))
    return tf.ensure_shape(padded, crop_size)


def resize_and_pad(
    image: tf.Tensor, crop_size: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Fits an image, or a batch of images of one size, into the crop.

    Args:
      image: [H, W, 3] or [B, H, W, 3], uint8 or float, 0 to 255.
      crop_size: height and width of the result, in pixels.

    Returns:
      [..., crop height, crop width, 3] float32, 0 to 255, padded at the bottom and
      right with 127.5; and [2] int32, the height and width of the image in it.
    """
    size = resized_size(tf.shape(image)[-3:-1], crop_size)
    return pad_image(resize_image(image, size), crop_size), size


def resize_labels_back(
    labels: tf.Tensor, resized: tf.Tensor, original: tf.Tensor
) -> tf.Tensor:
    """Takes labels [..., h, w] int32 of the crop back: the inverse of `resize_and_pad`.

    `resized` is its second result, `original` the height and width of the image.
    """
    return resize_labels(labels[..., : resized[0], : resized[1]], original)
