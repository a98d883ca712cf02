"""Reads training checkpoints: of which network, at which step.

Names are compared along the object graph of the checkpoint, before anything is
restored, so that a checkpoint of another network is refused and not half loaded.
`cmt/weights/load.py` loads what fits of any checkpoint; here all has to fit.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from cmt.errors import InputError
from cmt.weights.files import (
    MODEL_KEY,
    STEP_KEY,
    Contents,
    few,
    find_checkpoint,
    is_numbered,
    unreadable,
)


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


def read_step(prefix: str) -> int:
    """Returns the training step of a checkpoint.

    Raises:
      InputError: it cannot be read or was not written by `cmt train`.
    """
    contents = Contents(prefix)
    return int(contents.value(contents.key(_part(contents, STEP_KEY))))


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
        f"{len(names)} {what} ({few(names)})"
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
    contents = Contents(prefix)
    root = _part(contents, MODEL_KEY)
    missing, wrong_shape = [], []
    visited: set[int] = set()
    seen = {id(network)}
    queue = deque([("", network, root)])
    while queue:
        path, item, node = queue.popleft()
        if node is not None:
            visited.add(node)
        if isinstance(item, tf.Variable):
            key = None if node is None else contents.key(node)
            if key is None:
                missing.append(path)
            elif contents.shapes[key] != item.shape.as_list():
                shapes = f"{contents.shapes[key]} in it, {item.shape.as_list()}"
                wrong_shape.append(f"{path}: {shapes}")
            continue
        # Attributes first: Keras also numbers layers, which names nothing.
        children = tf.train.TrackableView.children(item).items()
        for name, child in sorted(children, key=lambda c: is_numbered(c[0])):
            if id(child) not in seen:
                seen.add(id(child))
                where = f"{path}/{name}" if path else name
                below = None if node is None else contents.follow(node, name)
                queue.append((where, child, below))
    stored = contents.variables_below(root)
    unexpected = [path for node, path in stored.items() if node not in visited]
    return Differences(missing, unexpected, wrong_shape)


def _part(contents: Contents, name: str) -> int:
    """Returns the node of a part of a training checkpoint."""
    if not contents.has_graph:
        raise InputError(
            f"checkpoint {contents.prefix} was not written by `cmt train` (it has no "
            "object graph); give one of a run directory"
        )
    node = contents.follow(0, name)
    if node is None:
        raise InputError(
            f"checkpoint {contents.prefix} was not written by `cmt train`: it has no "
            f"{name!r} but {few(list(contents.children(0)))}; give one of a run "
            "directory"
        )
    return node
