"""What every layer has to pass, whatever it computes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import NamedTuple
from unittest import mock

import numpy as np
import tensorflow as tf
import tf_keras

Make = Callable[..., tf_keras.layers.Layer]


class Step(NamedTuple):
    """What a layer does in one training step."""

    outputs: list[tf.Tensor]
    input_gradients: list[tf.Tensor]
    gradients: list[tf.Tensor | None]
    moving: list[np.ndarray]


class _Spread:
    """Calls a layer with the items of its one argument."""

    def __init__(self, layer):
        self._layer = layer

    def __call__(self, inputs, **more):
        return self._layer(*inputs, **more)

    def __getattr__(self, name):
        return getattr(self._layer, name)


def check_layer(
    make: Make,
    inputs,
    *,
    without_gradient: Collection[str] = (),
    recomputes: bool = False,
    jit_compile: bool = False,
    spread: bool = False,
) -> None:
    """Builds, runs, differentiates, compiles and saves a layer.

    One compiled training step has to give what the eager one gives; that of a layer
    with `recompute` is a step with recomputation.

    Args:
      make: the layer, from keywords for its constructor.
      inputs: first argument of its call, float32, of a batch of 2 or more.
      without_gradient: parts of the names of variables whose gradient is 0 by nature.
      recomputes: whether its constructor takes `recompute`.
      jit_compile: XLA compiles the step, as is worth the time for composites.
      spread: `inputs` are all arguments of its call instead of the first.
    """
    if spread:
        make_one = make
        make = lambda **more: _Spread(make_one(**more))  # noqa: E731
    # With some weights bfloat16 sends pixels to other centers, in one run of dozens.
    tf_keras.utils.set_random_seed(0)
    layer = make()
    layer(inputs)
    _start_branches(layer)
    expected = layer(inputs)
    step = _step(layer, inputs)
    _check_symbolic(layer, inputs, expected)
    _check_gradients(layer, step, without_gradient)
    _check_saving(layer, inputs, expected)
    _check_bfloat16(make, layer, inputs, expected)
    again = _with_recomputation(make, layer, inputs) if recomputes else layer
    _check_compiled(again, inputs, step, jit_compile, without_gradient)


def tensors(structure) -> list[tf.Tensor]:
    """The tensors of a structure, without the places that are None."""
    return [x for x in tf.nest.flatten(structure) if x is not None]


def _map(function, inputs):
    return tf.nest.map_structure(lambda x: None if x is None else function(x), inputs)


def _start_branches(layer) -> None:
    """Residual branches start at zero; here they take part."""
    for variable in layer.trainable_variables:
        if "gamma" in variable.name:
            shape = variable.shape
            variable.assign(tf.random.stateless_uniform(shape, [1, 2], 0.5, 1.5))


def _close(actual, expected, tolerance: float) -> None:
    for one, other in zip(tensors(actual), tensors(expected), strict=True):
        one, other = (np.asarray(tf.cast(x, tf.float32)) for x in (one, other))
        assert np.all(np.isfinite(one))
        scale = max(np.abs(other).max(initial=0.0), 1.0)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


def _weighted_sum(outputs: list[tf.Tensor]) -> tf.Tensor:
    """Weighted by noise: gradients pass what a softmax or a norm makes constant."""
    rng = np.random.default_rng(7)
    return tf.add_n(
        [
            tf.reduce_sum(
                tf.cast(y, tf.float32) * rng.normal(size=y.shape).astype(np.float32)
            )
            for y in outputs
        ]
    )


def _step(layer, inputs, wrap=lambda function: function) -> Step:
    """One training step; the moving statistics are put back after it."""

    def run(*flat):
        given = iter(flat)
        with tf.GradientTape() as tape:
            tape.watch(flat)
            outputs = tensors(layer(_map(lambda _: next(given), inputs), training=True))
            total = _weighted_sum(outputs)
        return outputs, *tape.gradient(total, (flat, layer.trainable_variables))

    before = [v.numpy() for v in layer.non_trainable_variables]
    with mock.patch.object(tf.random, "uniform", _numbers()):
        outputs, of_inputs, of_variables = wrap(run)(*tensors(inputs))
    moving = [v.numpy() for v in layer.non_trainable_variables]
    for variable, value in zip(layer.non_trainable_variables, before, strict=True):
        variable.assign(value)
    return Step(outputs, list(of_inputs), list(of_variables), moving)


def _numbers() -> Callable[..., tf.Tensor]:
    """Draws in place of tf.random.uniform: others each time, the same in every step.

    Eager, in a graph and in XLA, which else draw differently.
    """
    seeds = itertools.count()

    def uniform(shape):
        seed = [next(seeds), 0]
        return tf.random.stateless_uniform(shape, seed, alg="philox")

    return uniform


def _graph(function, **options):
    # AutoGraph would rewrite all of tf_keras, to no effect.
    plain = tf.autograph.experimental.do_not_convert(function)
    return tf.function(plain, autograph=False, **options)


def _check_symbolic(layer, inputs, expected) -> None:
    """A traced call with unknown batch size gives what the eager one does."""

    def traced(given):
        outputs = tensors(layer(given))
        for one, other in zip(outputs, tensors(expected), strict=True):
            assert one.shape.is_compatible_with(other.shape)
            assert one.shape[1:] == other.shape[1:]
            assert one.dtype == other.dtype
        return outputs

    specification = _map(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), inputs)
    function = _graph(traced).get_concrete_function(specification)
    _close(function(*tensors(inputs)), expected, 1e-5)


def _check_gradients(layer, step: Step, without_gradient) -> None:
    """Dense and, where they can be, not zero."""
    for variable, gradient in zip(
        layer.trainable_variables, step.gradients, strict=True
    ):
        assert isinstance(gradient, tf.Tensor), f"{variable.name}: {gradient}"
        if not any(part in variable.name for part in without_gradient):
            assert np.any(gradient.numpy()), variable.name


def _check_compiled(
    layer, inputs, expected: Step, jit_compile: bool, without_gradient
) -> None:
    """Forward and backward in one program do what they do eagerly."""
    found = _step(layer, inputs, lambda run: _graph(run, jit_compile=jit_compile))

    def informative(step: Step) -> Step:
        """Less gradients that are nothing but rounding."""
        named = zip(layer.trainable_variables, step.gradients, strict=True)
        return step._replace(
            gradients=[
                gradient
                for variable, gradient in named
                if not any(part in variable.name for part in without_gradient)
            ]
        )

    # Norms over a few values make rounding larger from one layer to the next.
    tolerance = 5e-4 if jit_compile else 1e-4
    _close(informative(found), informative(expected), tolerance)


def _names(layer) -> list[str]:
    return [v.name.removeprefix(f"{layer.name}/") for v in layer.variables]


def _check_saving(layer, inputs, expected) -> None:
    """Config and weights make the same layer again."""
    config = layer.get_config()
    if isinstance(layer, _Spread):
        again = _Spread(type(layer._layer).from_config(config))
    else:
        again = type(layer).from_config(config)
    again(inputs)
    assert _names(again) == _names(layer)
    again.set_weights(layer.get_weights())
    _close(again(inputs), expected, 1e-6)


def _check_bfloat16(make, layer, inputs, expected) -> None:
    """Mixed precision: variables in float32, outputs near those of float32."""
    mixed = make(dtype="mixed_bfloat16")
    low = _map(lambda x: tf.cast(x, tf.bfloat16), inputs)
    mixed(low)
    assert {v.dtype for v in mixed.variables} <= {tf.float32}
    mixed.set_weights(layer.get_weights())
    parts = [mixed, *mixed.submodules]
    assert "bfloat16" in {getattr(part, "compute_dtype", None) for part in parts}
    for one, other in zip(tensors(mixed(low)), tensors(expected), strict=True):
        error = np.abs(tf.cast(one, tf.float32) - other)
        # With a hard assignment a few pixels go to another center.
        assert np.quantile(error, 0.95) < 0.05 * max(np.abs(other).max(), 1.0)
    for array in tensors(_step(mixed, low)):
        assert np.all(np.isfinite(tf.cast(array, tf.float32)))


def _with_recomputation(make, layer, inputs):
    """The same layer with recomputation."""
    again = make(recompute=True)
    again(inputs)
    assert _names(again) == _names(layer)
    again.set_weights(layer.get_weights())
    return again
