"""The training step: a wrapper of network and loss for `Model.fit`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import tensorflow as tf
import tf_keras

from cmt.layers.norm import kept_updates, moving_statistics
from cmt.layers.recompute import after
from cmt.outputs import Targets
from cmt.random_numbers import drawn_from
from cmt.trainer.finite_guard import (
    GRADIENT_NORM,
    MOVING_STATISTICS,
    TOTAL,
    FiniteGuard,
    NotFinite,
    update_each,
)
from cmt.trainer.loss_meter import LossMeter
from cmt.trainer.optimizer import change_nothing_while

# In what a call of the train function returns.
INPUT_SECONDS = "input_seconds"

_logger = logging.getLogger(__name__)


class Objective(Protocol):
    """What the trainer needs of a loss; `cmt.losses.PanopticLoss` is one."""

    def terms(self, targets: Targets, predictions: Any) -> dict[str, tf.Tensor]:
        """Returns each term [B], unweighted; terms that do not apply are absent."""

    def total(self, terms: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the weighted sum [B]."""


class Trainer(tf_keras.Model):
    """Trains a network with two optimizers: the backbone's and that of the rest.

    `fit` takes a data set of (images [B, H, W, 3], Targets). Losses are not in what
    `fit` returns: read `loss_meter` and reset it. From the first step on whose losses
    or gradient are not finite, steps change nothing: ask `not_finite`.

    Attributes:
      network: what is trained.
      averaged: the network of moving averages of its weights; None for none.
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
        seed: int = 0,
        accumulation_steps: int = 1,
        averaged: tf_keras.Model | None = None,
        average_decay: float = 0.0,
        steps_per_execution: int = 1,
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
          seed: of the random numbers of steps, such as for drop path.
          accumulation_steps: parts that a replica's images are split into, one after
            the other.
          averaged: a network as `network` with the same weights, which become moving
            averages of its weights; None for no averages.
          average_decay: of these averages, from 0 to below 1.
          steps_per_execution: steps that devices make before `fit` calls callbacks.
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
        self._seed = seed
        self._parts = accumulation_steps
        self.averaged = averaged
        self._average_decay = average_decay
        self.step = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            name="step",
        )
        self.loss_meter = LossMeter()
        self._validation_meter = LossMeter()
        self._norms: Callable | None = None
        self._guard = FiniteGuard(global_batch_size)
        kept = moving_statistics(network)
        others = [v for v in network.non_trainable_variables if v.ref() not in kept]
        self._restored = [*others, self.step]
        for name, group in self._groups.items():
            self._restored += change_nothing_while(
                self._guard.stopped, self.optimizers[name], group
            )
        self.compile(
            optimizer=[optimizer, backbone_optimizer],
            steps_per_execution=steps_per_execution,
        )

    @property
    def evaluated(self) -> tf_keras.Model:
        """The network to evaluate: that of the averages, where there are any."""
        return self.network if self.averaged is None else self.averaged

    def call(self, images: tf.Tensor, *, training: bool = False) -> Any:
        """Returns the network's output."""
        return self.network(images, training=training)

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: tuple[tf.Tensor, Targets]) -> dict[str, tf.Tensor]:
        """One update from one batch; runs in each replica.

        Nothing below branches on tensors in Python, and converting all of network,
        loss and optimizer takes longer than tracing them.
        """
        variables = [v for group in self._groups.values() for v in group]
        before = [v.read_value() for v in self._restored]
        with kept_updates() as updates:
            gradients, values = self._accumulate(data, variables)
        statistics, new_statistics = updates.before_and_after()
        total = values[TOTAL]
        # Losses in training do not show them: layers then use those of the batch.
        is_finite = tf.math.is_finite(tf.reduce_sum(new_statistics))
        values[MOVING_STATISTICS] = tf.fill(
            tf.shape(total), tf.where(is_finite, 0.0, float("nan"))
        )
        gradients, num_bad, bad_images = self._sum_over_replicas(
            gradients, variables, values
        )
        norm = tf.linalg.global_norm(list(gradients.values()))
        had_stopped = self._guard.update(
            (num_bad == 0.0) & tf.math.is_finite(norm),
            bad_images=bad_images,
            num_bad=num_bad,
            image_ids=getattr(data[1], "image_ids", None),
        )
        self._apply(gradients, norm)
        self.step.assign_add(1)
        stopped = self._guard.stopped.read_value()
        updates.assign(tf.where(stopped, statistics, new_statistics))
        self._guard.restore(self._restored, before)
        self._average()
        values[GRADIENT_NORM] = tf.fill(tf.shape(total), norm)
        # The bad step itself is added: its sums show which value was not finite.
        self.loss_meter.add(values, unless=had_stopped)
        return {}

    def make_train_function(self, force: bool = False) -> Callable:
        """As Keras's, but the function returns how long it waited for batches.

        NaN where TensorFlow runs deterministic operations alone: it then has no clock.
        """
        if self.train_function is None or force:
            self.train_function = tf.function(self._execute, autograph=False)
        return self.train_function

    def _execute(self, iterator: Iterator) -> dict[str, tf.Tensor]:
        """Makes the steps of one execution, in all replicas."""

        def step(number: tf.Tensor, seconds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            before = now()
            with tf.control_dependencies([before]):
                data = next(iterator)
            with tf.control_dependencies(tf.nest.flatten(data, expand_composites=True)):
                after = now()
            self.distribute_strategy.run(self.train_step, args=(data,))
            return number + 1, seconds + tf.cast(after - before, tf.float32)

        with tf.init_scope():
            is_single = int(self._steps_per_execution.numpy()) == 1
            try:
                tf.timestamp()
                now = tf.timestamp
            except tf.errors.FailedPreconditionError:  # Only deterministic operations.
                now = functools.partial(tf.constant, float("nan"), tf.float64)
        # Keras lowers this variable where fewer steps are left.
        steps = self._steps_per_execution.read_value()
        first = tf.zeros([], steps.dtype), tf.zeros([])
        if is_single:
            _, seconds = step(*first)
        else:
            _, seconds = tf.while_loop(lambda number, _: number < steps, step, first)
        return {INPUT_SECONDS: seconds}

    def weight_norms(self) -> dict[str, float]:
        """Returns the norm of the weights of each optimizer's group, by its name."""
        if self._norms is None:
            self._norms = tf.function(
                lambda: {
                    name: tf.linalg.global_norm([v.read_value() for v in group])
                    for name, group in self._groups.items()
                    if group
                },
                autograph=False,
            )
        return {name: float(norm) for name, norm in self._norms().items()}

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data: tuple[tf.Tensor, Targets]) -> dict[str, tf.Tensor]:
        """Losses of one batch without an update; runs in each replica."""
        images, targets = data
        terms = self.objective.terms(targets, self.evaluated(images, training=False))
        total = self.objective.total(terms)
        self._validation_meter.add({**terms, TOTAL: total})
        # Keras's loop over the steps of an execution needs an output.
        return {TOTAL: tf.reduce_mean(total)}

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

    def _accumulate(
        self, data: tuple[tf.Tensor, Targets], variables: Sequence[tf.Variable]
    ) -> tuple[list[tf.Tensor | None], dict[str, tf.Tensor]]:
        """Losses and gradients of a replica's images, summed over parts of them.

        Returns:
          The gradients, dense, None where the loss does not depend on the variable;
          and [B] each term and the total.
        """
        sums, parts = [], []
        for number in range(self._parts):
            images, targets = self._part(data, number)
            known = [g for g in sums if g is not None]
            if known:
                # A part waits for a gradient of the backbone, which is among the last
                # of the part before, or memory would be needed for both.
                (images,) = after([images], known[::-1])
            gradients, values = self._gradients(images, targets, variables, number)
            parts.append(values)
            sums = [
                more if so_far is None else so_far + more
                for so_far, more in zip(
                    sums or [None] * len(variables), gradients, strict=True
                )
            ]
        return sums, {name: tf.concat([p[name] for p in parts], 0) for name in parts[0]}

    def _gradients(
        self,
        images: tf.Tensor,
        targets: Targets,
        variables: Sequence[tf.Variable],
        part: int,
    ) -> tuple[list[tf.Tensor | None], dict[str, tf.Tensor]]:
        """As `_accumulate`, of one part."""
        with tf.GradientTape() as tape, self._random_numbers(part):
            predictions = self.network(images, training=True)
            terms = self.objective.terms(targets, predictions)
            total = self.objective.total(terms)
            # Parts and replicas are summed, so each takes its share of the batch.
            loss = tf.reduce_sum(total) / self._global_batch_size
        # Dense, because the norm of slices that share rows would be wrong.
        gradients = [
            None if gradient is None else tf.convert_to_tensor(gradient)
            for gradient in tape.gradient(loss, variables)
        ]
        return gradients, {**terms, TOTAL: total}

    def _part(self, data: tuple[tf.Tensor, Targets], part: int):
        """Some of the images of a replica, with their targets."""
        if self._parts == 1:
            return data
        first, count = part * self._images_of_part(), self._images_of_part()
        return tf.nest.map_structure(
            lambda x: None if x is None else x[first : first + count], data
        )

    def _images_of_part(self) -> int:
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        return self._global_batch_size // (replicas * self._parts)

    def _average(self) -> None:
        """Moves the averages towards the weights; not where training has stopped."""
        if self.averaged is None:
            return
        step = tf.cast(self.step.read_value(), tf.float32)
        # Early averages would else be of first weights, which nobody wants.
        decay = tf.minimum(self._average_decay, (1.0 + step) / (10.0 + step))
        share = tf.where(self._guard.stopped.read_value(), 0.0, 1.0 - decay)
        values = [v.read_value() for v in self.network.variables]
        update_each(_move_towards, self.averaged.variables, share, values)

    def _random_numbers(self, part: int) -> AbstractContextManager[None]:
        """Those of this step, for a part of the images of this replica."""
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
        first = (replica * self._parts + part) * self._images_of_part()
        seed = tf.stack([tf.constant(self._seed, tf.int64), self.step.read_value()])
        return drawn_from(seed, first_image=first)

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
        known = {v.ref(): g for g, v in pairs if g is not None}
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


def _move_towards(variable: tf.Variable, share: tf.Tensor, value: tf.Tensor) -> None:
    share = tf.cast(share, variable.dtype)
    variable.assign_add((value - variable.read_value()) * share)
