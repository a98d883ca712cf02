"""Checkpoint files: which one a user means, and what is in it."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from cmt.errors import InputError, tensorflow_reason
from cmt.io.storage import plain_path
from cmt.run_files import CHECKPOINTS_FOLDER

MODEL_KEY = "model"
AVERAGED_KEY = "averaged"  # a network whose weights are averages over the steps
STEP_KEY = "step"
_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
# What loads the files of Keras, by their ending.
_KERAS_FILES = {
    ".h5": "model.load_weights",
    ".hdf5": "model.load_weights",
    ".keras": "tf_keras.models.load_model",
}
# The reader turns some of TensorFlow's errors into Python's.
_READ_ERRORS = (tf.errors.OpError, IndexError, RuntimeError, ValueError)


def find_checkpoint(path: str | Path) -> str:
    """Finds the checkpoint that a user means.

    Args:
      path: a checkpoint's prefix (".../step-1000"), a folder of checkpoints (its
        latest is taken) or a run directory.

    Returns:
      The prefix.

    Raises:
      InputError: there is none, or what is given is no path.
    """
    _check_path(path)
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
        if path.suffix in _KERAS_FILES:
            raise InputError(
                f"{path} is not a TensorFlow checkpoint: a {path.suffix} file loads "
                f"with {_KERAS_FILES[path.suffix]}; model.save_weights to a path "
                "without such an ending writes a checkpoint"
            )
        raise InputError(
            f"there is no checkpoint {prefix} (no file {prefix.name}.index); give a "
            "run directory, a folder of checkpoints or a checkpoint's prefix"
        )
    return str(prefix)


def _check_path(path: str | Path) -> None:
    """Refuses what is no path, or an empty one, which would mean the working folder."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            "a checkpoint must be given as a path, a str or a pathlib.Path; got "
            f"{type(path).__name__}"
        )
    if not os.fspath(path):
        raise InputError(
            "the path of a checkpoint is empty; give a run directory, a folder of "
            "checkpoints or a checkpoint's prefix"
        )


def unreadable(prefix: str, error: Exception) -> InputError:
    """Returns the one-line error for a checkpoint that TensorFlow fails to read."""
    return InputError(
        f"checkpoint {prefix} cannot be read ({tensorflow_reason(error)}); it is "
        "damaged or not complete: use another one, or copy its .index and .data files "
        "again"
    )


def verify(prefix: str) -> None:
    """Reads all of a checkpoint, so that TensorFlow compares every checksum in it.

    Raises:
      InputError: it is damaged or not complete.
    """
    contents = Contents(prefix)
    for key in contents.shapes:
        contents.value(key)


def is_numbered(name: str) -> bool:
    """True for a child that Keras adds to a model: a layer by its number."""
    return name.startswith(("layer-", "layer_with_weights-"))


class Contents:
    """Keys, shapes, values and the object graph of a checkpoint.

    Nodes of the object graph are numbers; 0 is the root.

    Attributes:
      prefix: of the checkpoint.
      shapes: of each key.
      dtypes: of each key.
      has_graph: False for one that was not written by `tf.train.Checkpoint`.

    Raises:
      InputError: it cannot be read.
    """

    def __init__(self, prefix: str):
        self.prefix = prefix
        try:
            self._reader = tf.train.load_checkpoint(plain_path(prefix))
            self.shapes = self._reader.get_variable_to_shape_map()
            self.dtypes = self._reader.get_variable_to_dtype_map()
        except _READ_ERRORS as error:
            raise unreadable(prefix, error) from error
        self.has_graph = _GRAPH_KEY in self.shapes
        self._nodes = []
        if self.has_graph:
            graph = trackable_object_graph_pb2.TrackableObjectGraph
            self._nodes = graph.FromString(self.value(_GRAPH_KEY)).nodes

    @property
    def network_key(self) -> str:
        """Name of the network to use: that of the averages, where there is one."""
        has_averages = self.has_graph and self.follow(0, AVERAGED_KEY) is not None
        return AVERAGED_KEY if has_averages else MODEL_KEY

    def value(self, key: str) -> np.ndarray:
        """Reads the value of a key.

        Raises:
          InputError: it cannot be read.
        """
        try:
            return self._reader.get_tensor(key)
        except _READ_ERRORS as error:
            raise unreadable(self.prefix, error) from error

    def children(self, node: int) -> dict[str, int]:
        """Returns the nodes below a node, by name; numbered layers come last."""
        found = [(c.local_name, c.node_id) for c in self._nodes[node].children]
        return dict(sorted(found, key=lambda child: is_numbered(child[0])))

    def follow(self, node: int, *names: str) -> int | None:
        """Returns the node at the end of a path; None if there is none."""
        for name in names:
            following = self.children(node).get(name)
            if following is None:
                return None
            node = following
        return node

    def key(self, node: int) -> str | None:
        """Returns the key of a node's value; None for a node that is no variable."""
        for attribute in self._nodes[node].attributes:
            if attribute.name == _VALUE:
                return attribute.checkpoint_key
        return None

    def name(self, node: int) -> str:
        """Returns the name that the variable of a node had; "" if it is not kept."""
        for attribute in self._nodes[node].attributes:
            if attribute.name == _VALUE:
                return attribute.full_name
        return ""

    def variables_below(self, root: int) -> dict[int, str]:
        """Returns the paths of the variables below a node, by their nodes."""
        names = {}
        seen = {root}
        queue = deque([("", root)])
        while queue:
            path, node = queue.popleft()
            if self.key(node) is not None:
                names[node] = path
            for name, child in self.children(node).items():
                if child not in seen:
                    seen.add(child)
                    queue.append((f"{path}/{name}" if path else name, child))
        return names
