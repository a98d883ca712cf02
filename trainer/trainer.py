"""The training step: a wrapper of network and loss for `Model.fit`."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf
import tf_keras

from cmt.outputs import Targets
from cmt.trainer.finite_guard import (
    GRADIENT_NORM,
    MOVING_STATISTICS,
    TOTAL,
    FiniteGuard,
    NotFinite,
)
from cmt.trainer.optimizer import change_nothing_while

_logger = logging.getLogger(__name__)


class Objective(Protocol):
    """What the trainer needs of a loss; `cmt.losses.PanopticLoss` is one."""

    def terms(self, targets: Targets, predictions: Any) -> dict[str, tf.Tensor]:
        """Returns each term [B], unweighted; terms that do not apply are absent."""

    def total(self, terms: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the weighted sum [B]."""


class LossMeter:
    """Means over images, replicas and steps, in one vector on the device.

    Which values there are is known when a step is traced, so the vector has room for
    more. Reading it is the only thing that waits for the device.
    """

    _ROOM = 256

    def __init__(self) -> None:
        """Makes the vector, in the scope of the strategy."""
        self._places: dict[str, int] = {}
        self._sums = tf.Variable(
            tf.zeros([self._ROOM]),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
            name="loss_sums",
        )

    def add(
        self, values: Mapping[str, tf.Tensor], *, unless: tf.Tensor | bool = False
    ) -> None:
        """Adds values [B] of a replica's images, in the graph of a step.

        Args:
          values: by name.
          unless: [] bool, whether to leave all as it is.
        """
        for name in values:
            self._places.setdefault(name, len(self._places) + 1)
        names = sorted(self._places, key=self._places.__getitem__)
        images = tf.cast(tf.size(next(iter(values.values()))), tf.float32)
        zero = tf.zeros([])
        sums = [tf.reduce_sum(values[n]) if n in values else zero for n in names]
        vector = tf.where(unless, zero, tf.stack([images, *sums]))
        self._sums.assign_add(tf.pad(vector, [[0, self._ROOM - vector.shape[0]]]))

    def means(self) -> dict[str, float]:
        """Returns the means since the last reset; empty if nothing was added."""
        images, *sums = self._sums.read_value().numpy().tolist()
        if not images:
            return {}
        return {name: sums[i - 1] / images for name, i in self._places.items()}

    def reset(self) -> None:
        """Forgets what was added."""
        self._sums.assign(tf.zeros([self._ROOM]))


