"""Batch norm over any axes, in few operations.

Keras's layer makes dozens of small operations on tensors that are not images, and
there are a hundred such norms in a network.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from cmt.layers.base import Layer
from cmt.layers.recompute import is_recomputing

_local = threading.local()  # Replicas of a strategy run in threads of their own.


class KeptUpdates:
    """Updates of moving statistics, to be made later and all at once.

    A network has hundreds of small ones, of some nine operations each one by one.
    """

    def __init__(self):
        self._variables: dict[Hashable, tf.Variable] = {}
        # A variable is once in each, again for further parts of a batch.
        self._rounds: list[dict[Hashable, tuple[tf.Tensor, float]]] = []

    def add(self, variable: tf.Variable, batch: tf.Tensor, rate: float) -> None:
        """Keeps `variable -= (variable - batch) * rate`."""
        key = variable.ref()
        self._variables[key] = variable
        rounds = (r for r in self._rounds if key not in r)
        found = next(rounds, None)
        if found is None:
            self._rounds.append(found := {})
        found[key] = batch, rate

    def before_and_after(self) -> tuple[tf.Tensor, tf.Tensor]:
        """All numbers as they are and as the updates make them, in one row each."""
        before = after = _row(v.read_value() for v in self._variables.values())
        for kept in self._rounds:
            batches, rates = [], []
            for key, variable in self._variables.items():
                batch, rate = kept.get(key, (tf.zeros(variable.shape), 0.0))
                batches.append(batch)
                rates.append(np.full(variable.shape.num_elements(), rate, np.float32))
            after -= (after - _row(batches)) * np.concatenate(rates)
        return before, after

    def assign(self, row: tf.Tensor) -> None:
        """Gives the variables the numbers of a row of `before_and_after`."""
        variables = self._variables.values()
        sizes = [v.shape.num_elements() for v in variables]
        parts = tf.split(row, sizes) if sizes else []
        for variable, part in zip(variables, parts, strict=True):
            variable.assign(_shaped(part, variable.shape))


@contextlib.contextmanager
def kept_updates() -> Iterator[KeptUpdates]:
    """Makes norms keep their updates, for the calls inside."""
    outer, _local.kept = getattr(_local, "kept", None), KeptUpdates()
    try:
        yield _local.kept
    finally:
        _local.kept = outer


class BatchNorm(Layer):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta.

    Statistics are in float32 whatever the inputs are; outputs have their type. The
    moving variance follows the batch's biased variance; the unbiased one, as in Keras,
    for a single axis of a tensor of rank 4.

    Args:
      axis: the axes that keep statistics of their own; all others are averaged.
      momentum: weight of the old moving statistics in an update.
      epsilon: added to the variance.
      gamma: initial scale.
      synchronized: statistics over all replicas, which have equal batches; with one
        replica nothing is another.

    Example:
      >>> norm = BatchNorm(axis=1)
      >>> norm(tf.zeros([2, 3, 5, 7]), training=True).shape
      TensorShape([2, 3, 5, 7])
      >>> norm.gamma.shape
      TensorShape([3])
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        *,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        gamma: float = 1.0,
        synchronized: bool = True,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.axis = [axis] if isinstance(axis, int) else list(axis)
        self.momentum = momentum
        self.epsilon = epsilon
        self.gamma_start = gamma
        self.synchronized = synchronized

    def build(self, input_shape):
        rank = len(input_shape)
        if not all(-rank <= axis < rank for axis in self.axis):
            raise ValueError(
                f"axis must be in a tensor of rank {rank}; got {list(self.axis)}"
            )
        kept = [axis % rank for axis in self.axis]
        self.reduced = [axis for axis in range(rank) if axis not in kept]
        self.is_unbiased = rank == 4 and len(kept) == 1
        self.is_channels_last = kept == [rank - 1]
        shape = [input_shape[axis] if axis in kept else 1 for axis in range(rank)]
        self.broadcast_shape = shape
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
        super().build(input_shape)

    def uses_batch(self, training: bool | None) -> bool:
        """Whether statistics are those of the batch: in training, unless frozen."""
        return bool(training) and self.trainable

    def call(self, inputs: tf.Tensor, *, training: bool | None = None) -> tf.Tensor:
        if self.is_channels_last:
            return self.normalize_channels(inputs, training=training)
        values = tf.cast(inputs, tf.float32)
        moments = None
        if self.uses_batch(training):
            moments = tf.nn.moments(values, self.reduced, keepdims=True)
            moments = self._update_from(*moments, inputs)
        scale, offset = self.affine(moments)
        scale, offset = (tf.reshape(v, self.broadcast_shape) for v in (scale, offset))
        return tf.cast(values * scale + offset, inputs.dtype)

    def affine(
        self, moments: tuple[tf.Tensor, tf.Tensor] | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """What a normalised value is times and plus, in float32.

        Args:
          moments: mean and biased variance of the batch, as many numbers as the
            variables have; None for the moving statistics.

        Returns:
          Scale and offset, shaped like the variables.
        """
        mean, variance = moments or (self.moving_mean, self.moving_variance)
        mean, variance = (_shaped(v, self.gamma.shape) for v in (mean, variance))
        scale = self.gamma * tf.math.rsqrt(variance + self.epsilon)
        return scale, self.beta - mean * scale

    def normalize_channels(
        self, inputs: tf.Tensor, *, training: bool | None = None
    ) -> tf.Tensor:
        """The norm of [..., C], C as many as the variables have numbers."""
        uses_batch = self.uses_batch(training)
        is_shared = uses_batch and self.synchronized and _num_replicas() > 1
        # One channel, in inference: the fused kernel takes eight times as long.
        if not is_shared and (uses_batch or inputs.shape[-1] > 1):
            return self._fused(inputs, uses_batch)
        values = tf.cast(inputs, tf.float32)
        moments = None
        if uses_batch:
            moments = tf.nn.moments(values, list(range(inputs.shape.rank - 1)))
            moments = self._update_from(*moments, inputs)
        scale, offset = (_shaped(v, inputs.shape[-1:]) for v in self.affine(moments))
        return tf.cast(values * scale + offset, inputs.dtype)

    def _fused(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        channels = inputs.shape[-1]
        is_image = inputs.shape.rank == 4
        images = inputs if is_image else tf.reshape(inputs, [-1, 1, 1, channels])

        def flat(variable):
            return _shaped(variable, [channels])

        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=images,
            scale=flat(self.gamma),
            offset=flat(self.beta),
            mean=tf.zeros([0]) if training else flat(self.moving_mean),
            variance=tf.zeros([0]) if training else flat(self.moving_variance),
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            if not self.is_unbiased:  # The kernel's variance is.
                count = tf.cast(tf.size(inputs) / channels, tf.float32)
                variance *= (count - 1) / count
            self.update(mean, variance)
        if is_image:
            return outputs
        known = inputs.shape[1:].is_fully_defined()
        shape = [-1, *inputs.shape[1:]] if known else tf.shape(inputs)
        return tf.reshape(outputs, shape)

    def _update_from(
        self, mean: tf.Tensor, variance: tf.Tensor, inputs: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Updates the moving statistics; returns the moments of all replicas."""
        count = tf.size(inputs) // tf.size(mean)
        if self.synchronized:
            mean, variance = _over_replicas(mean, variance)
            count *= _num_replicas()
        self.update(mean, variance, count=count if self.is_unbiased else None)
        return mean, variance

    def update(
        self, mean: tf.Tensor, variance: tf.Tensor, *, count: tf.Tensor | None = None
    ) -> None:
        """Moves the moving statistics towards those of the batch.

        Args:
          mean: mean of the batch, a number for each channel.
          variance: variance of the batch, a number for each channel.
          count: values behind each number, to unbias a biased variance; None to leave
            it.
        """
        if is_recomputing():
            return
        if count is not None:
            count = tf.cast(count, tf.float32)
            variance *= count / (count - 1)
        for moving, batch in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            batch = _shaped(batch, moving.shape)
            kept = getattr(_local, "kept", None)
            if kept is None:
                moving.assign_sub((moving - batch) * (1 - self.momentum))
            else:
                kept.add(moving, batch, 1 - self.momentum)

    def use_batch(
        self, mean: tf.Tensor, mean_square: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Scale and offset in training, for who knows the moments without the values.

        Args:
          mean: mean of the batch, a number for each channel, float32.
          mean_square: mean of the squares, a number for each channel, float32.

        Returns:
          As `affine`; the moving statistics are updated.
        """
        moments = mean, tf.maximum(mean_square - mean * mean, 0.0)
        if self.synchronized:
            moments = _over_replicas(*moments)
        self.update(*moments)
        return self.affine(moments)


def moving_statistics(network: tf.Module) -> set[Hashable]:
    """References to the variables that the batch norms of a network update."""
    norms = [m for m in network.submodules if isinstance(m, BatchNorm)]
    return {v.ref() for n in norms for v in (n.moving_mean, n.moving_variance)}


def _shaped(values: tf.Tensor, shape: Sequence[int] | tf.TensorShape) -> tf.Tensor:
    """Leaves alone what has the shape: a reshape for nothing costs a step its time."""
    if values.shape == tf.TensorShape(shape):
        return values
    return tf.reshape(values, shape)


def _row(values: Iterable[tf.Tensor]) -> tf.Tensor:
    """All numbers, one after the other."""
    flat = [_shaped(v, [v.shape.num_elements()]) for v in values]
    return tf.concat(flat, 0) if flat else tf.zeros([0])


def _num_replicas() -> int:
    replica = tf.distribute.get_replica_context()
    return 1 if replica is None else replica.num_replicas_in_sync


def _over_replicas(mean: tf.Tensor, variance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Moments of the global batch from those of each replica's, equal in size."""
    if _num_replicas() == 1:
        return mean, variance
    sums = tf.stack([mean, variance + mean * mean])
    replica = tf.distribute.get_replica_context()
    sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, sums)
    mean, mean_square = tf.unstack(sums / _num_replicas())
    return mean, tf.maximum(mean_square - mean * mean, 0.0)
