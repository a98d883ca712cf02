"""Class head, mask head, and the auxiliary semantic branch."""

from __future__ import annotations

import math

import tensorflow as tf
import tf_keras

from cmt.backbone import StageFeatures
from cmt.layers.base import Layer
from cmt.layers.conv import (
    ConvNorm,
    DenseNorm,
    DepthwiseConvNorm,
    Dropout,
    Style,
    resize_align_corners,
)
from cmt.layers.recompute import recompute as recompute_layer

# A center starts with this probability of being void (MaX-DeepLab).
VOID_PRIOR = 0.9
ATROUS_RATES = (6, 12, 18)


def void_prior(num_classes: int) -> tf.Tensor:
    """[C + 1] added to class logits: with equal logits void has `VOID_PRIOR`."""
    prior = math.log(num_classes * VOID_PRIOR / (1 - VOID_PRIOR))
    return tf.constant([0.0] * num_classes + [prior])


def _small_normal() -> tf_keras.initializers.Initializer:
    return tf_keras.initializers.TruncatedNormal(stddev=0.01)


class PixelHead(Layer):
    """Depthwise 5x5, 1x1, and a last 1x1 with bias: [B, h, w, C] -> [B, h, w, out].

    Example:
      >>> PixelHead(8, 4, style=Style())(tf.zeros([2, 5, 7, 6])).shape
      TensorShape([2, 5, 7, 4])
    """

    def __init__(
        self, hidden_channels: int, out_channels: int, *, style: Style, **kwargs
    ):
        super().__init__(**kwargs)
        self.depthwise = DepthwiseConvNorm(5, style=style, name="depthwise")
        self.pointwise = ConvNorm(hidden_channels, style=style, name="pointwise")
        self.last = tf_keras.layers.Conv2D(
            out_channels, 1, kernel_initializer=_small_normal(), name="last"
        )

    def call(self, inputs: tf.Tensor, *, training: bool | None = None) -> tf.Tensor:
        outputs = self.depthwise(inputs, training=training)
        return self.last(self.pointwise(outputs, training=training))


