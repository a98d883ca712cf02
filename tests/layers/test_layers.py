"""Every layer passes the shared check."""

from __future__ import annotations

import copy
import doctest
import importlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from cmt.backbone import AxialSizes, Backbone, StageFeatures
from cmt.decoder import Decoder, DualPath, Fuse
from cmt.heads import PanopticHead, PixelHead, SemanticBranch
from cmt.layers import attention, base, blocks, conv, dual_path, norm, policy_scope
from cmt.model import PanopticModel
from cmt.protos import model_pb2
from tests.layers.check_layer import check_layer

EXAMPLES = [
    *(f"cmt.{name}" for name in ("backbone", "decoder", "factory", "heads", "model")),
    *(
        f"cmt.layers.{name}"
        for name in (
            "attention",
            "base",
            "blocks",
            "conv",
            "dual_path",
            "norm",
            "recompute",
        )
    ),
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
    "dropout": (make(conv.Dropout, 0.5), IMAGES),
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
SMALL = dict(style=conv.Style("relu"), num_heads=2, max_relative_positions=5)
STAGES = StageFeatures(
    normal(2, 9, 9, 8), normal(2, 5, 5, 12), normal(2, 3, 3, 16), normal(2, 3, 3, 24)
)


def dual_path_of(width: int, name: str, **more) -> DualPath:
    with policy_scope(more.get("dtype")):
        return DualPath(
            [blocks.AxialBlock(width, name=f"{name}_block", **SMALL)],
            [dual_path.TransformerLayer(SIZES, style=STYLE, name=f"{name}_layer")],
            name=name,
            **more,
        )


def decoder(**more) -> Decoder:
    with policy_scope(more.get("dtype")):
        return Decoder(
            dual_path_of(6, "first"),
            fuse16=Fuse(16, style=STYLE, name="fuse16"),
            second_dual_path=dual_path_of(4, "second"),
            num_stage5_blocks=0,
            upward=[
                (Fuse(4 * w, style=STYLE, name=f"fuse{w}"), [_bottleneck(w)])
                for w in (3, 2)
            ],
            style=STYLE,
            name="decoder",
            **more,
        )


def _bottleneck(width: int) -> blocks.BottleneckBlock:
    return blocks.BottleneckBlock(width, style=STYLE, name=f"block{width}")


# Called with all of these arguments.
PARTS = {
    "backbone": (
        make(
            Backbone,
            [4, 4, 8],
            [1, 1, 2],
            [2, 3, 4],
            axial=(2, 5),
            style=STYLE,
            drop_path_rates=[0.0, 0.0, 0.1, 0.1],
            recompute=["axial_blocks", "stem"],
        ),
        (normal(2, 33, 33, 3),),
    ),
    "dual_path": (
        lambda **more: dual_path_of(4, "dual_path", **more),
        (dual_path.DualPathState(normal(2, 3, 5, 16), normal(2, 6, 12)),),
    ),
    "decoder": (decoder, (STAGES, normal(2, 6, 12), None)),
    "panoptic_head": (
        make(
            PanopticHead,
            3,
            center_feature_channels=8,
            pixel_hidden_channels=8,
            pixel_feature_channels=4,
            style=STYLE,
        ),
        (normal(3, 9, 9, 6), normal(3, 5, 12), normal(3, 3, 3, 5)),
    ),
    "semantic_branch": (
        make(
            SemanticBranch,
            3,
            8,
            projection_channels=(4, 4),
            dropout_rate=0.0,
            style=STYLE,
        ),
        (normal(2, 3, 3, 24), STAGES),
    ),
}
# The ReLU style, norms over replicas, and a layer that predicts points alone.
VARIANTS = {
    "relu": (
        make(blocks.BottleneckBlock, 8, style=conv.Style("relu")),
        IMAGES,
    ),
    "points_alone": (
        make(
            dual_path.TransformerLayer,
            SIZES,
            num_points=3,
            mlp_channels=8,
            coordinate_convolution=False,
            style=STYLE,
        ),
        state(with_points=True),
    ),
}
# Of the same parts as another case.
WITHOUT_POINTS = [f"transformer_{rule}" for rule in dual_path.ASSIGNMENT_RULES]
WITHOUT_XLA = ["axial_identity", "relu", "points_alone", *WITHOUT_POINTS]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] * (case in WITHOUT_POINTS))
        for case in (*LAYERS, *RULES, *VARIANTS)
    ],
)
def test_layer(case):
    kind, inputs = {**LAYERS, **RULES, **VARIANTS}[case]
    composite = isinstance(kind(), blocks.ResidualBlock | dual_path.TransformerLayer)
    check_layer(
        kind,
        inputs,
        without_gradient=NO_GRADIENT,
        recomputes=composite,
        jit_compile=composite and case not in WITHOUT_XLA,
    )


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow if c == "decoder" else ()) for c in PARTS],
)
def test_part(case):
    kind, inputs = PARTS[case]
    # A norm takes a constant away, such as what the offset of the one before adds.
    constant = (*NO_GRADIENT, "aspp_pool/norm/gamma", "aspp_pool/conv/kernel")
    constant += ("pixel/last/bias",)
    check_layer(
        kind,
        inputs,
        without_gradient=constant,
        recomputes=case in ("panoptic_head", "semantic_branch"),
        jit_compile=True,
        spread=True,
    )


