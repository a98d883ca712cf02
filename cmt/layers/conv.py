"""Convolutions with batch norm and activation, and align-corners resizing."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from cmt.layers.base import Layer
from cmt.layers.norm import BatchNorm
from cmt.layers.recompute import draw
from cmt.random_numbers import uniform
from cmt.tracing import is_host_out_of_reach

# erf(x) is tanh of x times this polynomial in x^2, highest power first, within 3e-6 for
# all x and within 2e-5 of its value: the coefficients of the least largest error.
_ERF_COEFFICIENTS = [3.236018e-5, -4.159086e-4, -4.95444e-4, 0.102932322, 1.12835813]

_plain = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain_gradients(wanted: bool) -> Iterator[None]:
    """Builds graphs with TensorFlow's gradients alone, if it is wanted.

    A SavedModel keeps no others, and warns of them when it is loaded.
    """
    token = _plain.set(wanted)
    try:
        yield
    finally:
        _plain.reset(token)


def gelu(x: tf.Tensor) -> tf.Tensor:
    """x times the normal distribution's share below x, exact (Hendrycks and Gimpel).

    TensorFlow's `tf.nn.gelu` with a gradient of half as many operations. Where XLA
    compiles for numbers of 16 bits, erf is within 3e-6: less than their rounding.
    """
    return tf.nn.gelu(x, approximate=False) if _plain.get() else _gelu(x)


@tf.custom_gradient
def _gelu(x: tf.Tensor) -> tf.Tensor:
    values, erf = x, tf.math.erf
    if x.dtype.size == 2 and is_host_out_of_reach():
        values, erf = tf.cast(x, tf.float32), _short_erf
    scaled = values * math.sqrt(0.5)
    share = 0.5 + 0.5 * erf(scaled)
    density = tf.exp(-tf.square(scaled)) * scaled  # times sqrt(pi) / x
    # Of all these, the backward pass keeps this one alone.
    slope = tf.cast(share + math.sqrt(1 / math.pi) * density, x.dtype)
    return tf.cast(values * share, x.dtype), lambda upstream: upstream * slope


def _short_erf(x: tf.Tensor) -> tf.Tensor:
    """erf, for results of 16 bits, in less than half of XLA's operations.

    They are vector operations, of which a TPU makes few beside its products, and XLA
    compiles them into every convolution that reads the result.
    """
    return tf.tanh(x * tf.math.polyval(_ERF_COEFFICIENTS, tf.square(x)))


@tf_keras.saving.register_keras_serializable(package="cmt")
@dataclasses.dataclass(frozen=True)
class Style:
    """What all layers of a network share.

    Attributes:
      activation: "gelu" (exact, erf) or "relu".
      norm_momentum: weight of the old moving statistics in an update.
      norm_epsilon: added to the variance.
      norm_synchronized: statistics over all replicas.

    Raises:
      ValueError: an attribute is out of range.

    Example:
      >>> Style("relu").activate(tf.constant([-1.0, 2.0])).numpy()
      array([0., 2.], dtype=float32)
    """

    activation: str = "gelu"
    norm_momentum: float = 0.99
    norm_epsilon: float = 1e-3
    norm_synchronized: bool = True

    def __post_init__(self):
        if not 0 <= self.norm_momentum <= 1 or not self.norm_epsilon > 0:
            raise ValueError(
                "norm_momentum must be in [0, 1] and norm_epsilon above 0; got "
                f"{self.norm_momentum} and {self.norm_epsilon}"
            )
        if self.activation not in ("gelu", "relu"):
            raise ValueError(
                f"activation must be 'gelu' or 'relu'; got {self.activation!r}"
            )

    def get_config(self) -> dict:
        """The attributes, as Keras keeps them in the config of a layer."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> Style:
        """The style whose `get_config` gave `config`."""
        return cls(**config)

    def activate(self, x: tf.Tensor) -> tf.Tensor:
        """The activation of the network."""
        return tf.nn.relu(x) if self.activation == "relu" else gelu(x)

    def norm(
        self, *, axis: int | Sequence[int] = -1, gamma: float = 1.0, name: str
    ) -> BatchNorm:
        """A batch norm over all axes but `axis`, its scale starting at `gamma`."""
        return BatchNorm(
            axis,
            momentum=self.norm_momentum,
            epsilon=self.norm_epsilon,
            gamma=gamma,
            synchronized=self.norm_synchronized,
            name=name,
        )


