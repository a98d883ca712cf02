"""Means of losses, kept on the device."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf


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