def test_the_semantic_branch_drops_in_training_only():
    branch = SemanticBranch(
        3, 8, projection_channels=(4, 4), dropout_rate=0.5, style=STYLE
    )
    one, other = (branch(normal(2, 3, 3, 24), STAGES) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    one, other = (branch(normal(2, 3, 3, 24), STAGES, training=True) for _ in range(2))
    assert np.abs(one - other).max() > 1e-6


def _all_subclasses(kind: type) -> set[type]:
    below = {c for c in kind.__subclasses__() if c.__module__.startswith("cmt.")}
    return below.union(*(_all_subclasses(c) for c in below))


def test_no_layer_is_left_out():
    """Each layer of the package is checked above and shows how it is used."""
    cases = [*LAYERS.values(), *RULES.values(), *PARTS.values(), *VARIANTS.values()]
    checked = {type(kind()) for kind, _ in cases}
    layers = _all_subclasses(base.Layer) - {blocks.ResidualBlock}
    assert checked == layers
    for kind in {*layers, *_all_subclasses(base.Configured)} - {
        base.Layer,
        PanopticModel,
        blocks.ResidualBlock,
    }:
        assert ">>>" in kind.__doc__, kind


@pytest.mark.check
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_docstrings(name):
    module = importlib.import_module(name)
    names = {"tf": tf, "Style": conv.Style, **vars(module)}
    result = doctest.testmod(module, extraglobs=names)
    assert result.attempted
    assert not result.failed


def test_defaults_of_layers_are_those_of_configs():
    settings = model_pb2.ModelConfig()
    style = conv.Style()
    assert style.activation == model_pb2.Activation.Name(settings.activation).lower()
    assert style.norm_momentum == pytest.approx(settings.norm.momentum)
    assert style.norm_epsilon == pytest.approx(settings.norm.epsilon)
    assert style.norm_synchronized == settings.norm.synchronized
    for sizes, message in (
        (dual_path.TransformerSizes(), settings.transformer),
        (AxialSizes(), settings.backbone),
    ):
        for name, value in sizes._asdict().items():
            assert getattr(message, name) == value
    norm_layer = norm.BatchNorm()
    assert norm_layer.momentum == style.norm_momentum
    assert norm_layer.epsilon == style.norm_epsilon


def _plainly(function, *arguments):
    """A call that AutoGraph leaves alone: rewriting all of tf_keras takes seconds."""
    return tf.autograph.experimental.do_not_convert(function)(*arguments)


def test_a_transformer_layer_in_a_functional_model_is_saved(tmp_path):
    pixels = tf_keras.Input([5, 7, 20], batch_size=2)
    centers = tf_keras.Input([6, 12], batch_size=2)
    layer = dual_path.TransformerLayer(SIZES, style=STYLE)
    after = _plainly(layer, dual_path.DualPathState(pixels, centers))
    model = tf_keras.Model([pixels, centers], after.pixel_features)
    model.save(tmp_path / "model.keras")
    loaded = _plainly(tf_keras.models.load_model, tmp_path / "model.keras")
    inputs = [normal(2, 5, 7, 20), normal(2, 6, 12)]
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-6)


def test_affinity_accumulates_in_float32():
    """Through layers in mixed precision, in the state that they pass on."""
    mixed = [
        dual_path.TransformerLayer(SIZES, style=STYLE, dtype="mixed_bfloat16")
        for _ in range(3)
    ]
    current = state(with_points=False)
    current = current._replace(
        pixel_features=tf.cast(current.pixel_features, tf.bfloat16),
        cluster_centers=tf.cast(current.cluster_centers, tf.bfloat16),
    )
    for layer in mixed:
        before, current = current.affinity_logits, layer(current)
        assert current.affinity_logits.dtype == tf.float32
        assert current.pixel_features.dtype == tf.bfloat16
    # What a layer adds is far finer than bfloat16 could hold beside a large S.
    large = current._replace(affinity_logits=before + 256.0)
    added = mixed[-1](large).affinity_logits - large.affinity_logits
    expected = mixed[-1](current._replace(affinity_logits=before)).affinity_logits
    np.testing.assert_allclose(added, expected - before, atol=1e-3)


def test_inner_layers_have_the_dtype_of_the_outer():
    layer = conv.ConvNorm(4, style=STYLE, dtype="mixed_bfloat16")
    assert layer(IMAGES).dtype == tf.bfloat16
    again = conv.ConvNorm.from_config(layer.get_config())
    assert again(IMAGES).dtype == tf.bfloat16
    assert conv.ConvNorm(4, style=STYLE)(IMAGES).dtype == tf.float32


def test_layers_can_be_copied():
    layer = copy.deepcopy(blocks.BottleneckBlock(2, style=STYLE))
    assert layer.get_config()["channels"] == 2
    assert layer(IMAGES).shape == (3, 7, 5, 8)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: conv.Style(norm_momentum=2.0), "norm_momentum must be in"),
        (lambda: conv.Style("tanh"), "activation must be"),
        (lambda: conv.DropPath(1.0), "rate must be"),
        (lambda: norm.BatchNorm(axis=7)(IMAGES), "rank 4; got \\[7\\]"),
        (
            lambda: attention.AxialAttention1D(
                4, 8, 2, max_relative_positions=0, style=STYLE
            ),
            "max_relative_positions must be at least 1; got 0",
        ),
        (
            lambda: dual_path.TransformerLayer(SIZES, assignment="x", style=STYLE),
            "assignment must be one of",
        ),
        (
            lambda: dual_path.TransformerLayer(SIZES, num_points=3, style=STYLE)(
                state(with_points=False)
            ),
            "needs state.reference_embedding; got None",
        ),
    ],
)
def test_mistakes_are_named(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()
