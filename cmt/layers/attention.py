"""Axial attention with relative positions (Axial-DeepLab, MaX-DeepLab)."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from cmt.layers.base import Layer
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


class AxialAttention1D(Layer):
    """Self-attention along one axis, relative positions for query, key and value.

    The three similarities (content, query-position, key-position) and the two
    retrieved values (content, position) each have a batch norm, per head.

    Shapes: [B, L, C] -> [B, L, value_channels].

    Example:
      >>> attention = AxialAttention1D(8, 16, 4, style=Style())
      >>> attention(tf.zeros([2, 7, 12])).shape
      TensorShape([2, 7, 16])

    Raises:
      ValueError: key or value channels are not divisible by the heads, or there are
        no relative positions.
    """

    def __init__(
        self,
        key_channels: int,
        value_channels: int,
        num_heads: int,
        *,
        max_relative_positions: int = 255,
        style: Style,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if max_relative_positions < 1:
            raise ValueError(
                "max_relative_positions must be at least 1; "
                f"got {max_relative_positions}"
            )
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
        heads, length = self.num_heads, input_shape[1]
        depth = self.value_channels // heads
        channels = 2 * self.key_channels + self.value_channels
        for norm, shape in (
            (self.projection_norm, [None, length, channels]),
            (self.similarity_norm, [3, None, heads, length, length]),
            (self.retrieved_norm, [2, None, heads, length, depth]),
        ):
            with tf.name_scope(norm.name):
                norm.build(shape)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, *, training: bool | None = None) -> tf.Tensor:
        length = inputs.shape[1]
        projected = self._project(inputs, training)
        query, key, value = (
            _heads_first(x, self.num_heads)
            for x in tf.split(
                projected,
                [self.key_channels, self.key_channels, self.value_channels],
                axis=-1,
            )
        )
        tables = [self.query_positions, self.key_positions, self.value_positions]
        query_positions, key_positions, value_positions = tf.split(
            relative_embeddings(tf.concat(tables, axis=1), length),
            [table.shape[1] for table in tables],
            axis=2,
        )
        key_positions = tf.transpose(key_positions, [1, 0, 2])  # key first
        content, query_scale, key_scale = self._similarity_scales(
            query, key, query_positions, key_positions, training
        )
        # The norms' scales multiply queries and keys, which are far smaller than the
        # similarities; their offsets are the same for all keys, so that the softmax
        # takes them away.
        of_query = _dot_positions(query * query_scale, query_positions)
        of_key = _dot_positions(key * key_scale, key_positions)
        logits = (
            tf.matmul(query * content, key, transpose_b=True)
            + tf.transpose(of_query, [1, 2, 0, 3])
            + tf.transpose(of_key, [1, 2, 3, 0])
        )
        # In float32 whatever the layer computes with.
        weights = tf.nn.softmax(tf.cast(logits, tf.float32), axis=-1)  # over keys
        weights = tf.cast(weights, value.dtype)
        retrieved = [
            tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3]),
            tf.transpose(_mix_positions(weights, value_positions), [1, 0, 2, 3]),
        ]
        flat = [-1, length, self.value_channels]
        return self._sum_of_norms([tf.reshape(x, flat) for x in retrieved], training)

    def _project(self, inputs: tf.Tensor, training: bool | None) -> tf.Tensor:
        """Query, key and value side by side, [B, L, 2 key + value channels]."""
        # As a 1x1 convolution, which TensorFlow fuses with the norm in inference.
        projected = tf.nn.conv2d(
            inputs[tf.newaxis],
            tf.convert_to_tensor(self.qkv_kernel)[tf.newaxis, tf.newaxis],
            strides=1,
            padding="SAME",
        )
        projected = self.projection_norm.normalize_channels(
            projected, training=training
        )
        return tf.squeeze(projected, axis=0)

    def _similarity_scales(
        self, query, key, query_positions, key_positions, training
    ) -> list[tf.Tensor]:
        """Scales [heads, 1, 1] of the norms of the three similarities."""
        if self.similarity_norm.uses_batch(training):
            scale, offset = self.similarity_norm.use_batch(
                *_similarity_moments(query, key, query_positions, key_positions)
            )
        else:
            scale, offset = self.similarity_norm.affine(None)
        # So that a gradient reaches beta: it is 0, since offsets drop out.
        scale += 0.0 * offset
        scale = tf.cast(tf.reshape(scale, [3, self.num_heads, 1, 1]), query.dtype)
        return tf.unstack(scale)

    def _sum_of_norms(
        self, retrieved: list[tf.Tensor], training: bool | None
    ) -> tf.Tensor:
        """The sum of both retrieved values, each normalised."""
        norm = self.retrieved_norm
        if norm.uses_batch(training):
            values = tf.concat(retrieved, axis=-1)
            values = norm.normalize_channels(values, training=training)
            return tf.add_n(tf.split(values, 2, axis=-1))
        scale, offset = (
            tf.cast(tf.reshape(v, [2, self.value_channels]), retrieved[0].dtype)
            for v in norm.affine(None)
        )
        content, position = retrieved
        return content * scale[0] + position * scale[1] + tf.reduce_sum(offset, axis=0)


# Products with relative positions are batched over the position that both sides have.
# Written as matrix products of explicit layout, because `tf.einsum` transposes what it
# takes and gives once more than they need, which took a third of the layer's time.


def _heads_first(x: tf.Tensor, num_heads: int) -> tf.Tensor:
    """[B, L, heads d] to [B, heads, L, d]."""
    x = tf.reshape(x, [-1, x.shape[1], num_heads, x.shape[2] // num_heads])
    return tf.transpose(x, [0, 2, 1, 3])


def _positions_first(x: tf.Tensor) -> tf.Tensor:
    """[B, heads, L, d] to [L, B heads, d]."""
    return tf.reshape(tf.transpose(x, [2, 0, 1, 3]), [x.shape[2], -1, x.shape[3]])


def _dot_positions(x: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """x [B, heads, L, d] . positions [L, K, d] at equal l, to [L, B, heads, K]."""
    products = tf.matmul(_positions_first(x), positions, transpose_b=True)
    return tf.reshape(products, [x.shape[2], -1, x.shape[1], positions.shape[1]])


def _mix_positions(weights: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Sums over m of weights [B, heads, L, M] positions [L, M, d]: [L, B, heads, d]."""
    sums = tf.matmul(_positions_first(weights), positions)
    _, heads, length, _ = weights.shape
    return tf.reshape(sums, [length, -1, heads, positions.shape[2]])


