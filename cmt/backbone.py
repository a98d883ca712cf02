"""Axial-ResNet: image -> features at strides 2, 4, 8 and 16."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from cmt.layers.base import Layer
from cmt.layers.blocks import AxialBlock, BottleneckBlock
from cmt.layers.conv import ConvNorm, Style
from cmt.layers.recompute import recomputed

OUTPUT_STRIDE = 16


class AxialSizes(NamedTuple):
    """Of the axial attention: heads, and the reach of its relative positions."""

    num_heads: int = 8
    max_relative_positions: int = 255


_DEFAULT_AXIAL = AxialSizes()


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


class Backbone(Layer):
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
      recompute: what is computed again in the backward pass, of "stem",
        "bottleneck_blocks" and "axial_blocks"; others are for other parts.

    Example:
      >>> rates = [0.0] * 4
      >>> backbone = Backbone(
      ...     [8, 8, 16], [1, 1, 2], [4, 8, 16], style=Style(), drop_path_rates=rates
      ... )
      >>> backbone(tf.zeros([1, 65, 65, 3])).stage4.shape
      TensorShape([1, 5, 5, 64])
    """

    def __init__(
        self,
        stem_channels: Sequence[int],
        num_blocks: Sequence[int],
        channels: Sequence[int],
        *,
        axial: AxialSizes = _DEFAULT_AXIAL,
        style: Style,
        drop_path_rates: Sequence[float],
        recompute: Sequence[str] = (),
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
        axial = AxialSizes(*axial)
        rates = iter(drop_path_rates)
        input_stride = 2
        # Flat, because the `.keras` format does not look into lists of lists.
        self.blocks = []
        for stage, (blocks, width) in enumerate(
            zip(num_blocks, channels, strict=True), start=2
        ):
            for block in range(blocks):
                stride = 2 if block == 0 and input_stride < OUTPUT_STRIDE else 1
                name = f"stage{stage}_block{block + 1}"
                shared = dict(style=style, drop_path_rate=next(rates), name=name)
                if input_stride < OUTPUT_STRIDE:
                    shared["recompute"] = "bottleneck_blocks" in recompute
                    layer = BottleneckBlock(width, stride=stride, **shared)
                else:
                    shared["recompute"] = "axial_blocks" in recompute
                    layer = AxialBlock(width, **axial._asdict(), **shared)
                self.blocks.append(layer)
                input_stride *= stride
        self.num_blocks = tuple(num_blocks)
        self._run_stem = self._stem
        if "stem" in recompute:
            self._run_stem = recomputed(self._stem)

    def call(
        self,
        images: tf.Tensor,
        *,
        stride4_features: tf.Tensor | None = None,
        training: bool | None = None,
    ) -> StageFeatures:
        """Normalised images [B, H, W, 3], about -1 to 1, to the stages' outputs.

        Where given, `stride4_features` [B, ceil(H / 4), ceil(W / 4), 4 f2] of another
        network are averaged with stage 2 and take its place (RFN, Sec. 3.4).
        """
        features = self._run_stem(images, training=training)
        outputs = []
        blocks = iter(self.blocks)
        for num_blocks in self.num_blocks:
            for block in itertools.islice(blocks, num_blocks):
                features = block(features, training=training)
            if not outputs and stride4_features is not None:
                features = (features + stride4_features) / 2
            outputs.append(features)
        stage5 = outputs[3] if len(outputs) > 3 else None
        return StageFeatures(*outputs[:3], stage5)

    def _stem(self, images: tf.Tensor, *, training: bool | None = None) -> tf.Tensor:
        for layer in self.stem:
            images = layer(images, training=training)
        return images
