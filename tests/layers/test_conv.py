"""Convolutions and the activation against TensorFlow's own."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tf_keras

from cmt.layers.conv import (
    Convolution,
    gelu,
    plain_gradients,
    resize_align_corners,
)


def test_gelu_and_its_gradient_are_tensorflows():
    x = tf.constant(np.linspace(-9.0, 9.0, 1001), tf.float32)
    upstream = tf.random.stateless_normal(x.shape, [0, 1])
    results = []
    for function in (gelu, tf.nn.gelu):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        results.append((y, tape.gradient(y, x, output_gradients=upstream)))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.parametrize(
    ("dtype", "spacing"), [("bfloat16", 2**-8), ("float16", 2**-10)]
)
def test_gelu_of_16_bits_is_exact_but_for_rounding_where_xla_compiles(dtype, spacing):
    x = tf.cast(np.linspace(-9.0, 9.0, 3001), dtype)
    x = tf.concat([x, tf.constant([-6e4, -200.0, 40.0, 6e4], dtype)], 0)

    @tf.function(jit_compile=True, autograph=False)
    def compiled(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = gelu(x)
        return y, tape.gradient(y, x)

    values, slopes = compiled(x)
    assert values.dtype == slopes.dtype == x.dtype
    exact = x.numpy().astype(np.float64)
    share, density = scipy.stats.norm.cdf(exact), scipy.stats.norm.pdf(exact)
    for found, expected in ((values, exact * share), (slopes, share + exact * density)):
        found = found.numpy().astype(np.float64)
        np.testing.assert_allclose(found, expected, rtol=spacing, atol=1e-5)


def test_inference_graphs_have_no_gradients_of_ours():
    """A SavedModel would warn of them; in training they halve the work of GeLU."""

    def own(plain: bool) -> bool:
        with plain_gradients(plain):
            graph = tf.function(gelu).get_concrete_function(tf.TensorSpec([3])).graph
        nodes = graph.as_graph_def().node
        return any("_gradient_op_type" in node.attr for node in nodes)

    assert own(plain=False)
    assert not own(plain=True)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4, 6, 7, 12])
def test_taps_that_meet_only_padding_change_nothing(dilation, compiled):
    settings = dict(
        filters=3, kernel_size=3, padding="same", dilation_rate=dilation, use_bias=False
    )
    images = tf.random.stateless_normal([2, 7, 4, 5], [0, 2])
    ours, keras = Convolution(**settings), tf_keras.layers.Conv2D(**settings)
    results = []
    for layer in (keras, ours):
        layer.build(images.shape)
        layer.kernel.assign(keras.kernel)

        def step(layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(images)
                outputs = layer(images)
                total = tf.reduce_sum(tf.sin(outputs))
            return outputs, *tape.gradient(total, [images, layer.kernel])

        is_ours = compiled and layer is ours
        results.append(tf.function(step, jit_compile=True)() if is_ours else step())
    for theirs, own in zip(*results, strict=True):
        np.testing.assert_allclose(own, theirs, atol=1e-5)


@pytest.mark.parametrize("size", [(13, 9), (4, 2), (7, 5), (1, 1)])
def test_resizing_and_its_gradient_are_tensorflows(size):
    images = tf.random.stateless_normal([2, 7, 5, 3], [1, 2])
    found = []
    for resize in (
        resize_align_corners,
        lambda x, size: tf.raw_ops.ResizeBilinear(
            images=x, size=size, align_corners=True
        ),
    ):
        with tf.GradientTape() as tape:
            tape.watch(images)
            resized = resize(images, size)
            loss = tf.reduce_sum(resized**3)
        found.append([resized.numpy(), tape.gradient(loss, images).numpy()])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    half = resize_align_corners(tf.cast(images, tf.bfloat16), size)
    assert half.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(half, tf.float32), found[0][0], atol=0.02)
