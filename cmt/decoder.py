"""The dual path of pixels and centers at stride 16, and the way back to stride 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from cmt import clustering
from cmt.backbone import StageFeatures
from cmt.layers.base import Layer
from cmt.layers.blocks import AxialBlock, BottleneckBlock
from cmt.layers.conv import ConvNorm, Style, resize_align_corners
from cmt.layers.dual_path import DualPathState, TransformerLayer
from cmt.outputs import LayerPredictions


class DecoderOutputs(NamedTuple):
    """What the heads read.

    Attributes:
      pixel_features: [B, h, w, C] at stride 4, before activation.
      cluster_centers: [B, N, D].
      semantic_features: [B, ceil(H / 16), ceil(W / 16), 4 f5], stage 5, activated.
      affinity_logits: [B, ceil(H / 16), ceil(W / 16), N] of the last layer; None
        without clustering.
      layers: how each transformer layer clusters the pixels.
    """

    pixel_features: tf.Tensor
    cluster_centers: tf.Tensor
    semantic_features: tf.Tensor
    affinity_logits: tf.Tensor | None
    layers: tuple[LayerPredictions, ...]


class DualPath(Layer):
    """Axial blocks, a transformer layer after each.

    Args:
      blocks: the axial blocks.
      transformers: as many transformer layers.

    Raises:
      ValueError: they are not as many.

    Example:
      >>> from cmt.layers import TransformerSizes
      >>> sizes = TransformerSizes(12, 16, 8, 16, num_heads=4, ffn_channels=24)
      >>> path = DualPath(
      ...     [AxialBlock(5, num_heads=5, style=Style())],
      ...     [TransformerLayer(sizes, style=Style())],
      ... )
      >>> state, layers = path(
      ...     DualPathState(tf.zeros([2, 5, 7, 20]), tf.zeros([2, 6, 12]))
      ... )
      >>> layers[0].affinity_logits.shape
      TensorShape([2, 5, 7, 6])
    """

    def __init__(
        self,
        blocks: Sequence[AxialBlock],
        transformers: Sequence[TransformerLayer],
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        if len(blocks) != len(transformers):
            raise ValueError(
                "blocks and transformers must be as many; "
                f"got {len(blocks)} and {len(transformers)}"
            )
        self.blocks = list(blocks)
        self.transformers = list(transformers)

    def call(
        self, state: DualPathState, *, training: bool | None = None
    ) -> tuple[DualPathState, tuple[LayerPredictions, ...]]:
        layers = []
        for block, transformer in zip(self.blocks, self.transformers, strict=True):
            pixel_features = block(state.pixel_features, training=training)
            state = transformer(
                state._replace(pixel_features=pixel_features), training=training
            )
            layers.append(_layer_predictions(state))
            state = state._replace(center_attention=None)
        return state, tuple(layers)


class Fuse(Layer):
    """1x1 convolution and norm of the activated features, resized, plus a skip.

    Shapes: [B, h, w, C] and the skip [B, H, W, channels] -> [B, H, W, channels].

    Example:
      >>> fuse = Fuse(6, style=Style())
      >>> fuse((tf.zeros([2, 5, 7, 8]), tf.zeros([2, 9, 13, 6]))).shape
      TensorShape([2, 9, 13, 6])
    """

    def __init__(self, channels: int, *, style: Style, **kwargs):
        super().__init__(**kwargs)
        self.style = style
        self.conv = ConvNorm(channels, style=style, activate=False, name="conv")

    def call(
        self, inputs: tuple[tf.Tensor, tf.Tensor], *, training: bool | None = None
    ) -> tf.Tensor:
        features, skip = inputs
        features = self.conv(self.style.activate(features), training=training)
        if features.shape[1:3] != skip.shape[1:3]:
            features = resize_align_corners(features, skip.shape[1:3])
        return features + skip


class Decoder(Layer):
    """Dual paths at stride 16, then bottleneck blocks at strides 8 and 4.

    The layout follows from what is given. This paper's stronger decoder: two dual
    paths, at the widths of stages 5 and 4, with `fuse16` between them. MaX-DeepLab-S:
    one dual path whose first blocks are the backbone's stage 5, no `fuse16`.

    Args:
      dual_path: at the width of stage 5.
      fuse16: to the width of stage 4, before `second_dual_path`; None without.
      second_dual_path: at the width of stage 4; None without.
      num_stage5_blocks: how many blocks at the beginning of `dual_path` are stage 5 of
        the backbone; the auxiliary semantic branch reads the output of the last.
      upward: (fuse, bottleneck blocks) for stride 8, then for stride 4.
      style: activation and norms.

    Example (`cmt.build_model` puts the parts together):
      >>> import cmt
      >>> model = cmt.build_model("scenes/tiny")
      >>> stages = model.backbone(tf.zeros([1, 97, 97, 3]))
      >>> points = tf.zeros([1, 24, 16])
      >>> centers = tf.zeros([1, *model.cluster_centers.shape])
      >>> model.decoder(stages, centers, points).affinity_logits.shape
      TensorShape([1, 7, 7, 24])
    """

    def __init__(
        self,
        dual_path: DualPath,
        *,
        fuse16: Fuse | None,
        second_dual_path: DualPath | None,
        num_stage5_blocks: int,
        upward: Sequence[tuple[Fuse, Sequence[BottleneckBlock]]],
        style: Style,
        **kwargs,
    ):
        super().__init__(**kwargs)
        split = num_stage5_blocks
        self.stage5 = (
            DualPath(
                dual_path.blocks[:split], dual_path.transformers[:split], name="stage5"
            )
            if split
            else None
        )
        self.first = DualPath(
            dual_path.blocks[split:], dual_path.transformers[split:], name="first"
        )
        self.fuse16 = fuse16
        self.second = second_dual_path
        (self.fuse8, blocks8), (self.fuse4, blocks4) = upward
        self.stride8_blocks = list(blocks8)
        self.stride4_blocks = list(blocks4)
        self.style = style

    def call(
        self,
        stages: StageFeatures,
        cluster_centers: tf.Tensor,
        reference_embedding: tf.Tensor | None,
        *,
        training: bool | None = None,
    ) -> DecoderOutputs:
        state = DualPathState(
            pixel_features=stages.stage4 if self.stage5 else stages.stage5,
            cluster_centers=cluster_centers,
            reference_embedding=reference_embedding,
        )
        layers: tuple[LayerPredictions, ...] = ()
        if self.stage5:
            state, layers = self.stage5(state, training=training)
        semantic_features = self.style.activate(state.pixel_features)
        state, more = self.first(state, training=training)
        layers += more
        if self.second is not None:
            fused = self.fuse16(
                (state.pixel_features, stages.stage4), training=training
            )
            state, more = self.second(
                state._replace(pixel_features=fused), training=training
            )
            layers += more
        features = self.fuse8((state.pixel_features, stages.stage3), training=training)
        for block in self.stride8_blocks:
            features = block(features, training=training)
        features = self.fuse4((features, stages.stage2), training=training)
        for block in self.stride4_blocks:
            features = block(features, training=training)
        return DecoderOutputs(
            pixel_features=features,
            cluster_centers=state.cluster_centers,
            semantic_features=semantic_features,
            affinity_logits=layers[-1].affinity_logits,
            layers=layers,
        )


def _layer_predictions(state: DualPathState) -> LayerPredictions:
    affinity_logits, reference_points, center_attention = None, None, None
    _, height, width, _ = state.pixel_features.shape
    if state.affinity_logits is not None:
        num_centers = state.affinity_logits.shape[-1]
        affinity_logits = tf.reshape(
            state.affinity_logits, [-1, height, width, num_centers]
        )
        affinity_logits = tf.cast(affinity_logits, tf.float32)
    if state.reference_embedding is not None:
        reference_points = clustering.reference_mask(
            tf.cast(state.reference_embedding, tf.float32)
        )
    if state.center_attention is not None:
        _, num_heads, num_centers, _ = state.center_attention.shape
        center_attention = tf.reshape(
            state.center_attention[..., : height * width],
            [-1, num_heads, num_centers, height, width],
        )
    return LayerPredictions(affinity_logits, reference_points, center_attention)
