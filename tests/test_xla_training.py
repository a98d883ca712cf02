"""The whole network trains inside one XLA program, as it is."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import textwrap

import pytest


@pytest.mark.slow
def test_training_under_xla_equals_training_without(checkout):
    """In a process of its own, whose compiler optimises little: minutes otherwise."""
    code = textwrap.dedent(inspect.getsource(_compare)) + "_compare()"
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(checkout)}
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=1200, env=environment
    )


def _compare() -> None:
    import numpy as np
    import tensorflow as tf
    import tf_keras
    from google.protobuf import text_format

    import cmt
    from cmt.outputs import Targets
    from cmt.protos import losses_pb2
    from tests.test_model import miniature

    # No random numbers: XLA draws others.
    settings = text_format.Merge(
        "backbone { drop_path_rate: 0 } auxiliary_semantic { enabled: false }",
        miniature(),
    )
    loss_settings = losses_pb2.LossConfig(matcher=losses_pb2.LossConfig.IN_GRAPH)
    columns = tf.broadcast_to(tf.range(33), [2, 33, 33])
    left, right = tf.cast(columns < 14, tf.int32), tf.cast(columns >= 18, tf.int32)
    targets = Targets(
        semantic=3 * left + right,
        mask_ids=-1 + left + 2 * right,
        mask_classes=tf.constant([[3, 1, 0, 0]] * 2),
        image_ids=tf.constant([0, 1]),
    )
    images = tf.random.stateless_uniform([2, 33, 33, 3], [1, 2], maxval=255.0)
    batches = tf.data.Dataset.from_tensors((images, targets)).repeat(3)
    weights = []
    for xla in (False, True):
        tf_keras.utils.set_random_seed(0)
        network = cmt.build_model(settings)
        network.build((None, 33, 33, 3))
        network.compile(
            optimizer=tf_keras.optimizers.legacy.SGD(0.01),
            loss=cmt.build_loss(settings, loss_settings),
            jit_compile=xla,
        )
        before = [w.copy() for w in network.get_weights()]
        network.fit(batches, verbose=0)
        weights.append(network.get_weights())
    for start, plain, compiled in zip(before, *weights, strict=True):
        change = np.abs(plain - start).max()
        np.testing.assert_allclose(compiled, plain, atol=1e-5 + 0.01 * change)
