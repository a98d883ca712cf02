"""Full-resolution logits a few rows at a time, so that memory stays small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

_STRIP_ROWS = 8


def map_upsampled_strips(
    function: Callable[[tf.Tensor], Any],
    logits: tf.Tensor,
    output_size: tuple[int, int],
    signature: Any,
) -> Any:
    """Applies a function of single pixels to upsampled logits, strip by strip.

    The result is that of `function(resized logits [H, W, N])`, without ever holding
    all of the resized logits. Bilinear, align-corners.

    Args:
      function: [rows, W, N] float32 -> tensor or tuple of tensors [rows, W, ...].
      logits: [h, w, N] float32.
      output_size: (H, W) in pixels.
      signature: structure of TensorSpecs of what follows [rows, W].

    Returns:
      What `function` returns, with all H rows.
    """
    height, width = output_size
    num_strips = -(-height // _STRIP_ROWS)
    rows = tf.minimum(tf.range(num_strips * _STRIP_ROWS), height - 1)
    results = tf.map_fn(
        lambda strip: function(upsample_rows(logits, strip, output_size)),
        tf.reshape(rows, [num_strips, _STRIP_ROWS]),
        fn_output_signature=tf.nest.map_structure(
            lambda spec: tf.TensorSpec([_STRIP_ROWS, width, *spec.shape], spec.dtype),
            signature,
        ),
    )

    def join(strips: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([[-1], tf.shape(strips)[2:]], axis=0)
        return tf.reshape(strips, shape)[:height]

    return tf.nest.map_structure(join, results)


def upsample_rows(
    logits: tf.Tensor, rows: tf.Tensor, output_size: tuple[int, int]
) -> tf.Tensor:
    """Some rows of [h, w, N] resized to [H, W, N], bilinear, align-corners.

    Args:
      logits: [h, w, N] float32.
      rows: [R] int32, which of the H rows.
      output_size: (H, W) in pixels.

    Returns:
      [R, W, N] float32.
    """
    last = tf.shape(logits)[0] - 1
    scale = tf.cast(last, tf.float32) / max(output_size[0] - 1, 1)
    position = tf.cast(rows, tf.float32) * scale
    above = tf.minimum(tf.cast(position, tf.int32), last)
    weight = (position - tf.cast(above, tf.float32))[:, tf.newaxis, tf.newaxis]
    upper = tf.gather(logits, above)
    lower = tf.gather(logits, tf.minimum(above + 1, last))
    strip = upper + (lower - upper) * weight
    return tf.raw_ops.ResizeBilinear(  # not deprecated, unlike its compat.v1 wrapper
        images=strip[tf.newaxis],
        size=[tf.size(rows), output_size[1]],
        align_corners=True,
    )[0]