class Convolution(tf_keras.layers.Conv2D):
    """Keras's layer, without the products of taps that only ever meet the padding.

    A 3x3 kernel of dilation 18 reads nothing but zeros beside its center where height
    and width are 18 or less, as in ASPP on small images.
    """

    def convolution_op(self, inputs, kernel):
        if self.padding != "same" or set(self.dilation_rate) == {1}:
            return super().convolution_op(inputs, kernel)
        inside = [
            min(taps // 2, (size - 1) // dilation)
            for size, taps, dilation in zip(
                inputs.shape[1:3], self.kernel_size, self.dilation_rate, strict=True
            )
        ]
        rows, columns = (
            slice(taps // 2 - reach, taps // 2 + reach + 1)
            for taps, reach in zip(self.kernel_size, inside, strict=True)
        )
        # `tf.nn.convolution` rearranges images for a kernel without dilation: some CPUs
        # have no gradient of the other, which what XLA compiles has.
        convolve = tf.nn.conv2d if is_host_out_of_reach() else tf.nn.convolution
        return convolve(
            inputs,
            kernel[rows, columns],
            strides=1,
            padding="SAME",
            dilations=[
                dilation if reach else 1
                for dilation, reach in zip(self.dilation_rate, inside, strict=True)
            ],
        )


class ConvNorm(Layer):
    """Convolution without bias, batch norm, and the activation if `activate`.

    A strided kernel wider than 1 pads (kernel_size - 1) / 2 zeros on both sides, so
    that sizes 2^k m + 1 keep their corner pixels (129 -> 65 -> 33); others use SAME.

    Shapes: [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), filters].

    Example:
      >>> ConvNorm(8, 3, style=Style(), stride=2)(tf.zeros([2, 9, 5, 4])).shape
      TensorShape([2, 5, 3, 8])
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 1,
        *,
        style: Style,
        stride: int = 1,
        dilation: int = 1,
        activate: bool = True,
        gamma: float = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.style = style
        self.activate = activate
        self.padding = (kernel_size - 1) // 2 if stride > 1 else 0
        self.conv = Convolution(
            filters,
            kernel_size,
            strides=stride,
            padding="valid" if stride > 1 else "same",
            dilation_rate=dilation,
            use_bias=False,
            kernel_initializer="he_normal",
            name="conv",
        )
        self.norm = style.norm(gamma=gamma, name="norm")

    def call(self, inputs: tf.Tensor, *, training: bool | None = None) -> tf.Tensor:
        if self.padding:
            pad = [self.padding, self.padding]
            inputs = tf.pad(inputs, [[0, 0], pad, pad, [0, 0]])
        outputs = self.norm(self.conv(inputs), training=training)
        return self.style.activate(outputs) if self.activate else outputs


class DepthwiseConvNorm(Layer):
    """Depthwise convolution without bias, batch norm, activation.

    Shapes: [B, H, W, C] -> [B, H, W, C].

    Example:
      >>> DepthwiseConvNorm(5, style=Style())(tf.zeros([2, 9, 5, 4])).shape
      TensorShape([2, 9, 5, 4])
    """

    def __init__(self, kernel_size: int, *, style: Style, **kwargs):
        super().__init__(**kwargs)
        self.style = style
        self.conv = tf_keras.layers.DepthwiseConv2D(
            kernel_size, padding="same", use_bias=False, name="conv"
        )
        self.norm = style.norm(name="norm")

    def call(self, inputs: tf.Tensor, *, training: bool | None = None) -> tf.Tensor:
        outputs = self.norm(self.conv(inputs), training=training)
        return self.style.activate(outputs)


class DenseNorm(Layer):
    """Dense layer without bias, batch norm, and the activation if `activate`.

    Shapes: [B, n, C] -> [B, n, units], all but B known.

    Example:
      >>> DenseNorm(8, style=Style("relu"))(tf.zeros([2, 5, 4])).shape
      TensorShape([2, 5, 8])
    """

    def __init__(
        self,
        units: int,
        *,
        style: Style,
        activate: bool = True,
        gamma: float = 1.0,
        kernel_initializer: str | tf_keras.initializers.Initializer = "he_normal",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.style = style
        self.activate = activate
        self.dense = tf_keras.layers.Dense(
            units, use_bias=False, kernel_initializer=kernel_initializer, name="dense"
        )
        self.norm = style.norm(gamma=gamma, name="norm")

    def build(self, input_shape):
        outputs_shape = [*input_shape[:-1], self.dense.units]
        for layer, shape in ((self.dense, input_shape), (self.norm, outputs_shape)):
            with tf.name_scope(layer.name):
                layer.build(shape)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, *, training: bool | None = None) -> tf.Tensor:
        _, number, channels = inputs.shape
        # One product: Keras computes the shapes of three axes in the graph.
        inputs = tf.reshape(inputs, [-1, channels])
        kernel = tf.convert_to_tensor(self.dense.kernel)
        shape = [-1, number, self.dense.units]
        if self.norm.uses_batch(training):
            outputs = tf.reshape(tf.matmul(inputs, kernel), shape)
            outputs = self.norm(outputs, training=training)
        else:
            # The product of the norm and the kernel: TensorFlow fuses a bias with it.
            scale, offset = (tf.cast(v, kernel.dtype) for v in self.norm.affine(None))
            outputs = tf.nn.bias_add(tf.matmul(inputs, kernel * scale), offset)
            outputs = tf.reshape(outputs, shape)
        return self.style.activate(outputs) if self.activate else outputs


class Dropout(Layer):
    """Drops numbers with probability `rate`, in training.

    What is kept is scaled by 1 / (1 - rate). Unlike Keras's, it draws what depends on
    the step alone where a trainer says so; see `cmt.random_numbers`.

    Shapes: [B, ...] -> [B, ...], all but B known.

    Example:
      >>> outputs = Dropout(0.5)(tf.ones([4, 3, 3, 2]), training=True)
      >>> bool(tf.reduce_all((outputs == 0) | (outputs == 2)))
      True

    Raises:
      ValueError: the rate is not in [0, 1).
    """

    def __init__(self, rate: float, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be at least 0 and below 1; got {rate}")
        self.rate = rate

    def call(self, inputs: tf.Tensor, *, training: bool | None = None) -> tf.Tensor:
        if not training or not self.rate:
            return inputs
        shape = self._shape_drawn(inputs.shape[1:])
        drawn = draw(lambda: uniform(tf.shape(inputs)[0], shape))
        # A tensor of its own, so that XLA compiles layers of other rates only once.
        scale = tf.cast(drawn >= self.rate, tf.float32) / (1 - self.rate)
        return tf.cast(tf.cast(inputs, tf.float32) * scale, inputs.dtype)

    def _shape_drawn(self, shape: tf.TensorShape) -> list[int]:
        """Of the numbers drawn for an image of this shape."""
        return shape.as_list()


class DropPath(Dropout):
    """Drops the whole tensor of an image with probability `rate`, in training.

    What is kept is scaled by 1 / (1 - rate).
    Source: Huang et al., stochastic depth; drop path of the paper, Sec. 4.

    Shapes: [B, ...] -> [B, ...].

    Example:
      >>> outputs = DropPath(0.5)(tf.ones([4, 3, 3, 2]), training=True)
      >>> bool(tf.reduce_all((outputs == 0) | (outputs == 2)))
      True

    Raises:
      ValueError: the rate is not in [0, 1).
    """

    def _shape_drawn(self, shape: tf.TensorShape) -> list[int]:
        return [1] * shape.rank


def resize_align_corners(images: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Bilinear resize that keeps the corner pixels, [B, h, w, C] -> [B, *size, C].

    As products with small matrices: XLA turns `tf.raw_ops.ResizeBilinear` into a
    gather, which a TPU makes pixel after pixel.
    """
    _, height, width, channels = images.shape
    rows, columns = size
    with tf.name_scope("resize"):
        resized = tf.reshape(
            tf.cast(images, tf.float32), [-1, height, width * channels]
        )
        resized = tf.matmul(_shares(height, rows), resized)
        resized = tf.reshape(resized, [-1, width, channels])
        resized = tf.matmul(_shares(width, columns), resized)
        resized = tf.reshape(resized, [-1, rows, columns, channels])
        return tf.cast(resized, images.dtype)


def _shares(length: int, wanted: int) -> np.ndarray:
    """[wanted, length], what each of `length` points has of each of `wanted` points."""
    places = np.linspace(0, length - 1, wanted) if wanted > 1 else np.zeros(1)
    distances = np.abs(places[:, np.newaxis] - np.arange(length))
    return np.maximum(1 - distances, 0).astype(np.float32)
