"""Axial-ResNet: image -> features at strides 2, 4, 8 and 16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from cmt.layers.blocks import AxialBlock, BottleneckBlock
from cmt.layers.conv import ConvNorm, Style

OUTPUT_STRIDE = 16


class AxialSizes(NamedTuple):
    """Of the axial attention: heads, and the reach of its relative positions."""

    num_heads: int = 8
    max_relative_positions: int = 255


class StageFeatures(NamedTuple):
    """Outputs of the stages, before activation.

    Attributes:
      stage2: [B, ceil(H / 4), ceil(W / 4), 4 f2].
      stage3: [B, ceil(H / 8), ceil(W / 8), 4 f3].
      stage4: [B, ceil(H / 16), ceil(W / 16), 4 f4].
      stage5: [B, ceil(H / 16), ceil(W / 16), 4 f5]; None where the backbone ends with
        stage 4, because the decoder holds stage 5.
    """

    stage2: tf.Tensor
    stage3: tf.Tensor
    stage4: tf.Tensor
    stage5: tf.Tensor | None


class Backbone(tf_keras.layers.Layer):
    """Axial-ResNet with an Inception stem, output stride 16.

    A block is axial where its input stride is 16: all but the first of stage 4, and
    all of stage 5.

    Args:
      stem_channels: of the three 3x3 convolutions; the first has stride 2.
      num_blocks: of stages 2, 3, 4 and, where it is the backbone's, 5.
      channels: bottleneck widths f of these stages; a stage puts out 4 f channels.
      axial: sizes of the axial attention.
      style: activation and norms.
      drop_path_rates: one rate a block, first to last.
    """

    def __init__(
        self,
        stem_channels: Sequence[int],
        num_blocks: Sequence[int],
        channels: Sequence[int],
        *,
        axial: AxialSizes,
        style: Style,
        drop_path_rates: Sequence[float],
        **kwargs,
    ):
        super().__init__(**kwargs)
        if len(drop_path_rates) != sum(num_blocks):
            raise ValueError(
                f"drop_path_rates must have one rate a block; got "
                f"{len(drop_path_rates)} rates and {sum(num_blocks)} blocks"
            )
        last = len(stem_channels) - 1
        self.stem = [
            ConvNorm(
                width,
                3,
                style=style,
                stride=2 if i == 0 else 1,
                activate=i < last,
                name=f"stem{i + 1}",
            )
            for i, width in enumerate(stem_channels)
        ]
        rates = iter(drop_path_rates)
        input_stride = 2
        self.stages = []
        for stage, (blocks, width) in enumerate(
            zip(num_blocks, channels, strict=True), start=2
        ):
            layers = []
            for block in range(blocks):
                stride = 2 if block == 0 and input_stride < OUTPUT_STRIDE else 1
                name = f"stage{stage}_block{block + 1}"
                shared = dict(style=style, drop_path_rate=next(rates), name=name)
                if input_stride < OUTPUT_STRIDE:
                    layers.append(BottleneckBlock(width, stride=stride, **shared))
                else:
                    layers.append(AxialBlock(width, **axial._asdict(), **shared))
                input_stride *= stride
            self.stages.append(layers)

    def call(self, images: tf.Tensor, *, training: bool | None = None) -> StageFeatures:
        """Normalised images [B, H, W, 3], about -1 to 1, to the stages' outputs."""
        features = images
        for layer in self.stem:
            features = layer(features, training=training)
        outputs = []
        for blocks in self.stages:
            for block in blocks:
                features = block(features, training=training)
            outputs.append(features)
        stage5 = outputs[3] if len(outputs) > 3 else None
        return StageFeatures(*outputs[:3], stage5)
