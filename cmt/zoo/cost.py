"""Counts parameters and multiply-adds of a network, part by part.

In the paper's convention: trainable variables, multiply-adds of convolutions and
matrix products of the forward pass, neither with the auxiliary semantic branch. The
multiply-adds are counted in the traced graph: what is counted is what runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from cmt.errors import WorkError
from cmt.model import RecursiveCMTDeepLab

# (pattern of a name below the network's, part), in the order of the image's way; the
# first that is found counts. MaX-DeepLab-S keeps its stage 5 in the decoder.
PARTS = (
    (r"(^|/)semantic_branch/", "auxiliary_semantic"),
    (r"(^|/)stem\d+/", "stem"),
    (r"(^|/)stage2_block", "stage2"),
    (r"(^|/)stage3_block", "stage3"),
    (r"(^|/)stage4_block", "stage4"),
    (r"(^|/)(stage5_block|stage5/\w+_block\d)", "stage5"),
    (r"(^|/)(cluster_centers|reference_embedding)\b", "centers"),
    (r"(^|/)dual_path2?_block", "dual_path_axial_blocks"),
    (r"_transformer\d+/", "dual_path_transformer_layers"),
    (r"(^|/)fuse\d+/", "fuse"),
    (r"(^|/)stride\d+_block", "upward_blocks"),
    (r"(^|/)head/", "heads"),
)
PASSES = ("first", "second")
"""Of a recursive network; the parts of each are counted by themselves."""
NOT_COUNTED = "auxiliary_semantic"
RESIZE = "resize"
"""Products in a name scope of this name interpolate: not counted."""

Shape = tuple[int, ...]


class Count(NamedTuple):
    """A number of parameters or of multiply-adds.

    Attributes:
      total: in the paper's convention.
      by_part: the parts of the total, by name.
      not_counted: of the auxiliary semantic branch.
    """

    total: int
    by_part: dict[str, int]
    not_counted: int


def count_parameters(model: tf_keras.Model) -> Count:
    """Counts the trainable variables of a built network.

    Raises:
      WorkError: a variable belongs to no part that is known here.
    """
    networks = {"": model}
    if isinstance(model, RecursiveCMTDeepLab):
        networks = {f"{name}/": getattr(model, name) for name in PASSES}
    return _sum_up(
        (prefix + variable.name.removeprefix(prefix), math.prod(variable.shape))
        for prefix, network in networks.items()
        for variable in network.trainable_variables
    )


def count_multiply_adds(model: tf_keras.Model, size: tuple[int, int]) -> Count:
    """Counts the multiply-adds of one image's way through a built network.

    Args:
      model: images [1, H, W, 3] -> predictions.
      size: (H, W) of the image in pixels.

    Returns:
      The counts, from the traced graph of inference.

    Raises:
      WorkError: the graph has an operation that is not known here.
    """
    forward = tf.function(lambda x: model(x, training=False), autograph=False)
    traced = forward.get_concrete_function(tf.TensorSpec([1, *size, 3], tf.float32))
    graph = traced.graph.as_graph_def(add_shapes=True)
    prefix = f"{model.name}/"
    return _sum_up(
        (name.removeprefix(prefix), count)
        for name, count in products(graph)
        if RESIZE not in name.split("/")
    )


def part_of(name: str) -> str:
    """Returns the part of a variable or an operation, such as "stem" or "second/stem".

    Args:
      name: below the network's, such as "backbone/stem1/conv/kernel:0".

    Raises:
      WorkError: no part that is known here.
    """
    for pattern, part in PARTS:
        if re.search(pattern, name):
            first = name.split("/")[0]
            return f"{first}/{part}" if first in PASSES else part
    raise WorkError(
        f"{name} belongs to no part of cmt/zoo/cost.py: PARTS must name one"
    )


def _sum_up(counts: Iterable[tuple[str, int]]) -> Count:
    sums: dict[str, int] = {}
    for name, count in counts:
        part = part_of(name)
        sums[part] = sums.get(part, 0) + count
    aside = sum(n for part, n in sums.items() if part.endswith(NOT_COUNTED))
    prefixes = ("", *(f"{name}/" for name in PASSES))
    parts = [part for _, part in PARTS if part != NOT_COUNTED]
    places = [prefix + part for prefix in prefixes for part in parts]
    by_part = {part: sums[part] for part in places if part in sums}
    return Count(sum(by_part.values()), by_part, aside)


def products(graph: tf.compat.v1.GraphDef) -> Iterator[tuple[str, int]]:
    """Yields (name, multiply-adds) of each product of a graph, called functions too.

    Args:
      graph: with shapes (`as_graph_def(add_shapes=True)`), all of them static.

    Raises:
      WorkError: an operation that is neither a known product nor known to be none, a
        product whose shapes are not static, or one in a loop or a branch.
    """
    functions = {f.signature.name: f for f in graph.library.function}
    yield from _walk(graph.node, {}, functions, "")


def _walk(
    nodes: Sequence[Any],
    arguments: Mapping[str, Shape],
    functions: Mapping[str, Any],
    prefix: str,
) -> Iterator[tuple[str, int]]:
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        name = prefix + node.name
        called = [functions[f] for f in _function_names(node) if f in functions]
        inner = (
            product
            for function in called
            for product in _walk(
                function.node_def, _argument_shapes(function), functions, name + "/"
            )
        )
        if node.op in PRODUCTS:
            operands = [i for i in node.input if not i.startswith("^")]
            inputs = [_shape_of(i, by_name, arguments) for i in operands]
            (output,) = _shapes(node.attr["_output_shapes"])
            if min(d for shape in (*inputs, output, (1,)) for d in shape) < 0:
                raise WorkError(f"cannot count {name}: its shapes are not static")
            yield name, PRODUCTS[node.op](node, inputs, output)
        elif node.op in CALLS:
            yield from inner
        elif called:
            # The graph does not hold how often a loop runs, or which branch.
            for product, _ in inner:
                raise WorkError(f"cannot count {product}, inside of a {node.op}")
        elif node.op not in NO_PRODUCTS:
            raise WorkError(
                f"cannot count {name}: cmt/zoo/cost.py does not say whether "
                f"operations of type {node.op} are products"
            )


def _function_names(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (f.name for f in value.list.func)


def _argument_shapes(function: Any) -> dict[str, Shape]:
    names = [argument.name for argument in function.signature.input_arg]
    shapes = _shapes(function.attr["_input_shapes"])
    return dict(zip(names, shapes, strict=True))


def _shapes(attribute: Any) -> list[Shape]:
    return [
        (-1,) if shape.unknown_rank else tuple(d.size for d in shape.dim)
        for shape in attribute.list.shape
    ]


def _shape_of(
    tensor: str, by_name: Mapping[str, Any], arguments: Mapping[str, Shape]
) -> Shape:
    """The shape of "node" or "node:1"; in a function "argument" or "node:output:1"."""
    source, *output = tensor.split(":")
    if source in arguments:
        return arguments[source]
    node = by_name[source]
    shapes = _shapes(node.attr["_output_shapes"])
    named = len(output) == 2 and len(shapes) > 1
    if named and output[0] not in ("y", "output"):
        # Only the definition of the operation knows the places of its named outputs;
        # `y` is the first of a batch norm, `output` the list of a split or a call.
        raise WorkError(f"cannot count what reads {tensor}, one of {len(shapes)}")
    return shapes[int(output[-1]) if output else 0]


def _convolution(node: Any, inputs: Sequence[Shape], output: Shape) -> int:
    height, width, channels, _ = inputs[1]
    return math.prod(output) * height * width * channels


def _depthwise(node: Any, inputs: Sequence[Shape], output: Shape) -> int:
    height, width, _, _ = inputs[1]
    return math.prod(output) * height * width


def _matrix_product(node: Any, inputs: Sequence[Shape], output: Shape) -> int:
    turned = node.attr["transpose_a"].b or node.attr["adj_x"].b
    return math.prod(output) * inputs[0][-2 if turned else -1]


def _einsum(node: Any, inputs: Sequence[Shape], output: Shape) -> int:
    """Sizes of all letters but those that are summed over in one factor alone."""
    equation = node.attr["equation"].s.decode()
    terms, result = equation.replace(" ", "").split("->")
    factors = terms.split(",")
    if "." in equation:
        raise WorkError(f"cannot count {node.name}: an ellipsis in {equation}")
    if len(factors) == 1:
        return 0
    sizes = {
        letter: size
        for factor, shape in zip(factors, inputs, strict=True)
        for letter, size in zip(factor, shape, strict=True)
    }
    together = set(result) | (set(factors[0]) & set(factors[1]))
    return math.prod(sizes[letter] for letter in together)


PRODUCTS: dict[str, Callable[[Any, Sequence[Shape], Shape], int]] = {
    "BatchMatMul": _matrix_product,
    "BatchMatMulV2": _matrix_product,
    "BatchMatMulV3": _matrix_product,
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "Einsum": _einsum,
    "MatMul": _matrix_product,
}
"""Operations that are products, and how many multiply-adds they are."""

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
"""Operations that run a function once."""

_NO_PRODUCTS = """
    Abs Add AddN AddV2 All Any ArgMax ArgMin Assert BatchToSpaceND BiasAdd BroadcastTo
    Cast Ceil ConcatV2 Const Cumsum DivNoNan Equal Erf Erfc Exp ExpandDims Fill Floor
    FloorDiv FloorMod FusedBatchNormV3 GatherNd GatherV2 Greater GreaterEqual Identity
    IdentityN InvertPermutation IsFinite LeakyRelu Less LessEqual Log Log1p LogSoftmax
    LogicalAnd LogicalNot LogicalOr Max MaxPool Maximum Mean Min Minimum Mul Neg NoOp
    NotEqual OneHot OnesLike Pack Pad PadV2 Placeholder PlaceholderWithDefault Pow
    PreventGradient Prod Range Rank ReadVariableOp RealDiv Reciprocal Relu Reshape
    ResizeBilinear ReverseV2 Roll Round Rsqrt Select SelectV2 Shape Sigmoid Sign Size
    Slice Softmax Softplus SpaceToBatchND Split SplitV Sqrt Square SquaredDifference
    Squeeze StopGradient StridedSlice Sub Sum Tanh Tile TopKV2 Transpose Unpack Where
    ZerosLike
"""
NO_PRODUCTS = frozenset(_NO_PRODUCTS.split())
"""Operations that are known to be none."""
