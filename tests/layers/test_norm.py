"""Batch norm over replicas, and against the sum written out."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from cmt.layers.norm import BatchNorm


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


def test_synchronized_statistics_are_those_of_the_global_batch():
    """In a process of its own: the CPU is split before TensorFlow first uses it."""
    code = textwrap.dedent(inspect.getsource(_compare_replicas)) + "_compare_replicas()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def _compare_replicas() -> None:
    import numpy as np
    import tensorflow as tf

    from cmt.layers.norm import BatchNorm

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    replicas = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    inputs = tf.random.stateless_normal([4, 3, 3, 5], [1, 2], mean=1.0)

    def step(norm, part):
        with tf.GradientTape() as tape:
            tape.watch(part)
            outputs = norm(part, training=True)
            total = tf.reduce_sum(tf.sin(outputs))
        return outputs, tape.gradient(total, part)

    alone = BatchNorm(synchronized=True)
    expected = step(alone, inputs)
    with replicas.scope():
        norm = BatchNorm(synchronized=True)
        norm.build(inputs.shape)
    halves = replicas.experimental_distribute_values_from_function(
        lambda context: inputs[2 * context.replica_id_in_sync_group :][:2]
    )
    run = tf.function(lambda part: replicas.run(step, (norm, part)), autograph=False)
    for parts, whole in zip(run(halves), expected, strict=True):
        parts = tf.concat(replicas.experimental_local_results(parts), 0)
        np.testing.assert_allclose(parts, whole, atol=1e-5)
    for name in ("moving_mean", "moving_variance"):
        actual = getattr(norm, name).read_value()
        np.testing.assert_allclose(actual, getattr(alone, name), atol=1e-5)
