"""The graph of a network as a server gets it: few nodes, few variables, fused once.

Before its first answer TensorFlow copies, checks and places each node, optimizes the
graph twice in each function that calls it, and hands each variable from one function to
the next. So what can be done once is done before saving.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.python.framework import op_def_registry
from tensorflow.python.grappler import tf_optimizer

# Grappler's passes whose results are operations that every runtime has.
_PASSES = ("pruning", "common_subgraph_elimination", "constfold", "dependency")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_NO_INLINING = "_noinline"
# Numbers in a tensor that is not stored together with others.
_LARGE = 2**14


def shrink(
    function: tf.types.experimental.ConcreteFunction, variables: Sequence[tf.Variable]
) -> tuple[tf.types.experimental.GenericFunction, list[tf.Variable]]:
    """Optimizes a traced function; what it makes of variables alone is computed now.

    Args:
      function: of one structure of tensors, to another.
      variables: those it reads.

    Returns:
      A function that computes the same, and the variables it reads: large kernels as
      they are, what is computed of others, and one that holds all that is small.
    """
    graph = _optimized(function)
    handles = {_node(inner.name): given for given, inner in function.graph.captures}
    variable_of = {id(variable.handle): variable for variable in variables}
    reads = {}
    for node in graph.node:
        if node.op == "ReadVariableOp":
            reads[f"{node.name}:0"] = variable_of[id(handles[node.input[0]])]
    fixed = _made_of(graph, map(_node, reads))
    weights = _used_outside(graph, fixed - _made_of(graph, ()), fixed)
    of_weights = _part(graph, weights, handles, fixed)
    values = tf.function(lambda: _run(of_weights, handles, {}, weights))()

    small, large = {}, {}
    for name, value in zip(weights, values, strict=True):
        if value.dtype == tf.float32 and tf.size(value) < _LARGE:
            small[name] = value
        else:
            large[name] = reads[name] if name in reads else tf.Variable(value)
    # The first part is empty, so that there may be no other.
    parts = [tf.zeros([0]), *(tf.reshape(value, [-1]) for value in small.values())]
    sizes = [part.shape[0] for part in parts]
    together = tf.Variable(tf.concat(parts, axis=0))

    arguments = [t.name for t in function.inputs if _node(t.name) not in handles]
    results = [tensor.name for tensor in function.outputs]
    replaced = {*map(_node, [*arguments, *weights])}
    rest = _part(graph, results, {*handles, *replaced}, fixed)

    # The attribute tells `optimize_once` which function is the network.
    @tf.function(
        input_signature=function.structured_input_signature[0],
        autograph=False,
        experimental_attributes={_NO_INLINING: True},
    )
    def network(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        _, *pieces = tf.split(together, sizes)
        given = dict(zip(arguments, tf.nest.flatten(inputs), strict=True))
        given |= {name: variable.value() for name, variable in large.items()}
        shape = functools.cache(functools.partial(tf.constant, dtype=tf.int32))
        # Flat ones, too: OpenVINO takes no norm of an operation with several outputs.
        for (name, value), piece in zip(small.items(), pieces, strict=True):
            given[name] = tf.reshape(piece, shape(tuple(value.shape)))
        found = _run(rest, handles, given, results)
        for tensor, known in zip(found, function.outputs, strict=True):
            tensor.set_shape(known.shape)
        return tf.nest.pack_sequence_as(function.structured_outputs, found)

    return network, [*large.values(), together]


def optimize_once(meta: meta_graph_pb2.MetaGraphDef) -> None:
    """Leaves to a server what only it can do: to fuse operations of the network.

    Args:
      meta: of a SavedModel that calls what `shrink` made; is changed.
    """
    fusing, nothing = tf.compat.v1.ConfigProto(), tf.compat.v1.ConfigProto()
    nothing.graph_options.rewrite_options.disable_meta_optimizer = True
    rewriting = fusing.graph_options.rewrite_options
    rewriting.meta_optimizer_iterations = rewriting.ONE
    rewriting.optimizers.append("remap")
    functions = meta.graph_def.library.function
    networks = {f.signature.name for f in functions if _NO_INLINING in f.attr}
    callers = [f for f in functions if any(node.op in _CALLS for node in f.node_def)]
    for nodes in (meta.graph_def.node, *(caller.node_def for caller in callers)):
        for call in (node for node in nodes if node.op in _CALLS):
            config = fusing if call.attr["f"].func.name in networks else nothing
            call.attr["config_proto"].s = config.SerializeToString()
    # What is inlined is optimized with its caller.
    for caller in callers:
        caller.attr[_NO_INLINING].b = True


def drop_shapes(meta: meta_graph_pb2.MetaGraphDef) -> None:
    """Takes out of the nodes the shapes of their outputs, which a server infers anew.

    Before its first answer it would read, check and copy them.
    """
    functions = meta.graph_def.library.function
    for nodes in (meta.graph_def.node, *(function.node_def for function in functions)):
        for node in nodes:
            node.attr.pop("_output_shapes", None)


def _optimized(function: tf.types.experimental.ConcreteFunction) -> graph_pb2.GraphDef:
    meta = meta_graph_pb2.MetaGraphDef(graph_def=function.graph.as_graph_def())
    results = meta.collection_def["train_op"].node_list.value  # It keeps these.
    results.extend(tensor.name for tensor in function.outputs)
    config = tf.compat.v1.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.optimizers.extend(_PASSES)
    rewriting.meta_optimizer_iterations = rewriting.ONE
    return tf_optimizer.OptimizeGraph(config, meta, verbose=False)


def _node(name: str) -> str:
    """The node that an output, or the input of a node, comes from."""
    return name.removeprefix("^").partition(":")[0]


def _made_of(graph: graph_pb2.GraphDef, nodes: Iterable[str]) -> set[str]:
    """These nodes, and all that is made of them and of constants alone."""
    made = {*nodes, *(node.name for node in graph.node if node.op == "Const")}
    size = 0
    while size < len(made):
        size = len(made)
        made |= {
            node.name
            for node in graph.node
            if node.input
            and all(_node(name) in made for name in node.input)
            and not op_def_registry.get(node.op).is_stateful
        }
    return made


def _used_outside(
    graph: graph_pb2.GraphDef, nodes: set[str], inside: set[str]
) -> list[str]:
    """Outputs of some nodes that are inputs of nodes not `inside`, "NODE:NUMBER"."""
    used = {
        name if ":" in name else f"{name}:0"
        for node in graph.node
        if node.name not in inside
        for name in node.input
        if name in nodes or _node(name) in nodes and not name.startswith("^")
    }
    return sorted(used)


def _part(
    graph: graph_pb2.GraphDef,
    results: Sequence[str],
    given: Iterable[str],
    fixed: set[str],
) -> graph_pb2.GraphDef:
    """The nodes that results need, without those that are given.

    No node waits for a given or a `fixed` one that it does not use.
    """
    given = {*given}
    there = given | fixed
    inputs = {
        node.name: [n for n in node.input if n[0] != "^" or _node(n) not in there]
        for node in graph.node
    }
    needed: set[str] = set()
    wanted = {*map(_node, results)} - given
    while wanted:
        needed |= wanted
        found = {_node(name) for node in wanted for name in inputs[node]}
        wanted = found - needed - given
    part = graph_pb2.GraphDef(versions=graph.versions, library=graph.library)
    for node in graph.node:
        if node.name in needed:
            copy = part.node.add()
            copy.CopyFrom(node)
            del copy.input[:]
            copy.input.extend(inputs[node.name])
    return part


def _run(
    part: graph_pb2.GraphDef,
    handles: Mapping[str, tf.Tensor],
    given: Mapping[str, tf.Tensor],
    results: Sequence[str],
) -> list[tf.Tensor]:
    """Puts a part of a graph into the one that is being built."""
    used = {_node(name) for node in part.node for name in node.input}
    capture = tf.compat.v1.get_default_graph().capture
    captured = {f"{n}:0": capture(t) for n, t in handles.items() if n in used}
    inputs = {name: t for name, t in given.items() if _node(name) in used}
    inputs |= captured
    return tf.graph_util.import_graph_def(part, inputs, list(results), "")
