"""Counting: products against numbers worked out by hand, parts, the paper's totals."""

from __future__ import annotations

import pytest
import tensorflow as tf
from google.protobuf import text_format

from cmt.errors import WorkError
from cmt.factory import build_model
from cmt.layers.conv import resize_align_corners
from cmt.protos import model_pb2
from cmt.zoo import cost


def counted(function, *shapes) -> list[tuple[str, int]]:
    """The products of a function of tensors of these shapes."""
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    traced = tf.function(function, autograph=False).get_concrete_function(*specs)
    return list(cost.products(traced.graph.as_graph_def(add_shapes=True)))


def total(function, *shapes) -> int:
    return sum(count for _, count in counted(function, *shapes))


def test_convolutions():
    def conv(x, kernel):
        return tf.nn.conv2d(x, kernel, strides=2, padding="VALID")

    # Rows (23 - 3) / 2 + 1 = 11, columns (19 - 5) / 2 + 1 = 8.
    expected = 2 * 11 * 8 * 13 * (3 * 5 * 7)
    assert total(conv, [2, 23, 19, 7], [3, 5, 7, 13]) == expected

    def grouped(x, kernel):
        return tf.nn.conv2d(x, kernel, strides=1, padding="SAME")

    # Two groups: an output sees 3 of the 6 channels.
    assert total(grouped, [1, 5, 7, 6], [3, 3, 3, 4]) == 5 * 7 * 4 * (3 * 3 * 3)

    def depthwise(x, kernel):
        return tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")

    assert total(depthwise, [2, 11, 13, 7], [5, 3, 7, 2]) == 2 * 11 * 13 * 14 * 15


@pytest.mark.parametrize("turned", [False, True])
def test_matrix_products(turned):
    def product(a, b):
        return tf.matmul(a, b, transpose_a=turned)

    a = [11, 7] if turned else [7, 11]
    assert total(product, a, [11, 13]) == 7 * 11 * 13
    assert total(product, [2, 3, *a], [2, 3, 11, 13]) == 2 * 3 * 7 * 11 * 13
    # One factor without a batch, as dense layers have it.
    assert total(product, [5, *a], [11, 13]) == 5 * 7 * 11 * 13


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("bpd,bnd->bpn", ([2, 3, 5], [2, 7, 5]), 2 * 3 * 5 * 7),
        ("blhd,lmd->bhlm", ([2, 3, 5, 7], [3, 11, 7]), 2 * 5 * 3 * 11 * 7),
        ("bd,bd->bd", ([2, 3], [2, 3]), 2 * 3),
        # e is summed in the first factor alone, before it meets the second.
        ("bde,bn->bdn", ([2, 3, 5], [2, 7]), 2 * 3 * 7),
        ("bpd->bdp", ([2, 3, 5],), 0),
    ],
)
def test_einsums(equation, shapes, expected):
    assert total(lambda *factors: tf.einsum(equation, *factors), *shapes) == expected


def test_functions_that_are_called_count_each_time():
    @tf.function(autograph=False)
    def inner(x, y):
        left, right = tf.split(x, 2, axis=0)
        return tf.matmul(left + right, y)

    @tf.function(autograph=False)
    def outer(x, y):
        return inner(x, y) + inner(x, y)

    # A product of 3 x 5 x 7, twice; names are those of the calls.
    found = counted(lambda x, y: outer(x, y), [6, 5], [5, 7])
    assert [count for _, count in found] == [3 * 5 * 7] * 2
    assert len({name for name, _ in found}) == 2
    assert all(name.count("/") >= 2 for name, _ in found)


def test_what_cannot_be_counted_is_refused():
    def loop(x, y):
        step = tf.function(lambda i, z: (i + 1, tf.matmul(z, y)), autograph=False)
        return tf.while_loop(lambda i, _: i < 3, step, [0, x])[1]

    with pytest.raises(WorkError, match="cannot count .*MatMul.*, inside of a .*While"):
        counted(loop, [5, 5], [5, 5])

    def branch(x, y):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.matmul(x, y), lambda: x)

    with pytest.raises(WorkError, match="inside of a .*If"):
        counted(branch, [5, 5], [5, 5])
    with pytest.raises(WorkError, match="type Conv3D are products"):
        counted(
            lambda x, k: tf.nn.conv3d(x, k, [1] * 5, "SAME"),
            [1, 3, 3, 3, 2],
            [1, 1, 1, 2, 2],
        )
    with pytest.raises(WorkError, match="shapes are not static"):
        counted(tf.matmul, [None, 3], [3, 5])
    with pytest.raises(WorkError, match="ellipsis"):
        counted(lambda x, y: tf.einsum("...a,ab->...b", x, y), [2, 3, 5], [5, 7])


