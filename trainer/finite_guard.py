"""Stops training at values that are not finite, without asking the device each step.

The device itself notices the first bad step, remembers of which images it was, and
changes nothing from then on: weights, optimizers, moving statistics and the step stay
as they were before. The host finds out when it next reads the losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from cmt.errors import few

TOTAL = "total"
GRADIENT_NORM = "gradient_norm"
# Not a loss: 0 while all moving statistics of the network are finite.
MOVING_STATISTICS = "moving_statistics"

# Bad where a term is: it is part of the total, whose gradient this is.
_CONSEQUENCES = (TOTAL, GRADIENT_NORM)
_NAMED_AT_MOST = 4


class NotFinite(NamedTuple):
    """What was not finite.

    Attributes:
      step: the first step with such a value; the state is that before it.
      values: NaN or infinite means of that step, by the name of the term.
      images: places in the data set of the images with such values; of all images of
        the step where only the gradient has them; empty where the data has no ids.
    """

    step: int
    values: Mapping[str, float]
    images: Sequence[int]

    def describe(
        self, image_names: Callable[[Sequence[int]], Sequence[str]] | None = None
    ) -> str:
        """Describes it in one sentence: step, terms and images.

        Args:
          image_names: from places in the data set to names of files; None where they
            are not known.
        """
        causes = {k: v for k, v in self.values.items() if k not in _CONSEQUENCES}
        if not causes and TOTAL in self.values:  # A sum of large ones.
            causes = {TOTAL: self.values[TOTAL]}
        terms = few(
            [f"{name} is {value}" for name, value in causes.items()], _NAMED_AT_MOST
        )
        text = f"step {self.step} has values that are not finite: {terms}"
        if not causes:
            text = f"the gradient of step {self.step} is not finite, its losses are"
        if not self.images:
            return text
        places = list(self.images[:_NAMED_AT_MOST])
        names = [str(place) for place in places]
        if image_names is not None:
            files = image_names(places)
            names = [f"{p} ({f})" for p, f in zip(places, files, strict=True)]
        names += [""] * (len(self.images) - len(places))
        return f"{text}, training images {few(names, _NAMED_AT_MOST)} (counted from 0)"


class FiniteGuard:
    """Variables in which the device notes the first bad step.

    Attributes:
      stopped: [] bool variable, whether a value was not finite.
    """

    def __init__(self, global_batch_size: int):
        """Makes the variables, in the scope of the strategy.

        Args:
          global_batch_size: images in a step, over all replicas.
        """
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self.stopped = tf.Variable(
            False,
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            name="stopped",
        )
        # Each replica fills its row, and the sum over replicas is all rows.
        self._images = tf.Variable(
            tf.zeros([replicas, max(1, global_batch_size // replicas)], tf.int32),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
            name="bad_images",
        )

    def update(
        self,
        is_finite: tf.Tensor,
        *,
        bad_images: tf.Tensor,
        num_bad: tf.Tensor,
        image_ids: tf.Tensor | None,
    ) -> tf.Tensor:
        """Notes whether the values of a step are finite, in each replica.

        Args:
          is_finite: [] bool, whether all values are, in all replicas.
          bad_images: [B] bool, images of this replica whose terms are not finite.
          num_bad: [] float32, images over all replicas whose terms are not finite.
          image_ids: [B] int32; see `Targets`.

        Returns:
          [] bool, whether a step before this one was bad.
        """
        before = self.stopped.read_value()
        is_first = ~before & ~is_finite
        if image_ids is not None:
            named = is_first & (bad_images | (num_bad == 0.0))
            # One more, because 0 is none.
            self._images.assign_add(self._row(tf.where(named, image_ids + 1, 0)))
        self.stopped.assign(before | ~is_finite)
        return before

    def _row(self, values: tf.Tensor) -> tf.Tensor:
        """Puts values [B] in the row of this replica, zeros in the others."""
        rows, columns = self._images.shape
        values = values[:columns]
        values = tf.pad(values, [[0, columns - tf.size(values)]])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        is_own = tf.range(rows) == replica
        return tf.where(is_own[:, tf.newaxis], values[tf.newaxis], 0)

    def restore(
        self, variables: Sequence[tf.Variable], values: Sequence[tf.Tensor]
    ) -> None:
        """Gives variables their old values back where training has stopped.

        Called in each replica, after whatever changed them.

        Args:
          variables: what must not have changed.
          values: of this replica, from before the step.
        """

        update_each(_assign_where, variables, self.stopped.read_value(), values)

    def has_stopped(self) -> bool:
        """Whether a value was not finite, for the host; waits for the device."""
        return bool(self.stopped.numpy())

    def read(self, step: tf.Variable, losses: Mapping[str, float]) -> NotFinite:
        """Returns what was not finite, for the host, where training has stopped.

        Args:
          step: updates so far.
          losses: means of the steps up to the bad one, which counts too.
        """
        values = {k: v for k, v in losses.items() if not math.isfinite(v)}
        images = self._images.read_value().numpy()
        images = (images[images > 0] - 1).tolist()
        return NotFinite(int(step.numpy()) + 1, values, images)


def update_each(
    function: Callable[[tf.Variable, tf.Tensor, tf.Tensor], None],
    variables: Sequence[tf.Variable],
    number: tf.Tensor,
    values: Sequence[tf.Tensor],
) -> None:
    """Calls `function(variable, number, value)` for each variable, in each replica."""

    def update_all(strategy, number, values):
        for variable, value in zip(variables, values, strict=True):
            strategy.extended.update(
                variable, function, args=(number, value), group=False
            )

    # As Keras's optimizers do it: outside this, only some variables can be assigned by
    # a replica.
    tf.__internal__.distribute.interim.maybe_merge_call(
        update_all, tf.distribute.get_strategy(), number, list(values)
    )


def _assign_where(variable: tf.Variable, chosen: tf.Tensor, value: tf.Tensor) -> None:
    variable.assign(tf.where(chosen, value, variable.read_value()))
