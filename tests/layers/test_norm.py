"""Batch norm against its definition, frozen, in bfloat16, and over replicas."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from cmt.layers.norm import BatchNorm, kept_updates


@pytest.mark.parametrize("axis", [-1, 1, [0, 2]])
def test_against_the_definition(axis):
    inputs = np.random.default_rng(0).normal(2, 3, [5, 3, 7, 2]).astype(np.float32)
    norm = BatchNorm(axis, momentum=0.5, epsilon=0.1, gamma=3.0)
    outputs = norm(inputs, training=True)
    kept = {a % 4 for a in norm.axis}
    reduced = tuple(a for a in range(4) if a not in kept)
    mean = inputs.mean(reduced, keepdims=True)
    variance = inputs.var(reduced, keepdims=True)
    expected = (inputs - mean) / np.sqrt(variance + 0.1) * 3
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        np.ravel(norm.moving_mean), np.ravel(mean) / 2, rtol=1e-5
    )
    # As in Keras: unbiased for images with one axis, else biased.
    count = inputs.size // mean.size
    if len(kept) == 1:
        variance = variance * count / (count - 1)
    np.testing.assert_allclose(
        np.ravel(norm.moving_variance), 0.5 + np.ravel(variance) / 2, rtol=1e-4
    )


def test_kept_updates_are_those_made_at_once():
    """Of norms used a different number of times, with rates of their own."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(2, 3, [3, 5, 3, 7, 2]).astype(np.float32)

    def run() -> list[BatchNorm]:
        norms = [BatchNorm(), BatchNorm([1, 2], momentum=0.5), BatchNorm(1)]
        for times, norm in enumerate(norms, start=1):
            for part in inputs[:times]:
                norm(part, training=True)
        return norms

    with kept_updates() as updates:
        kept = run()
    first = [n.moving_variance.numpy() for n in kept]
    assert all(np.all(values == 1) for values in first)
    before, after = updates.before_and_after()
    updates.assign(after)
    for one, other in zip(kept, run(), strict=True):
        np.testing.assert_array_equal(one.moving_mean, other.moving_mean)
        np.testing.assert_array_equal(one.moving_variance, other.moving_variance)
    updates.assign(before)
    for norm, values in zip(kept, first, strict=True):
        np.testing.assert_array_equal(norm.moving_variance, values)


@pytest.mark.parametrize("axis", [-1, 1])
def test_frozen_uses_and_keeps_the_moving_statistics(axis):
    norm = BatchNorm(axis)
    inputs = 5 + tf.random.stateless_normal([4, 3, 3, 3], [1, 2])
    expected = norm(inputs, training=False)
    norm.trainable = False
    np.testing.assert_allclose(norm(inputs, training=True), expected, rtol=1e-6)
    assert not np.any(norm.moving_mean)


@pytest.mark.parametrize("options", [{}, {"axis": 1}, {"synchronized": True}])
def test_bfloat16_is_normalised_in_float32(options):
    """Even where the mean is far larger than the deviation."""
    inputs = 30 + tf.random.stateless_normal([4, 3, 9, 3], [1, 2])
    inputs = tf.cast(inputs, tf.bfloat16)
    expected = BatchNorm(**options)(tf.cast(inputs, tf.float32), training=True)
    outputs = BatchNorm(**options)(inputs, training=True)
    assert outputs.dtype == tf.bfloat16
    error = np.abs(tf.cast(outputs, tf.float32) - expected)
    assert error.max() < 0.012  # Half a step of bfloat16 near 3.


@pytest.mark.check
def test_synchronized_statistics_are_those_of_the_global_batch():
    """In a process of its own: the CPU is split before TensorFlow first uses it."""
    code = textwrap.dedent(inspect.getsource(_compare_replicas)) + "_compare_replicas()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def _compare_replicas() -> None:
    import numpy as np
    import tensorflow as tf

    from cmt.layers import AxialBlock, BatchNorm, Style

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    replicas = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    inputs = tf.random.stateless_normal([4, 3, 5, 8], [1, 2], mean=1.0)
    style = Style(norm_synchronized=True)
    kinds = [
        lambda: BatchNorm(synchronized=True),
        lambda: BatchNorm(axis=1, synchronized=True),
        lambda: BatchNorm(axis=[1, 2], synchronized=True),
        lambda: AxialBlock(2, num_heads=2, max_relative_positions=5, style=style),
    ]

    def step(layer, part):
        with tf.GradientTape() as tape:
            tape.watch(part)
            outputs = layer(part, training=True)
            total = tf.reduce_sum(tf.sin(outputs))
        return outputs, tape.gradient(total, part)

    for make in kinds:
        alone = make()
        alone(inputs)
        for variable in alone.trainable_variables:
            if "gamma" in variable.name:
                variable.assign(tf.ones_like(variable))
        with replicas.scope():
            layer = make()
            layer.build(inputs.shape)
            layer(inputs)
        layer.set_weights(alone.get_weights())
        expected = step(alone, inputs)
        halves = replicas.experimental_distribute_values_from_function(
            lambda context: inputs[2 * context.replica_id_in_sync_group :][:2]
        )

        @tf.function(autograph=False)
        def run(part, layer=layer):
            return replicas.run(step, (layer, part))

        for parts, whole in zip(run(halves), expected, strict=True):
            parts = tf.concat(replicas.experimental_local_results(parts), 0)
            np.testing.assert_allclose(parts, whole, atol=1e-4)
        for one, other in zip(
            layer.non_trainable_variables, alone.non_trainable_variables, strict=True
        ):
            np.testing.assert_allclose(one.read_value(), other, atol=1e-5)
