"""Gradient recomputation: activations computed again instead of being kept.

What the layers draw at random is drawn once and replayed, and batch norms update
their moving statistics once, so that gradients and state are those without it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import tensorflow as tf
import tf_keras
from tensorflow.compiler.tf2xla.python import xla

from cmt.tracing import is_host_out_of_reach

_NO_GRADIENT = 3e38
_local = threading.local()  # Replicas of a strategy run in threads of their own.


class _Replay:
    """Random tensors of one forward pass, in the order they were drawn."""

    def __init__(self):
        self._drawn: list[tf.Tensor] = []
        self._next: int | None = None

    def draw(self, make: Callable[[], tf.Tensor]) -> tf.Tensor:
        if self._next is None:
            self._drawn.append(make())
            return self._drawn[-1]
        self._next += 1
        return self._drawn[self._next - 1]

    def run(self, function: Callable, *arguments, again: bool):
        """Calls `function`, drawing tensors or, `again`, those that were drawn."""
        self._next = 0 if again else None
        outer, _local.replay = getattr(_local, "replay", None), self
        try:
            return function(*arguments)
        finally:
            _local.replay = outer

    @property
    def is_again(self) -> bool:
        return self._next is not None


def draw(make: Callable[[], tf.Tensor]) -> tf.Tensor:
    """What `make` returns, or, in a recomputation, what it returned the first time."""
    replay = getattr(_local, "replay", None)
    return make() if replay is None else replay.draw(make)


def is_recomputing() -> bool:
    """Whether a backward pass repeats a layer, whose state has been updated already."""
    replay = getattr(_local, "replay", None)
    return replay is not None and replay.is_again


def recompute(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
    """Makes a layer keep its inputs alone for the backward pass; returns the layer.

    Its variables, names and outputs stay as they are. In training the layer is run a
    second time when its gradient is wanted (Chen et al., Training deep nets with
    sublinear memory cost); in inference nothing changes.

    Args:
      layer: takes structures of tensors and `training`. What it draws at random goes
        through `draw`, and what it updates asks `is_recomputing`.

    Example:
      >>> from cmt.layers import BottleneckBlock
      >>> block = recompute(BottleneckBlock(8, style=Style()))
      >>> block(tf.zeros([2, 9, 9, 16]), training=True).shape
      TensorShape([2, 9, 9, 32])
    """
    layer.call = recomputed(layer.call)
    return layer


def recomputed(call: Callable) -> Callable:
    """The same for a method that is called as a layer's `call` is."""

    @functools.wraps(call)
    def again(*inputs, training: bool | None = None):
        # Inside a layer that is computed again as a whole, nothing is kept anyway.
        if not training or getattr(_local, "replay", None) is not None:
            return call(*inputs, training=training)
        return _recomputed(lambda given: call(*given, training=True), inputs)

    return again


def _recomputed(call: Callable, inputs):
    """`call(inputs)`, whose gradient calls it again."""
    replay = _Replay()
    tensors = [x for x in tf.nest.flatten(inputs) if x is not None]
    structures = []

    def with_tensors(given):
        given = iter(given)
        filled = [None if x is None else next(given) for x in tf.nest.flatten(inputs)]
        outputs = call(tf.nest.pack_sequence_as(inputs, filled))
        structures.append(outputs)
        return [y for y in tf.nest.flatten(outputs) if y is not None]

    @tf.custom_gradient
    def forward(*given):
        outputs = replay.run(with_tensors, given, again=False)

        def gradient(*upstream, variables=()):
            later = after(given, upstream)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(later)
                tape.watch(variables)
                again = replay.run(with_tensors, later, again=True)
            of_inputs, of_variables = tape.gradient(
                again, (later, list(variables)), output_gradients=list(upstream)
            )
            return (of_inputs, of_variables) if variables else of_inputs

        return outputs, gradient

    flat = iter(tf.nest.flatten(forward(*tensors)))
    structure = structures[0]
    filled = [None if y is None else next(flat) for y in tf.nest.flatten(structure)]
    return tf.nest.pack_sequence_as(structure, filled)


def after(tensors, gradients) -> list[tf.Tensor]:
    """The tensors, with a data dependency on the gradients.

    Without one, compilers see that forward pass and recomputation are the same, and
    merge them: the activations would be kept after all.
    """
    if is_host_out_of_reach():
        barrier = xla.optimization_barrier(*tensors, *gradients)
        return barrier[: len(tensors)]
    first = tf.cast(tf.reshape(gradients[0], [-1])[0], tf.float32)
    # 1 for a value that no gradient has, which compilers cannot know. A gradient that
    # is not finite changes nothing: the images after it are not at fault.
    zero = tf.where(tf.equal(first, _NO_GRADIENT), 1.0, 0.0)
    return [x + tf.cast(zero, x.dtype) for x in tensors]