class Trainer(tf_keras.Model):
    """Trains a network with two optimizers: the backbone's and that of the rest.

    `fit` takes a data set of (images [B, H, W, 3], Targets). Losses are not in what
    `fit` returns: read `loss_meter` and reset it. From the first step on whose losses
    or gradient are not finite, steps change nothing: ask `not_finite`.

    Attributes:
      network: what is trained.
      objective: the loss.
      step: [] int64, updates so far.
      optimizers: by the name they have in a checkpoint.
      loss_meter: means of each loss term, their weighted total and the norm of the
        gradient (before clipping) over all variables.
    """

    def __init__(
        self,
        network: tf_keras.Model,
        objective: Objective,
        *,
        optimizer: tf_keras.optimizers.Optimizer,
        backbone_optimizer: tf_keras.optimizers.Optimizer,
        global_batch_size: int,
        clip_global_norm: float = 0.0,
    ):
        """Wraps a network that is built, in the scope of the strategy.

        Args:
          network: has `backbone_variables` and `other_variables`, which together are
            its trainable variables.
          objective: the loss.
          optimizer: updates `other_variables`.
          backbone_optimizer: updates `backbone_variables`.
          global_batch_size: images in a step, over all replicas.
          clip_global_norm: gradients are scaled down to this norm, over all
            variables; 0 for no limit.
        """
        super().__init__(name="trainer")
        self.network = network
        self.optimizers = {
            "optimizer": optimizer,
            "backbone_optimizer": backbone_optimizer,
        }
        self._groups = {
            "optimizer": list(network.other_variables),
            "backbone_optimizer": list(network.backbone_variables),
        }
        self.objective = objective
        self._global_batch_size = global_batch_size
        self._clip_global_norm = clip_global_norm
        self.step = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            name="step",
        )
        self.loss_meter = LossMeter()
        self._validation_meter = LossMeter()
        self._guard = FiniteGuard(global_batch_size)
        self._restored = [*network.non_trainable_variables, self.step]
        for name, group in self._groups.items():
            self._restored += change_nothing_while(
                self._guard.stopped, self.optimizers[name], group
            )
        self.compile(optimizer=[optimizer, backbone_optimizer])

    def call(self, images: tf.Tensor, *, training: bool = False) -> Any:
        """Returns the network's output."""
        return self.network(images, training=training)

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: tuple[tf.Tensor, Targets]) -> dict[str, tf.Tensor]:
        """One update from one batch; runs in each replica.

        Nothing below branches on tensors in Python, and converting all of network,
        loss and optimizer takes longer than tracing them.
        """
        images, targets = data
        variables = [v for group in self._groups.values() for v in group]
        before = [v.read_value() for v in self._restored]
        with tf.GradientTape() as tape:
            predictions = self.network(images, training=True)
            terms = self.objective.terms(targets, predictions)
            total = self.objective.total(terms)
            # Replicas sum their gradients, so each takes its share of the batch.
            loss = tf.reduce_sum(total) / self._global_batch_size
        values = {
            **terms,
            TOTAL: total,
            MOVING_STATISTICS: tf.fill(tf.shape(total), self._moving_statistics()),
        }
        gradients, num_bad, bad_images = self._sum_over_replicas(
            tape.gradient(loss, variables), variables, values
        )
        norm = tf.linalg.global_norm(list(gradients.values()))
        had_stopped = self._guard.update(
            (num_bad == 0.0) & tf.math.is_finite(norm),
            bad_images=bad_images,
            num_bad=num_bad,
            image_ids=getattr(targets, "image_ids", None),
        )
        self._apply(gradients, norm)
        self.step.assign_add(1)
        self._guard.restore(self._restored, before)
        values[GRADIENT_NORM] = tf.fill(tf.shape(total), norm)
        # The bad step itself is added: its sums show which value was not finite.
        self.loss_meter.add(values, unless=had_stopped)
        return {}

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data: tuple[tf.Tensor, Targets]) -> dict[str, tf.Tensor]:
        """Losses of one batch without an update; runs in each replica."""
        images, targets = data
        terms = self.objective.terms(targets, self.network(images, training=False))
        self._validation_meter.add({**terms, TOTAL: self.objective.total(terms)})
        return {}

    def validate(self, dataset: tf.data.Dataset, *, steps: int) -> dict[str, float]:
        """Returns the mean of each loss term and the total over `steps` batches."""
        self._validation_meter.reset()
        self.evaluate(dataset, steps=steps, verbose=0)
        return self._validation_meter.means()

    def not_finite(self) -> NotFinite | None:
        """Returns what stopped training, or None; waits for the device."""
        if not self._guard.has_stopped():
            return None
        return self._guard.read(self.step, self.loss_meter.means())

    def _moving_statistics(self) -> tf.Tensor:
        """Returns [] 0, or NaN where a moving statistic of the network is not finite.

        Losses in training do not show it, because layers then use the statistics of the
        batch.
        """
        sums = [
            tf.reduce_sum(tf.cast(v.read_value(), tf.float32))
            for v in self.network.non_trainable_variables
        ]
        if not sums:
            return tf.zeros([])
        return tf.where(tf.math.is_finite(tf.add_n(sums)), 0.0, float("nan"))

    def _sum_over_replicas(
        self,
        gradients: Sequence[tf.Tensor | None],
        variables: Sequence[tf.Variable],
        values: Mapping[str, tf.Tensor],
    ) -> tuple[dict[Hashable, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Sums over replicas what all of them have to agree on, in one operation.

        Args:
          gradients: of this replica, None where the loss does not depend on the
            variable.
          variables: one for each gradient.
          values: [B] of this replica.

        Returns:
          The gradients by `ref()` of their variable, the number of images with values
          that are not finite, and [B] bool, which of this replica they are.
        """
        pairs = list(zip(gradients, variables, strict=True))
        without = [v.name for g, v in pairs if g is None]
        if without:
            _logger.warning("no gradient reaches %s", ", ".join(without))
        # Dense, because the norm of slices that share rows would be wrong.
        known = {v.ref(): tf.convert_to_tensor(g) for g, v in pairs if g is not None}
        finite = [tf.math.is_finite(value) for value in values.values()]
        bad_images = ~tf.reduce_all(tf.stack(finite), axis=0)
        num_bad = tf.reduce_sum(tf.cast(bad_images, tf.float32))
        # Here, once for all, because the norm is that of the sums.
        replica = tf.distribute.get_replica_context()
        *sums, num_bad = replica.all_reduce(
            tf.distribute.ReduceOp.SUM, [*known.values(), num_bad]
        )
        return dict(zip(known, sums, strict=True)), num_bad, bad_images

    def _apply(self, gradients: Mapping[Hashable, tf.Tensor], norm: tf.Tensor) -> None:
        """Clips and updates; gradients are zeros where training has stopped.

        Args:
          gradients: by `ref()` of their variable, over all replicas.
          norm: [] global norm of the gradients.
        """
        scale = tf.ones([])
        if self._clip_global_norm:
            limit = self._clip_global_norm
            scale = limit / tf.maximum(norm, limit)
        scale = tf.where(self._guard.stopped.read_value(), 0.0, scale)
        for name, group in self._groups.items():
            pairs = [
                (tf.math.multiply_no_nan(gradients[v.ref()], scale), v)
                for v in group
                if v.ref() in gradients
            ]
            if pairs:
                self.optimizers[name].apply_gradients(
                    pairs, experimental_aggregate_gradients=False
                )
