"""Axial attention with relative positions (Axial-DeepLab, MaX-DeepLab)."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from cmt.layers.conv import Style


def relative_embeddings(table: tf.Tensor, length: int) -> tf.Tensor:
    """The row of `table` for each pair of positions, without a gather.

    A gather has sparse gradients, which XLA cannot deduplicate; tiling the table and
    reading it with a row length one shorter than it has shifts each row by one.

    Args:
      table: [2 R - 1, d]; row R - 1 + k is the offset k = key - query.
      length: positions; offsets beyond R - 1 take the outermost row.

    Returns:
      [length, length, d], query first.
    """
    reach = (table.shape[0] + 1) // 2
    kept = min(length, reach)
    rows = table[reach - kept : reach + kept - 1]
    if length > reach:
        extra = [length - reach, table.shape[1]]
        rows = tf.concat(
            [
                tf.broadcast_to(table[:1], extra),
                rows,
                tf.broadcast_to(table[-1:], extra),
            ],
            axis=0,
        )
    if length == 1:
        return rows[tf.newaxis]
    channels = table.shape[1]
    flat = tf.reshape(tf.tile(rows, [length, 1]), [length * (2 * length - 1), channels])
    start = length - 1
    flat = flat[start : start + length * (2 * length - 2)]
    return tf.reshape(flat, [length, 2 * length - 2, channels])[:, :length]


class AxialAttention1D(tf_keras.layers.Layer):
    """Self-attention along one axis, relative positions for query, key and value.

    The three similarities (content, query-position, key-position) and the two
    retrieved values (content, position) each have a batch norm, per head.

    Shapes: [B, L, C] -> [B, L, value_channels].

    Raises:
      ValueError: key or value channels are not divisible by the heads.
    """

    def __init__(
        self,
        key_channels: int,
        value_channels: int,
        num_heads: int,
        *,
        max_relative_positions: int,
        style: Style,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, value in (("key", key_channels), ("value", value_channels)):
            if value % num_heads:
                raise ValueError(
                    f"{name}_channels must be divisible by num_heads; "
                    f"got {value} and {num_heads}"
                )
        self.key_channels = key_channels
        self.value_channels = value_channels
        self.num_heads = num_heads
        self.max_relative_positions = max_relative_positions
        self.projection_norm = style.norm(name="projection_norm")
        # Of [3, B, heads, L, L] and [2, B, heads, L, d].
        self.similarity_norm = style.norm(axis=[0, 2], name="similarity_norm")
        self.retrieved_norm = style.norm(axis=[0, 2, 4], name="retrieved_norm")

    def build(self, input_shape):
        channels = input_shape[-1]
        self.qkv_kernel = self.add_weight(
            name="qkv_kernel",
            shape=[channels, 2 * self.key_channels + self.value_channels],
            initializer=tf_keras.initializers.TruncatedNormal(stddev=channels**-0.5),
        )

        def table(name, depth):
            return self.add_weight(
                name=name,
                shape=[2 * self.max_relative_positions - 1, depth // self.num_heads],
                initializer=tf_keras.initializers.TruncatedNormal(stddev=1.0),
            )

        self.query_positions = table("query_positions", self.key_channels)
        self.key_positions = table("key_positions", self.key_channels)
        self.value_positions = table("value_positions", self.value_channels)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, *, training: bool | None = None) -> tf.Tensor:
        length = inputs.shape[1]
        projected = self.projection_norm(
            tf.einsum("blc,cd->bld", inputs, self.qkv_kernel), training=training
        )
        query, key, value = (
            tf.reshape(x, [-1, length, self.num_heads, x.shape[-1] // self.num_heads])
            for x in tf.split(
                projected,
                [self.key_channels, self.key_channels, self.value_channels],
                axis=-1,
            )
        )
        query_positions = relative_embeddings(self.query_positions, length)
        key_positions = relative_embeddings(self.key_positions, length)
        value_positions = relative_embeddings(self.value_positions, length)
        similarity = tf.stack(
            [
                tf.einsum("blhd,bmhd->bhlm", query, key),
                tf.einsum("blhd,lmd->bhlm", query, query_positions),
                tf.einsum("bmhd,lmd->bhlm", key, key_positions),
            ]
        )
        logits = tf.reduce_sum(self.similarity_norm(similarity, training=training), 0)
        weights = tf.nn.softmax(logits, axis=-1)  # over keys
        retrieved = tf.stack(
            [
                tf.einsum("bhlm,bmhd->bhld", weights, value),
                tf.einsum("bhlm,lmd->bhld", weights, value_positions),
            ]
        )
        outputs = tf.reduce_sum(self.retrieved_norm(retrieved, training=training), 0)
        outputs = tf.transpose(outputs, [0, 2, 1, 3])
        return tf.reshape(outputs, [-1, length, self.value_channels])


class AxialAttention2D(tf_keras.layers.Layer):
    """Axial attention along height, then along width.

    Shapes: [B, H, W, C] -> [B, H, W, value_channels]; H and W are static.
    """

    def __init__(
        self,
        key_channels: int,
        value_channels: int,
        num_heads: int,
        *,
        max_relative_positions: int,
        style: Style,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.value_channels = value_channels
        self.height_axis, self.width_axis = (
            AxialAttention1D(
                key_channels,
                value_channels,
                num_heads,
                max_relative_positions=max_relative_positions,
                style=style,
                name=name,
            )
            for name in ("height_axis", "width_axis")
        )

    def call(self, inputs: tf.Tensor, *, training: bool | None = None) -> tf.Tensor:
        _, height, width, channels = inputs.shape
        columns = tf.reshape(tf.transpose(inputs, [0, 2, 1, 3]), [-1, height, channels])
        columns = self.height_axis(columns, training=training)
        columns = tf.reshape(columns, [-1, width, height, self.value_channels])
        rows = tf.reshape(
            tf.transpose(columns, [0, 2, 1, 3]), [-1, width, self.value_channels]
        )
        rows = self.width_axis(rows, training=training)
        return tf.reshape(rows, [-1, height, width, self.value_channels])
