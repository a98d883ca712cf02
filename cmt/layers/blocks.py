"""Pre-activated residual blocks: convolutional bottleneck and axial block.

The input is activated once and feeds branch and shortcut; nothing follows the sum.
The last batch norm of a branch starts at 0, so that a block starts as its shortcut.
"""

from __future__ import annotations

import tensorflow as tf

from cmt.layers.attention import AxialAttention2D
from cmt.layers.base import Layer, policy_scope
from cmt.layers.conv import ConvNorm, DropPath, Style
from cmt.layers.recompute import recompute as recompute_layer


class ResidualBlock(Layer):
    """Shortcut and drop path around the branch that a subclass defines.

    The shortcut is the activated input, subsampled by the stride, or a 1x1
    convolution and batch norm of it where the channels change.

    Shapes: [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), 4 channels].

    Args:
      channels: bottleneck width f.
      style: activation and norms.
      stride: of the whole block.
      drop_path_rate: of the branch.
      recompute: compute the block again in the backward pass, to save memory.
    """

    def __init__(
        self,
        channels: int,
        *,
        style: Style,
        stride: int = 1,
        drop_path_rate: float = 0.0,
        recompute: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if recompute:
            recompute_layer(self)
        self.channels = channels
        self.style = style
        self.stride = stride
        self.shortcut: ConvNorm | None = None
        self.drop_path = DropPath(drop_path_rate)

    def build(self, input_shape):
        if input_shape[-1] != 4 * self.channels:
            with policy_scope(self.dtype_policy):
                self.shortcut = ConvNorm(
                    4 * self.channels,
                    style=self.style,
                    stride=self.stride,
                    activate=False,
                    name="shortcut",
                )
        super().build(input_shape)

    def branch(self, inputs: tf.Tensor, *, training: bool | None) -> tf.Tensor:
        """What is added to the shortcut, from the activated input."""
        raise TypeError(f"{type(self).__name__} must define `branch`")

    def call(self, inputs: tf.Tensor, *, training: bool | None = None) -> tf.Tensor:
        inputs = self.style.activate(inputs)
        shortcut = inputs
        if self.shortcut is not None:
            shortcut = self.shortcut(inputs, training=training)
        elif self.stride > 1:
            shortcut = inputs[:, :: self.stride, :: self.stride]
        branch = self.branch(inputs, training=training)
        return shortcut + self.drop_path(branch, training=training)


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 with the stride, 1x1 convolutions.

    Example:
      >>> BottleneckBlock(8, style=Style(), stride=2)(tf.zeros([2, 9, 9, 16])).shape
      TensorShape([2, 5, 5, 32])
    """

    def __init__(self, channels: int, **kwargs):
        super().__init__(channels, **kwargs)
        style = self.style
        self.conv1 = ConvNorm(channels, style=style, name="conv1")
        self.conv2 = ConvNorm(
            channels, 3, style=style, stride=self.stride, name="conv2"
        )
        self.conv3 = ConvNorm(
            4 * channels, style=style, activate=False, gamma=0.0, name="conv3"
        )

    def branch(self, inputs: tf.Tensor, *, training: bool | None) -> tf.Tensor:
        outputs = self.conv1(inputs, training=training)
        outputs = self.conv2(outputs, training=training)
        return self.conv3(outputs, training=training)


class AxialBlock(ResidualBlock):
    """1x1 convolution, axial attention over height and width, 1x1 convolution.

    Example:
      >>> block = AxialBlock(8, num_heads=4, style=Style())
      >>> block(tf.zeros([2, 7, 9, 16])).shape
      TensorShape([2, 7, 9, 32])
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int,
        max_relative_positions: int = 255,
        **kwargs,
    ):
        super().__init__(channels, **kwargs)
        style = self.style
        self.conv1 = ConvNorm(2 * channels, style=style, name="conv1")
        self.attention = AxialAttention2D(
            channels,
            2 * channels,
            num_heads,
            max_relative_positions=max_relative_positions,
            style=style,
            name="attention",
        )
        self.conv3 = ConvNorm(
            4 * channels, style=style, activate=False, gamma=0.0, name="conv3"
        )

    def branch(self, inputs: tf.Tensor, *, training: bool | None) -> tf.Tensor:
        outputs = self.conv1(inputs, training=training)
        outputs = self.style.activate(self.attention(outputs, training=training))
        return self.conv3(outputs, training=training)
