"""Batch norm over any axes, in few operations.

Keras's layer is used where statistics are synchronised over replicas; alone, on
tensors that are not images, it makes dozens of small operations, and there are a
hundred such norms in a network.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras


class BatchNorm(tf_keras.layers.Layer):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta.

    The moving variance follows the batch's biased variance; the unbiased one, as in
    Keras, for a single axis of a tensor of rank 4.

    Args:
      axis: the axes that keep statistics of their own; all others are averaged.
      momentum: weight of the old moving statistics in an update.
      epsilon: added to the variance.
      gamma: initial scale.
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        *,
        momentum: float,
        epsilon: float,
        gamma: float,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.axis = [axis] if isinstance(axis, int) else list(axis)
        self.momentum = momentum
        self.epsilon = epsilon
        self.gamma_start = gamma

    def build(self, input_shape):
        rank = len(input_shape)
        kept = [axis % rank for axis in self.axis]
        self.reduced = [axis for axis in range(rank) if axis not in kept]
        self.is_unbiased = rank == 4 and len(kept) == 1
        self.channels_last = kept == [rank - 1]
        shape = [input_shape[axis] if axis in kept else 1 for axis in range(rank)]
        if len(kept) == 1:
            shape = [input_shape[kept[0]]]

        def weight(name, value, trainable):
            moving = (
                {}
                if trainable
                else dict(
                    synchronization=tf.VariableSynchronization.ON_READ,
                    aggregation=tf.VariableAggregation.MEAN,
                )
            )
            return self.add_weight(
                name=name,
                shape=shape,
                dtype=tf.float32,
                initializer=tf_keras.initializers.Constant(value),
                trainable=trainable,
                experimental_autocast=False,
                **moving,
            )

        self.gamma = weight("gamma", self.gamma_start, True)
        self.beta = weight("beta", 0.0, True)
        self.moving_mean = weight("moving_mean", 0.0, False)
        self.moving_variance = weight("moving_variance", 1.0, False)
        self.broadcast_shape = [
            input_shape[axis] if axis in kept else 1 for axis in range(rank)
        ]
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, *, training: bool | None = None) -> tf.Tensor:
        if self.channels_last:
            return self._fused(inputs, bool(training))
        gamma, beta, mean, variance = (
            tf.reshape(v, self.broadcast_shape)
            for v in (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        )
        if training:
            mean, variance = tf.nn.moments(
                tf.cast(inputs, tf.float32), self.reduced, keepdims=True
            )
            unbiased = variance
            if self.is_unbiased:
                count = tf.cast(tf.size(inputs) // tf.size(mean), tf.float32)
                unbiased *= count / (count - 1)
            self._update(mean, unbiased)
        scale = gamma * tf.math.rsqrt(variance + self.epsilon)
        offset = beta - mean * scale
        return inputs * tf.cast(scale, inputs.dtype) + tf.cast(offset, inputs.dtype)

    def _fused(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        channels = inputs.shape[-1]
        is_image = inputs.shape.rank == 4
        images = inputs if is_image else tf.reshape(inputs, [-1, 1, 1, channels])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=images,
            scale=self.gamma,
            offset=self.beta,
            mean=tf.zeros([0]) if training else self.moving_mean,
            variance=tf.zeros([0]) if training else self.moving_variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            if not self.is_unbiased:
                count = tf.cast(tf.size(inputs) / channels, tf.float32)
                variance *= (count - 1) / count
            self._update(mean, variance)
        return outputs if is_image else tf.reshape(outputs, tf.shape(inputs))

    def _update(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Moves the moving statistics towards those of the batch."""
        for moving, batch in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            batch = tf.reshape(batch, moving.shape)
            moving.assign_sub((moving - batch) * (1 - self.momentum))
