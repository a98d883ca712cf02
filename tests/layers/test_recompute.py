"""Recomputation, beyond what each layer is checked for."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras

from cmt.layers import Style, blocks
from cmt.layers.recompute import recompute

STYLE = Style()


def normal(*shape: int) -> tf.Tensor:
    return tf.random.stateless_normal(shape, seed=[len(shape), sum(shape)])


IMAGES = normal(3, 7, 5, 8)


def test_recomputation_inside_recomputation():
    """The same numbers as without; norms are updated once."""
    results = []
    for outer, inner in ((False, False), (True, False), (True, True)):
        block = blocks.BottleneckBlock(2, style=STYLE, drop_path_rate=0.5)
        layer = tf_keras.layers.Layer()
        layer.block = recompute(block) if inner else block
        layer.call = lambda x, *, training, block=block: block(x, training=training)
        layer = recompute(layer) if outer else layer
        block(IMAGES)
        weights = [normal(*w.shape) ** 2 for w in block.get_weights()]
        block.set_weights(weights)
        tf.random.set_seed(2)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(tf.sin(layer.call(IMAGES, training=True)))
        gradients = tape.gradient(total, block.trainable_variables)
        moving = [v.numpy() for v in block.non_trainable_variables]
        results.append([total, *gradients, *moving])
    for one in results[1:]:
        for actual, expected in zip(one, results[0], strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_recomputation_is_not_optimised_away():
    """The compiled program multiplies once more for what it computes again."""

    def convolutions(recomputes: bool) -> int:
        block = blocks.BottleneckBlock(2, style=STYLE, recompute=recomputes)
        block(IMAGES)

        def step(images):
            with tf.GradientTape() as tape:
                tape.watch(images)
                total = tf.reduce_sum(tf.sin(block(images, training=True)))
            return tape.gradient(total, images)

        compiled = tf.function(step, autograph=False, jit_compile=True)
        text = compiled.experimental_get_compiler_ir(IMAGES)(stage="optimized_hlo")
        return text.count(" convolution(") + text.count(" dot(")

    assert convolutions(True) > convolutions(False)
