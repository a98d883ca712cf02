"""Every layer passes the shared check."""

from __future__ import annotations

import doctest
import importlib

import pytest
import tensorflow as tf
import tf_keras

import cmt
from cmt.decoder import Fuse
from cmt.heads import PixelHead
from cmt.layers import attention, blocks, conv, dual_path, norm
from tests.layers.check_layer import check_layer

LAYER_MODULES = [
    f"cmt.layers.{name}"
    for name in ("attention", "blocks", "conv", "dual_path", "norm", "recompute")
]
STYLE = conv.Style()
SIZES = dual_path.TransformerSizes(12, 16, 8, 16, num_heads=4, ffn_channels=24)
# Softmaxes take away what is the same for all keys.
NO_GRADIENT = ("similarity_norm/beta",)


def normal(*shape: int) -> tf.Tensor:
    return tf.random.stateless_normal(shape, seed=[len(shape), sum(shape)])


IMAGES = normal(3, 7, 5, 8)
TOKENS = normal(3, 11, 8)


def state(with_points: bool) -> dual_path.DualPathState:
    points = normal(3, 6, 6) if with_points else None
    return dual_path.DualPathState(normal(3, 5, 7, 20), normal(3, 6, 12), None, points)


def make(kind, *arguments, **fixed):
    return lambda **more: kind(*arguments, **fixed, **more)


BLOCK = dict(style=STYLE, drop_path_rate=0.3)
AXIAL = dict(num_heads=4, max_relative_positions=9)
LAYERS = {
    "batch_norm": (make(norm.BatchNorm), IMAGES),
    "batch_norm_axes": (make(norm.BatchNorm, [0, 2]), normal(3, 5, 2, 7, 11)),
    "conv": (make(conv.ConvNorm, 6, 3, style=STYLE, stride=2), IMAGES),
    "dilated_conv": (make(conv.ConvNorm, 6, 3, style=STYLE, dilation=2), IMAGES),
    "depthwise": (make(conv.DepthwiseConvNorm, 5, style=STYLE), IMAGES),
    "dense": (make(conv.DenseNorm, 6, style=STYLE), TOKENS),
    "drop_path": (make(conv.DropPath, 0.5), IMAGES),
    "axial_1d": (
        make(attention.AxialAttention1D, 8, 16, style=STYLE, **AXIAL),
        TOKENS,
    ),
    "axial_2d": (
        make(attention.AxialAttention2D, 8, 16, style=STYLE, **AXIAL),
        IMAGES,
    ),
    "bottleneck": (make(blocks.BottleneckBlock, 8, stride=2, **BLOCK), IMAGES),
    "axial_block": (make(blocks.AxialBlock, 4, **AXIAL, **BLOCK), IMAGES),
    "axial_identity": (
        make(blocks.AxialBlock, 2, **{**AXIAL, "num_heads": 2}, **BLOCK),
        IMAGES,
    ),
    "coordinates": (
        make(dual_path.CoordinateConvolution, 6),
        (TOKENS, normal(1, 11, 2)),
    ),
    "reference_mask": (make(dual_path.ReferenceMask, 3, 16, style=STYLE), TOKENS),
    "fuse": (make(Fuse, 6, style=STYLE), (IMAGES, normal(3, 13, 9, 6))),
    "pixel_head": (make(PixelHead, 6, 4, style=STYLE), IMAGES),
}
RULES = {
    f"transformer_{rule}{'_location' if points else ''}": (
        make(
            dual_path.TransformerLayer,
            SIZES,
            assignment=rule,
            num_points=points,
            mlp_channels=8,
            style=STYLE,
            drop_path_rate=0.3,
        ),
        state(bool(points)),
    )
    for rule in dual_path.ASSIGNMENT_RULES
    for points in (0, 3)
}


@pytest.mark.parametrize("case", LAYERS)
def test_layer(case):
    kind, inputs = LAYERS[case]
    is_block = isinstance(kind(), blocks.ResidualBlock)
    check_layer(kind, inputs, without_gradient=NO_GRADIENT, recomputes=is_block)


@pytest.mark.parametrize("case", RULES)
def test_transformer(case):
    kind, inputs = RULES[case]
    check_layer(kind, inputs, without_gradient=NO_GRADIENT, recomputes=True)


@pytest.mark.parametrize("name", ["cmt.backbone", "cmt.factory", *LAYER_MODULES])
def test_examples_of_docstrings(name):
    module = importlib.import_module(name)
    names = {"tf": tf, "Style": conv.Style, **vars(module)}
    result = doctest.testmod(module, extraglobs=names)
    assert result.attempted and not result.failed


def test_every_public_layer_has_an_example():
    for name in cmt.layers.__all__:
        thing = getattr(cmt.layers, name)
        if isinstance(thing, type) and issubclass(thing, tf_keras.layers.Layer):
            assert ">>>" in thing.__doc__, name
