"""The CMT layer: pixels, centers and their affinity, updated together (Fig. 3, 4).

It owns the variables; what it computes stands in `cmt/clustering.py`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from cmt import clustering
from cmt.layers.base import Layer, policy_scope
from cmt.layers.conv import DenseNorm, DropPath, Style
from cmt.layers.recompute import recompute as recompute_layer

ASSIGNMENT_RULES = ("cross_attention", "clustering", "kmeans")


class DualPathState(NamedTuple):
    """What passes from one transformer layer to the next.

    Attributes:
      pixel_features: [B, H, W, C], before activation.
      cluster_centers: [B, N, D].
      affinity_logits: [B, H W, N] S; None before the first layer and without
        clustering.
      reference_embedding: [B, N, 2 M] e; None without the location module.
      center_attention: [B, heads, N, H W + N], how much the centers attend to pixels,
        then to centers; no layer reads it. None in training, where recomputation
        would have to keep it, and where centers attend to no pixels.
    """

    pixel_features: tf.Tensor
    cluster_centers: tf.Tensor
    affinity_logits: tf.Tensor | None = None
    reference_embedding: tf.Tensor | None = None
    center_attention: tf.Tensor | None = None


class _Projected(NamedTuple):
    """[B, n, channels] each."""

    query: tf.Tensor
    key: tf.Tensor
    value: tf.Tensor


class TransformerSizes(NamedTuple):
    """Channels and heads of a transformer layer; protos/model.proto says of what."""

    center_channels: int = 256
    bottleneck_channels: int = 256
    key_channels: int = 128
    value_channels: int = 256
    num_heads: int = 8
    ffn_channels: int = 2048


class ReferenceMask(Layer):
    """MLP(C) of Eq. 9: two hidden layers, then 2 M numbers a center.

    Paper: an MLP. Here: each of its layers is normalised, the last one too, so that at
    any learning rate the points stay where the sigmoid of Eq. 10 has a gradient.

    Shapes: [B, N, D] -> [B, N, 2 num_points].

    Example:
      >>> ReferenceMask(8, 16, style=Style())(tf.zeros([2, 5, 4])).shape
      TensorShape([2, 5, 16])
    """

    def __init__(self, num_points: int, mlp_channels: int, *, style: Style, **kwargs):
        super().__init__(**kwargs)
        self.hidden1 = DenseNorm(mlp_channels, style=style, name="hidden1")
        self.hidden2 = DenseNorm(mlp_channels, style=style, name="hidden2")
        self.output_layer = DenseNorm(
            2 * num_points, style=style, activate=False, name="output"
        )

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        hidden = self.hidden1(inputs, training=training)
        hidden = self.hidden2(hidden, training=training)
        return self.output_layer(hidden, training=training)


class TransformerLayer(Layer):
    """One transformer layer between pixels and cluster centers.

    Three rules of assignment. "cross_attention" is MaX-DeepLab's dual path.
    "clustering" (Eq. 5-8): the assignment Z joins the attention in the update of the
    centers and replaces it in that of the pixels. "kmeans" (kMaX-DeepLab): Z is hard
    and not differentiated; the centers attend to one another alone and get the sum of
    their pixels. With location (Eq. 9-12) pixels and centers know their coordinates.

    Args:
      sizes: channels and heads.
      assignment: one of the three rules.
      num_points: M of a reference mask; 0 switches location off.
      mlp_channels: of the MLP of Eq. 9.
      coordinate_convolution: Eq. 11 and 12; off, reference masks are only predicted.
      style: activation and norms.
      drop_path_rate: of the branches added to pixels and centers.
      recompute: compute the layer again in the backward pass, to save memory.

    Raises:
      ValueError: the rule is none of the three, or key or value channels are not
        divisible by the heads.

    Example:
      >>> sizes = TransformerSizes(12, 16, 8, 16, num_heads=4, ffn_channels=24)
      >>> layer = TransformerLayer(sizes, style=Style())
      >>> state = layer(DualPathState(tf.zeros([2, 5, 7, 20]), tf.zeros([2, 6, 12])))
      >>> state.affinity_logits.shape
      TensorShape([2, 35, 6])
    """

    def __init__(
        self,
        sizes: TransformerSizes,
        *,
        assignment: str = "clustering",
        num_points: int = 0,
        mlp_channels: int = 256,
        coordinate_convolution: bool = True,
        style: Style,
        drop_path_rate: float = 0.0,
        recompute: bool = False,
        **kwargs,
    ):
        # Affinity logits and reference points of the state stay in float32.
        super().__init__(autocast=False, **kwargs)
        if recompute:
            recompute_layer(self)
        if assignment not in ASSIGNMENT_RULES:
            raise ValueError(
                f"assignment must be one of {ASSIGNMENT_RULES}; got {assignment!r}"
            )
        sizes = TransformerSizes(*sizes)
        for name in ("key_channels", "value_channels"):
            if getattr(sizes, name) % sizes.num_heads:
                raise ValueError(
                    f"{name} must be divisible by num_heads; "
                    f"got {getattr(sizes, name)} and {sizes.num_heads}"
                )
        self.sizes = sizes
        self.style = style
        self.assignment = assignment
        self.predicts_points = num_points > 0
        self.knows_coordinates = num_points > 0 and coordinate_convolution
        bottleneck = sizes.bottleneck_channels
        self.center_input = DenseNorm(bottleneck, style=style, name="center_input")
        self.pixel_input = DenseNorm(bottleneck, style=style, name="pixel_input")
        if self.predicts_points:
            self.reference_mask = ReferenceMask(
                num_points, mlp_channels, style=style, name="reference_mask"
            )
        self._add_attention()
        self._add_outputs(drop_path_rate)

    def _add_attention(self) -> None:
        sizes, style = self.sizes, self.style

        def projection(name, channels):
            return DenseNorm(
                sum(channels),
                style=style,
                activate=False,
                kernel_initializer=tf_keras.initializers.TruncatedNormal(
                    stddev=sizes.bottleneck_channels**-0.5
                ),
                name=name,
            )

        # Query, key, value; in k-means nobody attends to pixels, they have no key.
        key, value = sizes.key_channels, sizes.value_channels
        self.center_channels = [key, key, value]
        self.pixel_channels = [key, 0 if self.assignment == "kmeans" else key, value]
        self.center_projection = projection("center_projection", self.center_channels)
        self.pixel_projection = projection("pixel_projection", self.pixel_channels)
        self.center_similarity_norm = style.norm(axis=1, name="center_similarity_norm")
        self.center_retrieved_norm = style.norm(name="center_retrieved_norm")
        if self.assignment != "cross_attention":
            self.affinity_norm = style.norm(gamma=0.1, name="affinity_norm")
            self.pooled_norm = style.norm(name="pooled_norm")
        else:
            self.pixel_similarity_norm = style.norm(
                axis=1, name="pixel_similarity_norm"
            )
        self.pixel_retrieved_norm = style.norm(name="pixel_retrieved_norm")

    def _add_outputs(self, drop_path_rate: float) -> None:
        sizes, style = self.sizes, self.style
        self.center_output = DenseNorm(
            sizes.center_channels,
            style=style,
            activate=False,
            gamma=0.0,
            name="center_output",
        )
        self.ffn_hidden = DenseNorm(sizes.ffn_channels, style=style, name="ffn_hidden")
        self.ffn_output = DenseNorm(
            sizes.center_channels,
            style=style,
            activate=False,
            gamma=0.0,
            name="ffn_output",
        )
        self.pixel_drop_path = DropPath(drop_path_rate)
        self.center_drop_path = DropPath(drop_path_rate)
        self.ffn_drop_path = DropPath(drop_path_rate)

    def build(self, input_shape):
        input_shape = DualPathState(*input_shape)
        with policy_scope(self.dtype_policy):
            self.pixel_output = DenseNorm(
                input_shape.pixel_features[-1],
                style=self.style,
                activate=False,
                gamma=0.0,
                name="pixel_output",
            )
        super().build(input_shape)

    def call(
        self, state: DualPathState, *, training: bool | None = None
    ) -> DualPathState:
        state = DualPathState(*state)  # Keras's formats keep it as a list.
        embedding = state.reference_embedding
        if self.predicts_points:
            if embedding is None:
                raise ValueError(
                    "a layer with num_points needs state.reference_embedding; got None"
                )
            change = self.reference_mask(state.cluster_centers, training=training)
            embedding = clustering.update_reference_embedding(
                embedding, tf.cast(change, embedding.dtype)
            )
        centers, pixels = self._inputs(state, embedding, training)
        center = _Projected(
            *tf.split(
                self.center_projection(centers, training=training),
                self.center_channels,
                axis=-1,
            )
        )
        pixel = _Projected(
            *tf.split(
                self.pixel_projection(pixels, training=training),
                self.pixel_channels,
                axis=-1,
            )
        )
        affinity, pooled = state.affinity_logits, None
        if self.assignment == "cross_attention":
            spread, _ = self._attend(
                pixel.query, [center], self.pixel_similarity_norm, training
            )
        else:
            affinity = self._update_affinity(affinity, pixel, center, training)
            is_hard = self.assignment == "kmeans"
            assign = clustering.assign_to_best if is_hard else clustering.assign
            assignment = tf.cast(assign(affinity), pixel.value.dtype)
            pooled = self.pooled_norm(
                clustering.pool_pixels(assignment, pixel.value), training=training
            )
            spread = clustering.spread_centers(assignment, center.value)
        # MaX-DeepLab: pixels and centers in one softmax, pixels first.
        to_pixels = self.assignment != "kmeans"
        attended_to = [pixel, center] if to_pixels else [center]
        attended, weights = self._attend(
            center.query, attended_to, self.center_similarity_norm, training
        )
        attended = self.center_retrieved_norm(attended, training=training)
        spread = self.pixel_retrieved_norm(spread, training=training)
        return DualPathState(
            pixel_features=self._update_pixels(state, spread, training),
            cluster_centers=self._update_centers(state, attended, pooled, training),
            affinity_logits=affinity,
            reference_embedding=embedding,
            center_attention=None if training or not to_pixels else weights,
        )

    def _inputs(self, state, embedding, training):
        """Centers [B, N, bottleneck] and pixels [B, P, bottleneck]."""
        _, height, width, channels = state.pixel_features.shape
        centers = state.cluster_centers
        pixels = tf.reshape(state.pixel_features, [-1, height * width, channels])
        pixels = self.style.activate(pixels)
        convolve_centers = functools.partial(self.center_input, training=training)
        convolve_pixels = functools.partial(self.pixel_input, training=training)
        if not self.knows_coordinates:
            return convolve_centers(centers), convolve_pixels(pixels)
        # Paper: convolutions of features and coordinates. Here: these convolutions are
        # the layer's input projections, which have a norm and an activation, and
        # gradients pass through the points. docs/models.md has the trials.
        points = clustering.reference_mask(embedding)
        points = tf.reshape(points, [-1, points.shape[1], 2 * points.shape[2]])
        grid = clustering.pixel_coordinates(height, width, tf.float32)
        grid = tf.reshape(grid, [1, height * width, 2])
        return (
            clustering.coordinate_convolution(centers, points, convolve_centers),
            clustering.coordinate_convolution(pixels, grid, convolve_pixels),
        )

    def _attend(self, query, attended_to, similarity_norm, training):
        """Multi-head attention to all of `attended_to`.

        Returns what it retrieves, [B, n, value_channels], and the weights.
        """

        def heads(x):
            depth = x.shape[-1] // self.sizes.num_heads
            return tf.reshape(x, [-1, x.shape[1], self.sizes.num_heads, depth])

        queries = heads(query)
        normalize = functools.partial(similarity_norm, training=training)
        if similarity_norm.built and not similarity_norm.uses_batch(training):
            # The scale multiplies queries, which are far smaller; the offset is the
            # same for all keys, so that the softmax takes it away.
            scale, _ = similarity_norm.affine(None)
            queries *= tf.cast(scale[:, tf.newaxis], queries.dtype)
            normalize = tf.identity
        weights = clustering.attention_weights(
            queries,
            heads(tf.concat([x.key for x in attended_to], axis=1)),
            normalize=normalize,
        )
        retrieved = clustering.retrieve(
            weights, heads(tf.concat([x.value for x in attended_to], axis=1))
        )
        flat = [-1, query.shape[1], self.sizes.value_channels]
        return tf.reshape(retrieved, flat), weights

    def _update_affinity(self, affinity, pixel, center, training):
        """S' of Eq. 6; K~p and Q~c are the pixel query and the center key, one head."""

        def scalar_norm(logits):
            # One scale and one offset for all pixels and centers.
            logits = tf.cast(logits, tf.float32)[..., tf.newaxis]
            return tf.squeeze(self.affinity_norm(logits, training=training), axis=-1)

        return clustering.update_affinity(
            affinity, pixel.query, center.key, normalize=scalar_norm
        )

    def _update_centers(self, state, attended, pooled, training):
        """Eq. 7 behind activation and output projection, then the FFN."""
        # Paper: C^ = C + (...) Vp. Here: the sum of both terms is activated and
        # projected before it joins C, as MaX-DeepLab does with its attention.
        retrieved = clustering.combine_updates(attended, pooled)
        update = self.center_output(self.style.activate(retrieved), training=training)
        centers = clustering.update_centers(
            state.cluster_centers, self.center_drop_path(update, training=training)
        )
        centers = self.style.activate(centers)
        update = self.ffn_hidden(centers, training=training)
        update = self.ffn_output(update, training=training)
        return self.style.activate(
            centers + self.ffn_drop_path(update, training=training)
        )

    def _update_pixels(self, state, spread, training):
        """Eq. 8 behind activation and output convolution."""
        update = self.pixel_output(self.style.activate(spread), training=training)
        update = tf.reshape(update, [-1, *state.pixel_features.shape[1:]])
        return clustering.update_pixels(
            state.pixel_features, self.pixel_drop_path(update, training=training)
        )