def test_a_loop_without_products_is_no_obstacle():
    def loop(x, y):
        doubled = tf.while_loop(lambda i, _: i < 3, lambda i, z: (i + 1, z + z), [0, x])
        return tf.matmul(doubled[1], y)

    assert total(loop, [3, 5], [5, 7]) == 3 * 5 * 7


class Network(tf.Module):
    """Stands for a network: a product, and features that are resized."""

    def __call__(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        assert training is False
        with tf.name_scope("net/backbone/stem1/"):
            features = tf.einsum("bhwc,ck->bhwk", images, tf.ones([3, 7]))
            return resize_align_corners(features, (9, 21))


def test_resizing_is_not_counted():
    result = cost.count_multiply_adds(Network("net"), (5, 11))
    assert result == cost.Count(5 * 11 * 3 * 7, {"stem": 5 * 11 * 3 * 7}, 0)


def test_every_name_has_a_part():
    assert cost.part_of("second/decoder/first/dual_path_block1/conv1/Conv2D") == (
        "second/dual_path_axial_blocks"
    )
    assert cost.part_of("decoder/first/dual_path_block1/conv1/Conv2D") == (
        "dual_path_axial_blocks"
    )
    assert cost.part_of("decoder/stage5/dual_path_block3/conv1/Conv2D") == "stage5"
    assert cost.part_of("cluster_centers:0") == "centers"
    with pytest.raises(WorkError, match="neck/conv belongs to no part"):
        cost.part_of("neck/conv")


# Primes, so that no two widths can be taken for each other.
STEM, F2, F3, F4, F5, REACH = (2, 3, 7), 3, 5, 7, 11, 13
CENTERS, CLASSES, D, BOTTLENECK, KEY, VALUE, FFN = 5, 3, 17, 19, 23, 29, 31
POINTS, MLP, FEATURE, HIDDEN, PIXEL = 2, 37, 41, 43, 47
PRIMES = f"""
  num_classes: {CLASSES} num_centers: {CENTERS}
  backbone {{
    stem1_channels: {STEM[0]} stem2_channels: {STEM[1]} stem3_channels: {STEM[2]}
    stage2_blocks: 1 stage2_channels: {F2}
    stage3_blocks: 1 stage3_channels: {F3}
    stage4_blocks: 2 stage4_channels: {F4}
    stage5_blocks: 1 stage5_channels: {F5}
    num_heads: 1 max_relative_positions: {REACH}
  }}
  decoder {{ stage5_layers: 1 stage4_layers: 1 }}
  transformer {{
    center_channels: {D} bottleneck_channels: {BOTTLENECK} key_channels: {KEY}
    value_channels: {VALUE} num_heads: 1 ffn_channels: {FFN}
  }}
  location {{ num_points: {POINTS} mlp_channels: {MLP} }}
  heads {{
    center_feature_channels: {FEATURE} pixel_hidden_channels: {HIDDEN}
    pixel_feature_channels: {PIXEL}
  }}
  auxiliary_semantic {{
    channels: 4 stage3_projection_channels: 4 stage2_projection_channels: 4
  }}
"""
SIZE = (33, 49)
P2, P4, P8, H16, W16 = 17 * 25, 9 * 13, 5 * 7, 3, 4
P16 = H16 * W16


def dense(inputs: int, outputs: int, positions: int = 1) -> tuple[int, int]:
    """(parameters, multiply-adds) of a product and a batch norm."""
    return inputs * outputs + 2 * outputs, positions * inputs * outputs


def biased(inputs: int, outputs: int, positions: int) -> tuple[int, int]:
    return inputs * outputs + outputs, positions * inputs * outputs


def add(*counts: tuple[int, int]) -> tuple[int, int]:
    parameters, multiply_adds = zip(*counts, strict=True)
    return sum(parameters), sum(multiply_adds)


def bottleneck(channels: int, f: int, before: int, after: int) -> tuple[int, int]:
    """1x1, 3x3, 1x1, and a shortcut where channels change; positions in and out."""
    shortcut = [dense(channels, 4 * f, after)] if channels != 4 * f else []
    convolutions = dense(channels, f, before), dense(9 * f, f, after)
    return add(*convolutions, dense(f, 4 * f, after), *shortcut)


def axial(channels: int, f: int) -> tuple[int, int]:
    """One head: each position meets those of its column, then of its row."""
    shortcut = [dense(channels, 4 * f, P16)] if channels != 4 * f else []
    counts = [dense(channels, 2 * f, P16), dense(2 * f, 4 * f, P16), *shortcut]
    for length in (H16, W16):
        tables = (2 * REACH - 1) * (f + f + 2 * f)
        norms = 2 * 3 + 2 * (2 * f + 2 * f)
        # Three similarities of f channels, two retrieved values of 2 f.
        meetings = P16 * length * (3 * f + 2 * 2 * f)
        counts += [dense(2 * f, 4 * f, P16), (tables + norms, meetings)]
    return add(*counts)


def transformer(channels: int) -> tuple[int, int]:
    """Eq. 5-12, from the table of the paper's symbols."""
    n, qkv = CENTERS, 2 * KEY + VALUE
    return add(
        dense(D + 2 * POINTS, BOTTLENECK, n),
        dense(channels + 2, BOTTLENECK, P16),
        dense(D, MLP, n),
        dense(MLP, MLP, n),
        dense(MLP, 2 * POINTS, n),
        dense(BOTTLENECK, qkv, n),
        dense(BOTTLENECK, qkv, P16),
        # Centers to pixels and centers; norms of similarities and retrieved values.
        (2 + 2 * VALUE, n * (P16 + n) * (KEY + VALUE)),
        # S of Eq. 6, Z^T V of Eq. 7, Z V of Eq. 8; a norm after each.
        (2 + 2 * VALUE + 2 * VALUE, P16 * n * (KEY + 2 * VALUE)),
        dense(VALUE, D, n),
        dense(D, FFN, n),
        dense(FFN, D, n),
        dense(VALUE, channels, P16),
    )


def by_hand() -> dict[str, tuple[int, int]]:
    """(parameters, multiply-adds) of each part."""
    n = CENTERS
    stem = zip((3, *STEM), STEM, strict=False)
    return {
        "stem": add(*(dense(9 * a, b, P2) for a, b in stem)),
        "stage2": bottleneck(STEM[-1], F2, P2, P4),
        "stage3": bottleneck(4 * F2, F3, P4, P8),
        "stage4": add(bottleneck(4 * F3, F4, P8, P16), axial(4 * F4, F4)),
        "stage5": axial(4 * F4, F5),
        "centers": add((n * D, 0), biased(D, 2 * POINTS, n)),
        "dual_path_axial_blocks": add(axial(4 * F5, F5), axial(4 * F4, F4)),
        "dual_path_transformer_layers": add(transformer(4 * F5), transformer(4 * F4)),
        "fuse": add(
            dense(4 * F5, 4 * F4, P16),
            dense(4 * F4, 4 * F3, P16),
            dense(4 * F3, 4 * F2, P8),
        ),
        "upward_blocks": add(
            bottleneck(4 * F3, F3, P8, P8), bottleneck(4 * F2, F2, P4, P4)
        ),
        "heads": add(
            (25 * 4 * F2 + 2 * 4 * F2, P4 * 25 * 4 * F2),
            dense(4 * F2, HIDDEN, P4),
            biased(HIDDEN, PIXEL, P4),
            dense(D, FEATURE, n),
            dense(D, FEATURE, n),
            dense(FEATURE, PIXEL, n),
            biased(FEATURE, CLASSES + 1, n),
            # Norms of pixel features and mask logits; the mask logits.
            (2 * PIXEL + 2, P4 * PIXEL * n),
        ),
    }


def measured(changes: str = "") -> tuple[cost.Count, cost.Count]:
    settings = text_format.Parse(PRIMES, model_pb2.ModelConfig())
    network = build_model(text_format.Merge(changes, settings))
    network.build((None, *SIZE, 3))
    return cost.count_parameters(network), cost.count_multiply_adds(network, SIZE)


def test_a_network_by_hand():
    parameters, multiply_adds = measured()
    expected = by_hand()
    assert parameters.by_part == {part: count for part, (count, _) in expected.items()}
    assert multiply_adds.by_part == {part: n for part, (_, n) in expected.items()}
    assert parameters.total == sum(count for count, _ in expected.values())
    assert multiply_adds.total == sum(count for _, count in expected.values())
    assert list(parameters.by_part) == list(expected)  # in the order of the way
    assert parameters.not_counted > 0
    assert multiply_adds.not_counted > 0


@pytest.mark.slow
def test_both_passes_are_counted_by_themselves():
    expected = by_hand()
    changes = "rfn: true auxiliary_semantic { enabled: false }"
    for kind, counts in enumerate(measured(changes)):
        parts = {part: both[kind] for part, both in expected.items()}
        for name in cost.PASSES:
            of_pass = {
                part.removeprefix(f"{name}/"): count
                for part, count in counts.by_part.items()
                if part.startswith(f"{name}/")
            }
            assert of_pass == parts
        assert counts.total == 2 * sum(parts.values())
        assert counts.not_counted == 0