def _similarity_moments(
    query: tf.Tensor,
    key: tf.Tensor,
    query_positions: tf.Tensor,
    key_positions: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and mean square of the three similarities over b, l and m, [3, heads].

    From Gram matrices: the sum over l and m of (q_l . k_m)^2 is that of the products of
    Q^T Q and K^T K. So the similarities, [B, heads, L, L] each, are not read for it.

    Args:
      query: [B, heads, L, d].
      key: [B, heads, L, d].
      query_positions: [L, L, d], query first.
      key_positions: [L, L, d], key first.
    """
    query, key, query_positions, key_positions = (
        tf.cast(x, tf.float32) for x in (query, key, query_positions, key_positions)
    )
    length = query.shape[2]
    count = tf.cast(tf.shape(query)[0] * length * length, tf.float32)
    sums = [tf.reduce_sum(tf.reduce_sum(query, 2) * tf.reduce_sum(key, 2), [0, 2])]
    squares = [tf.reduce_sum(_gram(query) * _gram(key), [0, 2, 3])]
    for x, positions in ((query, query_positions), (key, key_positions)):
        x = tf.transpose(x, [2, 1, 0, 3])  # [L, heads, B, d]
        positions = positions[:, tf.newaxis]
        of_sums = tf.reduce_sum(x, 2) * tf.reduce_sum(positions, 2)
        sums.append(tf.reduce_sum(of_sums, [0, 2]))
        squares.append(tf.reduce_sum(_gram(x) * _gram(positions), [0, 2, 3]))
    return tf.stack(sums) / count, tf.stack(squares) / count


def _gram(x: tf.Tensor) -> tf.Tensor:
    """x [..., n, d] to [..., d, d]."""
    return tf.matmul(x, x, transpose_a=True)


class AxialAttention2D(Layer):
    """Axial attention along height, then along width.

    Shapes: [B, H, W, C] -> [B, H, W, value_channels]; H and W are static.

    Example:
      >>> attention = AxialAttention2D(8, 16, 4, style=Style())
      >>> attention(tf.zeros([2, 7, 9, 12])).shape
      TensorShape([2, 7, 9, 16])
    """

    def __init__(
        self,
        key_channels: int,
        value_channels: int,
        num_heads: int,
        *,
        max_relative_positions: int = 255,
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
