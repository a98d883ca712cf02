"""Full-resolution logits a few rows at a time, so that memory stays small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Rows of cells, which are between four logits, that are upsampled at a time.
_STRIP_CELLS = 4


def map_upsampled_strips(
    function: Callable[..., Any],
    logits: tuple[tf.Tensor, ...],
    output_size: tuple[int, int],
    signature: Any,
) -> Any:
    """Applies a function of single pixels to upsampled logits, strip by strip.

    The result is that of `function` of all resized logits, to the last bit where
    H - 1 is the product of h - 1 and a power of two, without ever holding them where it
    is a multiple, as it is for networks. Bilinear, align-corners.

    Args:
      function: [rows, W, N] float32, ... -> tensor or tuple of tensors [rows, W, ...].
      logits: [h, w, N] float32 each; N may differ.
      output_size: (H, W) in pixels.
      signature: structure of TensorSpecs of what follows [rows, W].

    Returns:
      What `function` returns, with all H rows.
    """
    height, width = output_size
    last = tf.shape(logits[0])[0] - 1
    factor = (height - 1) // tf.maximum(last, 1)
    # So that the last row of a strip can be the first of the next one.
    is_multiple = (factor * last == height - 1) & (height > 1)
    cells = tf.where(is_multiple, _STRIP_CELLS, tf.maximum(last, 1))
    rows = tf.where(is_multiple, cells * factor, height)
    size = [rows + tf.cast(is_multiple, tf.int32), width]
    num_strips = tf.where(is_multiple, last // cells + 1, 1)

    def upsampled(part: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        resized = tf.raw_ops.ResizeBilinear(  # not deprecated, unlike its wrapper
            images=tf.gather(part, places)[tf.newaxis], size=size, align_corners=True
        )
        return resized[0][:rows]  # One by one, neither copies.

    def strip(index: tf.Tensor) -> Any:
        places = tf.minimum(index * cells + tf.range(cells + 1), last)
        return function(*(upsampled(part, places) for part in logits))

    results = tf.map_fn(
        strip,
        tf.range(num_strips),
        fn_output_signature=tf.nest.map_structure(
            lambda spec: tf.TensorSpec([None, width, *spec.shape], spec.dtype),
            signature,
        ),
    )

    def join(strips: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([[-1], tf.shape(strips)[2:]], axis=0)
        joined = tf.reshape(strips, shape)[:height]
        return tf.ensure_shape(joined, [height, width, *strips.shape[3:]])

    return tf.nest.map_structure(join, results)
