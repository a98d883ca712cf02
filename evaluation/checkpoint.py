"""Reads training checkpoints: which one, of which network, at which step.

Names are compared along the object graph of the checkpoint, before anything is
restored, so that a checkpoint of another network is refused and not half loaded.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf import trackable_object_graph_pb2

from cmt.errors import InputError, tensorflow_reason

CHECKPOINTS_FOLDER = "checkpoints"
MODEL_KEY = "model"
STEP_KEY = "step"
_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
_NAMED_AT_MOST = 4
# The reader turns some of TensorFlow's errors into Python's.
_READ_ERRORS = (tf.errors.OpError, IndexError, RuntimeError, ValueError)


class Differences(NamedTuple):
    """What differs between a network and the one in a checkpoint.

    Attributes:
      missing: variables of the network that the checkpoint lacks.
      unexpected: variables of the checkpoint that the network lacks.
      wrong_shape: "name: shape in the checkpoint, shape in the network".
    """

    missing: list[str]
    unexpected: list[str]
    wrong_shape: list[str]


def find_checkpoint(path: str | Path) -> str:
    """Finds the checkpoint that a user means.

    Args:
      path: a checkpoint's prefix (".../step-1000"), a folder of checkpoints (its
        latest is taken) or a run directory.

    Returns:
      The prefix.

    Raises:
      InputError: there is none.
    """
    path = Path(path)
    if path.is_dir():
        folder = path / CHECKPOINTS_FOLDER
        folder = folder if folder.is_dir() else path
        state = tf.train.get_checkpoint_state(str(folder))
        latest = state.model_checkpoint_path if state else ""
        if latest and Path(f"{latest}.index").is_file():
            return latest
        prefixes = sorted(p.with_suffix("") for p in folder.glob("*.index"))
        if latest:
            name = Path(latest).name
            others = f", such as {prefixes[-1]}" if prefixes else ""
            raise InputError(
                f"{folder}: `checkpoint` names {name}, which is not there; "
                f"copy its files again or give another checkpoint{others}"
            )
        if prefixes:
            raise InputError(
                f"{folder} holds checkpoints, but no file `checkpoint` that says which "
                f"is the latest; give one of them, such as {prefixes[-1]}"
            )
        raise InputError(
            f"{folder} holds no checkpoint; give a run directory of `cmt train`, a "
            "folder with `*.index` and `*.data-*` files, or a prefix of such files"
        )
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    if not prefix.with_name(prefix.name + ".index").is_file():
        raise InputError(
            f"there is no checkpoint {prefix} (no file {prefix.name}.index); give a "
            "run directory, a folder of checkpoints or a checkpoint's prefix"
        )
    return str(prefix)


def read_step(prefix: str) -> int:
    """Returns the training step of a checkpoint.

    Raises:
      InputError: it cannot be read or was not written by `cmt train`.
    """
    return int(_Contents(prefix).value(STEP_KEY))


def load_weights(network: tf_keras.Model, path: str | Path) -> int:
    """Loads a network's variables from a training checkpoint.

    Args:
      network: is built.
      path: as `find_checkpoint` takes it.

    Returns:
      The training step of the checkpoint.

    Raises:
      InputError: there is no checkpoint, it cannot be read, or it is one of another
        network; the network is unchanged then.
    """
    prefix = find_checkpoint(path)
    check_network(network, prefix)
    step = read_step(prefix)
    try:
        # The optimizers' state is in the checkpoint and not wanted here.
        tf.train.Checkpoint(model=network).restore(prefix).expect_partial()
    except tf.errors.OpError as error:
        raise unreadable(prefix, error) from error
    return step


def check_network(network: tf_keras.Model, prefix: str) -> None:
    """Checks that a checkpoint holds exactly the variables of the network.

    Raises:
      InputError: it does not; names a few that differ.
    """
    found = compare(network, prefix)
    parts = [
        f"{len(names)} {what} ({_few(names)})"
        for what, names in zip(
            ("missing in it", "not in the model", "of another shape"),
            found,
            strict=True,
        )
        if names
    ]
    if parts:
        raise InputError(
            f"checkpoint {prefix} is of another model; variables: {'; '.join(parts)}; "
            "use the config it was trained with (config.textproto in its run directory)"
        )


def compare(network: tf_keras.Model, prefix: str) -> Differences:
    """Compares names and shapes of a network's variables with a checkpoint's.

    Raises:
      InputError: the checkpoint cannot be read or was not written by `cmt train`.
    """
    contents = _Contents(prefix)
    root = contents.child(0, MODEL_KEY)
    missing, wrong_shape = [], []
    visited: set[int] = set()
    seen = {id(network)}
    queue = deque([("", network, root)])
    while queue:
        path, item, node = queue.popleft()
        if node is not None:
            visited.add(node)
        if isinstance(item, tf.Variable):
            shape = None if node is None else contents.shape(node)
            if shape is None:
                missing.append(path)
            elif shape != item.shape.as_list():
                wrong_shape.append(f"{path}: {shape} in it, {item.shape.as_list()}")
            continue
        # Attributes first: Keras also numbers layers, which names nothing.
        children = tf.train.TrackableView.children(item).items()
        for name, child in sorted(children, key=lambda c: _is_numbered(c[0])):
            if id(child) not in seen:
                seen.add(id(child))
                where = f"{path}/{name}" if path else name
                below = None if node is None else contents.child(node, name)
                queue.append((where, child, below))
    return Differences(missing, contents.variables_below(root, visited), wrong_shape)


def unreadable(prefix: str, error: Exception) -> InputError:
    """Returns the one-line error for a checkpoint that TensorFlow fails to read."""
    return InputError(
        f"checkpoint {prefix} cannot be read ({tensorflow_reason(error)}); it is "
        "damaged or not complete: use another one, or copy its .index and .data files "
        "again"
    )


class _Contents:
    """The object graph and the shapes of a checkpoint."""

    def __init__(self, prefix: str):
        self._prefix = prefix
        try:
            self._reader = tf.train.load_checkpoint(prefix)
            self._shapes = self._reader.get_variable_to_shape_map()
        except _READ_ERRORS as error:
            raise unreadable(prefix, error) from error
        if _GRAPH_KEY not in self._shapes:
            raise InputError(
                f"checkpoint {prefix} was not written by `cmt train` (it has no object "
                "graph); give one of a run directory"
            )
        graph = trackable_object_graph_pb2.TrackableObjectGraph
        self._nodes = graph.FromString(self._read(_GRAPH_KEY)).nodes

    def _read(self, key: str):
        try:
            return self._reader.get_tensor(key)
        except _READ_ERRORS as error:
            raise unreadable(self._prefix, error) from error

    def child(self, node: int, name: str) -> int | None:
        """Returns a child's node; the two keys of the root must be there."""
        for child in self._nodes[node].children:
            if child.local_name == name:
                return child.node_id
        if node == 0:
            names = [child.local_name for child in self._nodes[0].children]
            raise InputError(
                f"checkpoint {self._prefix} was not written by `cmt train`: it has no "
                f"{name!r} but {_few(names)}; give one of a run directory"
            )
        return None

    def key(self, node: int) -> str | None:
        """Returns the key of a node's value; None for a node that is no variable."""
        for attribute in self._nodes[node].attributes:
            if attribute.name == _VALUE:
                return attribute.checkpoint_key
        return None

    def shape(self, node: int) -> list[int] | None:
        key = self.key(node)
        return None if key is None else list(self._shapes[key])

    def value(self, name: str):
        """Returns the value of a variable that is a child of the root."""
        return self._read(self.key(self.child(0, name)))

    def variables_below(self, root: int, without: set[int]) -> list[str]:
        """Names the variables below a node, those of `without` left out."""
        names = []
        seen = {root}
        queue = deque([("", root)])
        while queue:
            path, node = queue.popleft()
            if self.key(node) is not None and node not in without:
                names.append(path)
            for child in self._nodes[node].children:
                if child.node_id not in seen:
                    seen.add(child.node_id)
                    where = f"{path}/{child.local_name}" if path else child.local_name
                    queue.append((where, child.node_id))
        return names


def _few(names: list[str]) -> str:
    rest = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")


def _is_numbered(name: str) -> bool:
    return name.startswith(("layer-", "layer_with_weights-"))
