"""Which variable of a network is which key of a checkpoint, by names and paths."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from cmt.errors import InputError, few
from cmt.weights import names as weight_names
from cmt.weights.files import Contents, is_numbered

# The passes of a recursive network: attributes, each a network by itself.
PASSES = ("first", "second")


class Target(NamedTuple):
    """A variable of the network.

    Attributes:
      name: "first/backbone/...", with the pass where there are two.
      local: the name without the pass.
      variable: the variable itself.
    """

    name: str
    local: str
    variable: tf.Variable

    @property
    def shape(self) -> list[int]:
        return self.variable.shape.as_list()


class Plan(NamedTuple):
    """The key of each variable, before shapes are compared.

    Attributes:
      kind: "cmt" or "DeepLab2".
      keys: by the id of a variable; absent where the checkpoint lacks it.
      unexpected: what else the checkpoint holds.
    """

    kind: str
    keys: dict[int, str]
    unexpected: list[str]


def list_targets(network: tf_keras.Model) -> list[Target]:
    """Returns all variables of a network, passes first."""
    found, seen = [], set()
    passes = [(f"{name}/", part) for name, part in _passes(network)]
    for prefix, part in [*passes, ("", network)]:
        for variable in part.variables:
            if id(variable) not in seen:
                seen.add(id(variable))
                local = weight_names.local_name(variable.name)
                found.append(Target(prefix + local, local, variable))
    return found


def _passes(network: tf_keras.Model) -> list[tuple[str, tf_keras.Model]]:
    """Returns name and network of each pass; nothing for a network of one pass."""
    parts = [(name, getattr(network, name, None)) for name in PASSES]
    return [(name, part) for name, part in parts if isinstance(part, tf_keras.Model)]


def make_plan(
    network: tf_keras.Model, contents: Contents, targets: list[Target]
) -> Plan:
    """Finds out whose checkpoint it is, and the keys of the variables.

    Raises:
      InputError: it is neither of this package nor of DeepLab2.
    """
    prefix = weight_names.deeplab2_prefix(contents.shapes)
    if prefix is not None:
        return _deeplab2_plan(network, contents, targets, prefix)
    root = _network_node(contents)
    if root is None:
        names = sorted({key.split("/")[0] for key in contents.shapes})
        raise InputError(
            f"checkpoint {contents.prefix} is of no network known here: its keys begin "
            f"with {few(names)}; give one of `cmt train`, or a TensorFlow checkpoint "
            "of DeepLab2, with keys `encoder/...`"
        )
    return _own_plan(network, contents, root)


def _deeplab2_plan(network, contents, targets, prefix) -> Plan:
    suffix = weight_names.SUFFIX
    keys = {}
    groups = [part for _, part in _passes(network)] or [network]
    for group in groups:
        inside = {id(variable) for variable in group.variables}
        members = [t for t in targets if id(t.variable) in inside]
        blocks = weight_names.num_stage5_blocks(t.local for t in members)
        for target in members:
            key = weight_names.deeplab2_key(target.local, stage5_blocks=blocks)
            if key is not None and prefix + key + suffix in contents.shapes:
                keys[id(target.variable)] = prefix + key + suffix
    used = set(keys.values())
    rest = [k for k in contents.shapes if k not in used and weight_names.is_weight(k)]
    return Plan("DeepLab2", keys, sorted(key.removesuffix(suffix) for key in rest))


def _network_node(contents: Contents) -> int | None:
    """Returns the node of a network of ours: averages, "model", or the root itself."""
    if not contents.has_graph:
        return None
    for node in (contents.follow(0, contents.network_key), 0):
        for path in (("backbone",), (PASSES[0], "backbone")):
            if node is not None and contents.follow(node, *path) is not None:
                return node
    return None


def _own_plan(network: tf_keras.Model, contents: Contents, root: int) -> Plan:
    passes = _passes(network)
    stored = contents.follow(root, PASSES[0])
    rest = []
    if passes and stored is not None:
        starts = [(part, contents.follow(root, name)) for name, part in passes]
        rest = [(network, root)]
    elif passes:
        starts = [(part, root) for _, part in passes]
    else:
        # A first pass has an image alone for input, as a plain network has.
        starts = [(network, root if stored is None else stored)]
    starts = [(part, node) for part, node in starts if node is not None]
    nodes: dict[int, int] = {}
    for part, node in starts:
        nodes |= _same_names(part, node, contents)
    if not nodes:
        # A network around layers of its own names.
        for item, node in [*starts, *rest]:
            for pair in pair_variables(item, node, contents, strict=False):
                if pair.key is not None:
                    nodes.setdefault(id(pair.variable), pair.node)
    used = set(nodes.values())
    unexpected = [
        path
        for node, path in contents.variables_below(root).items()
        if node not in used and weight_names.is_weight(path)
    ]
    keys = {variable: contents.key(node) for variable, node in nodes.items()}
    return Plan("cmt", keys, unexpected)


def _same_names(part: tf_keras.Model, root: int, contents: Contents) -> dict[int, int]:
    """Returns the nodes, by the id of the variable, of variables with the same name.

    Names hold stage and block. Paths number the blocks through all stages, so that a
    number means another block where a stage has one more.
    """
    below = list(contents.variables_below(root))
    stored = weight_names.common_names([contents.name(node) for node in below])
    nodes = {name: node for name, node in zip(stored, below, strict=True) if name}
    names = weight_names.common_names([v.name for v in part.variables])
    return {
        id(variable): nodes[name]
        for name, variable in zip(names, part.variables, strict=True)
        if name in nodes
    }


class Pair(NamedTuple):
    """A variable of the network and its place in a checkpoint.

    Attributes:
      path: the attributes that lead to the variable, "head/kernel".
      variable: the variable.
      key: of its value; None where the checkpoint lacks it.
      node: in the checkpoint's object graph; None where it has none.
    """

    path: str
    variable: tf.Variable
    key: str | None
    node: int | None


def pair_variables(
    network: tf_keras.Model, root: int, contents: Contents, *, strict: bool
) -> list[Pair]:
    """Goes down the object graphs of network and checkpoint together.

    Args:
      network: where to begin.
      root: the node of the checkpoint where to begin.
      contents: the checkpoint.
      strict: also follow the numbers that Keras gives layers, to those that no
        attribute leads to. A number means another layer where a network has a layer
        more, so they are right for the same network alone.

    Returns:
      One for each variable that is found.
    """
    pairs: list[Pair] = []
    seen: set[int] = set()
    queue: deque[tuple[str, Any, int | None]] = deque([("", network, root)])
    numbered: deque[tuple[str, Any, int | None]] = deque()
    while queue or (strict and numbered):
        path, item, node = (queue or numbered).popleft()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, tf.Variable):
            key = None if node is None else contents.key(node)
            pairs.append(Pair(path, item, key, node))
            continue
        below = {} if node is None else contents.children(node)
        for name, child in tf.train.TrackableView.children(item).items():
            following = numbered if is_numbered(name) else queue
            place = f"{path}/{name}" if path else name
            following.append((place, child, below.get(name)))
    return pairs