class PanopticHead(Layer):
    """Masks and classes from pixel features and cluster centers.

    Args:
      num_classes: C, void not counted.
      center_feature_channels: of the class and the mask feature of a center.
      pixel_hidden_channels: hidden channels of the pixel head.
      pixel_feature_channels: D, of the normalised pixel feature and the mask kernel.
      style: activation and norms.
      recompute: compute the pixel head again in the backward pass, to save memory.

    Example:
      >>> head = PanopticHead(
      ...     3,
      ...     center_feature_channels=8,
      ...     pixel_hidden_channels=8,
      ...     pixel_feature_channels=4,
      ...     style=Style(),
      ... )
      >>> masks, classes, _ = head(tf.zeros([2, 9, 9, 6]), tf.zeros([2, 5, 12]), None)
      >>> masks.shape, classes.shape
      (TensorShape([2, 9, 9, 5]), TensorShape([2, 5, 4]))
    """

    def __init__(
        self,
        num_classes: int,
        *,
        center_feature_channels: int,
        pixel_hidden_channels: int,
        pixel_feature_channels: int,
        style: Style,
        recompute: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.style = style
        self.class_feature, self.mask_feature = (
            DenseNorm(center_feature_channels, style=style, name=name)
            for name in ("class_feature", "mask_feature")
        )
        self.pixel_head = PixelHead(
            pixel_hidden_channels, pixel_feature_channels, style=style, name="pixel"
        )
        if recompute:
            recompute_layer(self.pixel_head)
        self.pixel_feature_norm = style.norm(name="pixel_feature_norm")
        self.mask_kernel = DenseNorm(
            pixel_feature_channels,
            style=style,
            activate=False,
            kernel_initializer=_small_normal(),
            name="mask_kernel",
        )
        self.mask_logits_norm = style.norm(gamma=0.1, name="mask_logits_norm")
        self.class_head = tf_keras.layers.Dense(
            num_classes + 1, kernel_initializer=_small_normal(), name="class_head"
        )

    def call(
        self,
        pixel_features: tf.Tensor,
        cluster_centers: tf.Tensor,
        affinity_logits: tf.Tensor | None,
        *,
        training: bool | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Mask logits [B, h, w, N], class logits [B, N, C + 1], features [B, h, w, D].

        `pixel_features` [B, h, w, C] come from the decoder, before activation.
        `affinity_logits` [B, h', w', N] of the last layer are resized and added to the
        mask logits: the residual path of Sec. 3.3 ends in the segmentation output.
        """
        features = self.style.activate(pixel_features)
        features = self.pixel_head(features, training=training)
        features = self.pixel_feature_norm(features, training=training)
        features = tf.math.l2_normalize(tf.cast(features, tf.float32), axis=-1)
        kernels = self.mask_kernel(
            self.mask_feature(cluster_centers, training=training), training=training
        )
        logits = tf.einsum("bhwd,bnd->bhwn", features, tf.cast(kernels, tf.float32))
        logits = tf.squeeze(
            self.mask_logits_norm(logits[..., tf.newaxis], training=training), axis=-1
        )
        if affinity_logits is not None:
            affinity_logits = tf.cast(affinity_logits, tf.float32)
            logits += resize_align_corners(affinity_logits, features.shape[1:3])
        class_feature = self.class_feature(cluster_centers, training=training)
        class_logits = tf.cast(self.class_head(class_feature), tf.float32)
        return logits, class_logits + void_prior(self.num_classes), features


class SemanticBranch(Layer):
    """ASPP on stage 5 and a DeepLab-style decoder; supervises training, no more.

    Args:
      num_classes: C, void not counted.
      channels: of ASPP, decoder and head.
      projection_channels: of the projections of stage 3, then stage 2.
      dropout_rate: after ASPP.
      style: activation and norms.
      recompute: compute the branch again in the backward pass, to save memory.

    Example:
      >>> branch = SemanticBranch(
      ...     3, 8, projection_channels=(4, 4), dropout_rate=0.1, style=Style()
      ... )
      >>> low = tf.zeros([1, 5, 5, 6])
      >>> stages = StageFeatures(tf.zeros([1, 9, 9, 6]), low, None, None)
      >>> branch(tf.zeros([1, 3, 3, 12]), stages).shape
      TensorShape([1, 9, 9, 4])
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        *,
        projection_channels: tuple[int, int],
        dropout_rate: float,
        style: Style,
        recompute: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if recompute:
            recompute_layer(self)
        self.style = style
        self.aspp = [ConvNorm(channels, style=style, name="aspp_1x1")]
        self.aspp += [
            ConvNorm(channels, 3, style=style, dilation=rate, name=f"aspp_rate{rate}")
            for rate in ATROUS_RATES
        ]
        self.aspp_pool = ConvNorm(channels, style=style, name="aspp_pool")
        self.aspp_output = ConvNorm(channels, style=style, name="aspp_output")
        self.dropout = Dropout(dropout_rate)
        # One of each for stage 3, then for stage 2.
        self.projections, self.depthwise, self.pointwise = [], [], []
        for stage, width in zip(("stage3", "stage2"), projection_channels, strict=True):
            self.projections.append(
                ConvNorm(width, style=style, name=f"{stage}_projection")
            )
            self.depthwise.append(
                DepthwiseConvNorm(5, style=style, name=f"{stage}_depthwise")
            )
            self.pointwise.append(
                ConvNorm(channels, style=style, name=f"{stage}_pointwise")
            )
        self.head = PixelHead(channels, num_classes + 1, style=style, name="head")

    def call(
        self,
        semantic_features: tf.Tensor,
        stages: StageFeatures,
        *,
        training: bool | None = None,
    ) -> tf.Tensor:
        """Activated stage 5 [B, h', w', C] to logits [B, h, w, C + 1], void first."""
        size = semantic_features.shape[1:3]
        branches = [conv(semantic_features, training=training) for conv in self.aspp]
        pooled = tf.reduce_mean(semantic_features, axis=[1, 2], keepdims=True)
        pooled = self.aspp_pool(pooled, training=training)
        branches.append(tf.repeat(tf.repeat(pooled, size[0], 1), size[1], 2))
        features = self.aspp_output(tf.concat(branches, axis=-1), training=training)
        features = self.dropout(features, training=training)
        steps = zip(
            self.projections,
            self.depthwise,
            self.pointwise,
            (stages.stage3, stages.stage2),
            strict=True,
        )
        for projection, depthwise, pointwise, low in steps:
            low = projection(self.style.activate(low), training=training)
            features = resize_align_corners(features, low.shape[1:3])
            features = tf.concat([features, low], axis=-1)
            features = depthwise(features, training=training)
            features = pointwise(features, training=training)
        return tf.cast(self.head(features, training=training), tf.float32)
