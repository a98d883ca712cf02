"""Blocks and attention against reference outputs of the public predecessor."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf

from cmt.layers.attention import AxialAttention1D, AxialAttention2D
from cmt.layers.blocks import AxialBlock, BottleneckBlock
from cmt.layers.conv import ConvNorm, DenseNorm, Style
from cmt.layers.dual_path import DualPathState, TransformerLayer, TransformerSizes

RELU = Style(activation="relu")

# Our attribute, or a part of its path, to the name in the reference checkpoints.
NAMES = {
    "conv1": "_conv1_bn_act",
    "conv2": "_conv2_bn_act",
    "conv3": "_conv3_bn",
    "shortcut": "_shortcut",
    "attention": "_attention",
    "height_axis": "_height_axis",
    "width_axis": "_width_axis",
    "projection_norm": "_batch_norm_qkv",
    "similarity_norm": "_batch_norm_similarity",
    "retrieved_norm": "_batch_norm_retrieved_output",
    "query_positions": "_query_rpe/embeddings",
    "key_positions": "_key_rpe/embeddings",
    "value_positions": "_value_rpe/embeddings",
    "center_input": "_memory_conv1_bn_act",
    "pixel_input": "_pixel_conv1_bn_act",
    "center_projection": "_memory_qkv_conv_bn",
    "pixel_projection": "_pixel_qkv_conv_bn",
    "center_similarity_norm": "_memory_attention/_batch_norm_similarity",
    "center_retrieved_norm": "_memory_attention/_batch_norm_retrieved_value",
    "pixel_similarity_norm": "_pixel_attention/_batch_norm_similarity",
    "pixel_retrieved_norm": "_pixel_attention/_batch_norm_retrieved_value",
    "center_output": "_memory_conv3_bn",
    "pixel_output": "_pixel_conv3_bn",
    "ffn_hidden": "_memory_ffn_conv1_bn_act",
    "ffn_output": "_memory_ffn_conv2_bn",
}


def reference_name(layer, variable) -> str:
    """The reference's path of a variable, from ours: `layer/conv1/conv/kernel:0`."""
    path = variable.name.removeprefix(f"{layer.name}/").removesuffix(":0").split("/")
    *owners, last = path
    names = [NAMES.get(owner, owner) for owner in owners]
    if owners and owners[-1] == "norm":
        names[-1] = "_batch_norm"
    elif owners and owners[-1] in ("conv", "dense"):
        names[-1] = "_conv"
    return "/".join([*names, NAMES.get(last, last)])


def inputs_of(data) -> list[tf.Tensor]:
    return [tf.constant(data[f"input_{i}"]) for i in range(3) if f"input_{i}" in data]


def load(layer, data) -> None:
    """Sets all variables of a built layer from the `weight/` arrays."""
    names = {reference_name(layer, v) for v in layer.variables}
    stored = {key.removeprefix("weight/") for key in data if key.startswith("weight/")}
    assert names == stored
    for variable in layer.variables:
        value = data[f"weight/{reference_name(layer, variable)}"]
        variable.assign(value.reshape(variable.shape))


class Pixels(TransformerLayer):
    """Takes and gives pixels and centers as two tensors."""

    def __call__(self, pixels, centers, training):
        state = super().__call__(DualPathState(pixels, centers), training=training)
        return state.pixel_features, state.cluster_centers


def axial_1d():
    return AxialAttention1D(8, 16, 4, max_relative_positions=255, style=RELU)


def axial_2d():
    return AxialAttention2D(8, 16, 4, max_relative_positions=255, style=RELU)


def axial_block():
    return AxialBlock(8, num_heads=4, max_relative_positions=255, style=RELU)


def bottleneck_stride2():
    return BottleneckBlock(8, stride=2, style=RELU)


def transformer():
    sizes = TransformerSizes(12, 32, 16, 32, 4, 24)
    return Pixels(sizes, assignment="cross_attention", style=RELU)


CASES = {
    "axial_attention_1d": axial_1d,
    "axial_attention_2d_stride1": axial_2d,
    "axial_block_projection": axial_block,
    "axial_block_identity": axial_block,
    "conv_bottleneck_stride2": bottleneck_stride2,
    "dual_path_transformer": transformer,
}


@pytest.mark.parametrize("case", CASES)
def test_equals_reference(case, shared):
    data = np.load(shared / f"golden/attention/{case}.npz")
    inputs = inputs_of(data)
    layer = CASES[case]()
    layer(*inputs, training=False)
    load(layer, data)

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = tf.nest.flatten(layer(*inputs, training=False))
        half_square = sum(0.5 * tf.reduce_sum(output**2) for output in outputs)
    for i, output in enumerate(outputs):
        expected = data[f"inference_output_{i}"]
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5)
    for i, gradient in enumerate(tape.gradient(half_square, inputs)):
        expected = data[f"inference_grad_half_sumsq_wrt_input_{i}"]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4 * scale)

    for i, output in enumerate(tf.nest.flatten(layer(*inputs, training=True))):
        expected = data[f"training_output_{i}"]
        np.testing.assert_allclose(output, expected, rtol=0, atol=5e-5)
    moving = [v for v in layer.variables if re.search("moving_", v.name)]
    assert moving
    for variable in moving:
        name = f"after_step/{reference_name(layer, variable)}"
        if name in data:
            np.testing.assert_allclose(
                variable, data[name].reshape(variable.shape), rtol=0, atol=1e-6
            )


def test_conv_and_dense_norm_agree():
    features = tf.random.stateless_normal([2, 3, 5, 7], seed=[1, 2])
    conv, dense = ConvNorm(11, style=RELU), DenseNorm(11, style=RELU)
    expected = conv(features)
    dense(tf.reshape(features, [2, 15, 7]))
    dense.dense.kernel.assign(conv.conv.kernel[0, 0])
    outputs = tf.reshape(dense(tf.reshape(features, [2, 15, 7])), [2, 3, 5, 11])
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
