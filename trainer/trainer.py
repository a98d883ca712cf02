"""The training step: a wrapper of network and loss for `Model.fit`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf
import tf_keras

from cmt.outputs import Targets

_logger = logging.getLogger(__name__)

TOTAL = "total"
GRADIENT_NORM = "gradient_norm"


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

    def add(self, values: Mapping[str, tf.Tensor]) -> None:
        """Adds values [B] of a replica's images, in the graph of a step."""
        for name in values:
            self._places.setdefault(name, len(self._places) + 1)
        names = sorted(self._places, key=self._places.__getitem__)
        images = tf.cast(tf.size(next(iter(values.values()))), tf.float32)
        zero = tf.zeros([])
        sums = [tf.reduce_sum(values[n]) if n in values else zero for n in names]
        vector = tf.stack([images, *sums])
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
    `fit` returns: read `loss_meter` and reset it.

    Attributes:
      network: what is trained.
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
        self._objective = objective
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
        with tf.GradientTape() as tape:
            predictions = self.network(images, training=True)
            terms = self._objective.terms(targets, predictions)
            total = self._objective.total(terms)
            # Replicas sum their gradients, so each takes its share of the batch.
            loss = tf.reduce_sum(total) / self._global_batch_size
        norm = self._apply(tape.gradient(loss, variables), variables)
        self.step.assign_add(1)
        self.loss_meter.add(
            {**terms, TOTAL: total, GRADIENT_NORM: tf.fill(tf.shape(total), norm)}
        )
        return {}

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data: tuple[tf.Tensor, Targets]) -> dict[str, tf.Tensor]:
        """Losses of one batch without an update; runs in each replica."""
        images, targets = data
        terms = self._objective.terms(targets, self.network(images, training=False))
        self._validation_meter.add({**terms, TOTAL: self._objective.total(terms)})
        return {}

    def validate(self, dataset: tf.data.Dataset, *, steps: int) -> dict[str, float]:
        """Returns the mean of each loss term and the total over `steps` batches."""
        self._validation_meter.reset()
        self.evaluate(dataset, steps=steps, verbose=0)
        return self._validation_meter.means()

    def _apply(
        self, gradients: Sequence[tf.Tensor | None], variables: list[tf.Variable]
    ) -> tf.Tensor:
        """Sums over replicas, clips and updates; returns the norm before clipping."""
        pairs = list(zip(gradients, variables, strict=True))
        without = [v.name for g, v in pairs if g is None]
        if without:
            _logger.warning("no gradient reaches %s", ", ".join(without))
        updated = [v for g, v in pairs if g is not None]
        # Dense, because the norm of slices that share rows would be wrong.
        dense = [tf.convert_to_tensor(g) for g, _ in pairs if g is not None]
        # Summed here, once for all, because the norm is that of the sums.
        replica = tf.distribute.get_replica_context()
        dense = replica.all_reduce(tf.distribute.ReduceOp.SUM, dense)
        norm = tf.linalg.global_norm(dense)
        if self._clip_global_norm:
            dense, _ = tf.clip_by_global_norm(
                dense, self._clip_global_norm, use_norm=norm
            )
        by_variable = {v.ref(): g for g, v in zip(dense, updated, strict=True)}
        for name, group in self._groups.items():
            pairs = [(by_variable[v.ref()], v) for v in group if v.ref() in by_variable]
            if pairs:
                self.optimizers[name].apply_gradients(
                    pairs, experimental_aggregate_gradients=False
                )
        return norm
