"""Matrix products as exact as the losses need them, on a TPU too.

By itself a TPU rounds the operands of a float32 product to bfloat16, with a relative
error of up to 2 ** -8. What is said of XLA here holds where XLA compiles; elsewhere
products are TensorFlow's float32, which on recent GPUs is TF32, with errors of up to
2 ** -11, unless `tf.config.experimental.enable_tensor_float_32_execution(False)`.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from cmt.tracing import is_host_out_of_reach

# Bits of bfloat16.
_BFLOAT16 = dict(exponent_bits=8, mantissa_bits=7)


def matmul(
    left: tf.Tensor,
    right: tf.Tensor,
    *,
    transpose_left: bool = False,
    transpose_right: bool = False,
) -> tf.Tensor:
    """Float32 matrix product of each image.

    On a TPU, which multiplies bfloat16 alone, each operand is the sum of two of these,
    multiplied in three passes: two thirds of a float32's bits are kept.

    Args:
      left: [B, I, K] float32; [B, K, I] where it is to be transposed.
      right: [B, K, J] float32; [B, J, K] where it is to be transposed.
      transpose_left: whether to transpose `left`.
      transpose_right: whether to transpose `right`.

    Returns:
      [B, I, J] float32.
    """
    if not is_host_out_of_reach():
        return tf.matmul(
            left, right, transpose_a=transpose_left, transpose_b=transpose_right
        )

    @tf.custom_gradient
    def product(left: tf.Tensor, right: tf.Tensor):
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            by_left = _dot(upstream, right, False, not transpose_right)
            if transpose_left:
                by_left = _dot(right, upstream, transpose_right, True)
            by_right = _dot(left, upstream, not transpose_left, False)
            if transpose_right:
                by_right = _dot(upstream, left, True, transpose_left)
            return by_left, by_right

        return _dot(left, right, transpose_left, transpose_right), gradient

    return product(left, right)


def one_hot_matmul(
    one_hot: tf.Tensor, values: tf.Tensor, *, transpose: bool = False
) -> tf.Tensor:
    """Product of zeros and ones with values, which XLA compiles; no gradient.

    With `one_hot` in bfloat16 the values are, too: as the sum of two, the rounded value
    and the rounded rest, so that two thirds of a float32's bits are kept. Sums are
    float32. A value that is not finite, or beyond bfloat16's largest (3.39e38), makes
    NaN.

    Args:
      one_hot: [B, P, S] float32 or bfloat16.
      values: [B, S, K] float32; [B, P, K] where `one_hot` is to be transposed.
      transpose: whether to transpose `one_hot`.

    Returns:
      [B, P, K] float32; [B, S, K] where it was transposed.
    """
    if one_hot.dtype == tf.float32:
        return _dot(one_hot, values, transpose, False)
    # A cast to bfloat16 and back is what XLA may take for no change.
    rounded = xla.reduce_precision(values, **_BFLOAT16)
    parts = tf.cast(tf.concat([rounded, values - rounded], axis=-1), tf.bfloat16)
    product = _dot(one_hot, parts, transpose, False)
    return tf.add_n(tf.split(product, 2, axis=-1))


def _dot(
    left: tf.Tensor, right: tf.Tensor, transpose_left: bool, transpose_right: bool
) -> tf.Tensor:
    """XLA's product with float32 sums; see `matmul` for operands that are float32."""
    protos = xla.xla_data_pb2
    dimensions = protos.DotDimensionNumbers(
        lhs_batch_dimensions=[0],
        lhs_contracting_dimensions=[1 if transpose_left else 2],
        rhs_batch_dimensions=[0],
        rhs_contracting_dimensions=[2 if transpose_right else 1],
    )
    # HIGHEST, all bits in six passes, takes the compiler twice as long for the loss.
    high = protos.PrecisionConfig.HIGH
    return xla.dot_general(
        left,
        right,
        dimensions,
        precision_config=protos.PrecisionConfig(operand_precision=[high, high]),
        preferred_element_type=tf.float32,
    )
