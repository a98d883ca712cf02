"""Weights of a network from a checkpoint: all of them, or what fits.

`load_weights` takes a training checkpoint of the same network, of which everything
must fit, or one of DeepLab2 that has all that predictions need.
`load_initial_checkpoint` loads what fits, from checkpoints of this package by the names
of variables that they keep, from those of DeepLab2 by `names.py`, and reports it. A
variable of another shape is never loaded.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras

from cmt.errors import InputError, few
from cmt.io.storage import plain_path
from cmt.weights.files import (
    MODEL_KEY,
    STEP_KEY,
    Contents,
    find_checkpoint,
    unreadable,
)
from cmt.weights.matching import (
    PASSES,
    Plan,
    Target,
    list_targets,
    make_plan,
    pair_variables,
)
from cmt.weights.names import SUFFIX, deeplab2_prefix, is_deeplab2_layout
from cmt.weights.report import LoadReport, percent

MIN_BACKBONE_SHARE = 0.9
_TABLES = ("query_positions", "key_positions", "value_positions")
_HEADS = ("head/class_head/", "semantic_branch/head/last/")
# Of the branch that supervises training only, ours and DeepLab2's.
_TRAINING_ONLY = re.compile(
    r"(^|/)semantic_(branch|decoder|head_without_last_layer|last_layer)/"
)
_DEEPLAB2_STEP = f"global_step{SUFFIX}"
# Of its networks of this layout; a checkpoint does not tell.
_DEEPLAB2_ACTIVATION = "relu"

_logger = logging.getLogger(__name__)


def load_weights(network: tf_keras.Model, prefix: str) -> int:
    """Loads all variables of a network from a training checkpoint or one of DeepLab2.

    Of DeepLab2's, what only supervises training may be missing; of a run that averages
    its weights, the averages are loaded.

    Args:
      network: is built.
      prefix: of the checkpoint, from `find_checkpoint`.

    Returns:
      The training step of the checkpoint.

    Raises:
      InputError: the checkpoint cannot be read, or it is one of another network; the
        network is unchanged then.
    """
    contents = Contents(prefix)
    if deeplab2_prefix(contents.shapes) is not None:
        return _load_deeplab2(network, contents)
    key = contents.network_key
    step = _check_same(network, contents, key)
    try:
        # The optimizers' state is in the checkpoint and not wanted here.
        status = tf.train.Checkpoint(**{key: network}).restore(plain_path(prefix))
        status.expect_partial()
    except tf.errors.OpError as error:
        raise unreadable(prefix, error) from error
    return step


def check_network(network: tf_keras.Model, prefix: str) -> int:
    """Checks that a training checkpoint holds exactly the variables of a network.

    Variables are compared along the object graph, before anything is restored, so
    that a checkpoint of another network is refused and not half loaded.

    Args:
      network: is built.
      prefix: of the checkpoint.

    Returns:
      The training step of the checkpoint.

    Raises:
      InputError: the checkpoint cannot be read, was not written by `cmt train`, or
        holds other variables; the message names a few that differ.
    """
    return _check_same(network, Contents(prefix), MODEL_KEY)


def _check_same(network: tf_keras.Model, contents: Contents, key: str) -> int:
    """Does the work of `check_network` for the network below a key."""
    root = _training_node(contents, key)
    missing, wrong_shape = [], []
    pairs = pair_variables(network, root, contents, strict=True)
    for pair in pairs:
        shape = pair.variable.shape.as_list()
        if pair.key is None:
            missing.append(pair.path)
        elif contents.shapes[pair.key] != shape:
            text = f"{pair.path}: {contents.shapes[pair.key]} in it, {shape}"
            wrong_shape.append(text)
    used = {pair.node for pair in pairs}
    stored = contents.variables_below(root)
    unexpected = [path for node, path in stored.items() if node not in used]
    _refuse_other_model(contents, missing, unexpected, wrong_shape)
    return int(contents.value(contents.key(_training_node(contents, STEP_KEY))))


def _refuse_other_model(
    contents: Contents,
    missing: list[str],
    unexpected: list[str],
    wrong_shape: list[str],
    config: str = "it was trained with (config.textproto in its run directory)",
) -> None:
    """Raises an InputError if a variable does not fit; names a few of each kind."""
    parts = [
        f"{len(names)} {what} ({few(names)})"
        for what, names in (
            ("missing in it", missing),
            ("not in the model", unexpected),
            ("of another shape", wrong_shape),
        )
        if names
    ]
    if parts:
        raise InputError(
            f"checkpoint {contents.prefix} is of another model; variables: "
            f"{'; '.join(parts)}; use the config {config}"
        )


def _load_deeplab2(network: tf_keras.Model, contents: Contents) -> int:
    """Loads a whole network of DeepLab2; returns the training step."""
    targets = list_targets(network)
    plan = make_plan(network, contents, targets)
    report, loads = _decide(network, contents, targets, plan)
    wrong_shape = report.wrong_shape + report.skipped_heads + report.resized_tables
    needed = (
        [name for name in names if not _TRAINING_ONLY.search(name)]
        for names in (report.missing, report.unexpected, wrong_shape)
    )
    config = "of the same network, such as coco/max_deeplab_s_relu_641"
    _refuse_other_model(contents, *needed, config=config)
    _assign(contents, loads)
    if report.activation:
        _logger.warning("%s: %s", contents.prefix, report.activation)
    known = _DEEPLAB2_STEP in contents.shapes
    return int(contents.value(_DEEPLAB2_STEP)) if known else 0


def _training_node(contents: Contents, name: str) -> int:
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


def load_initial_checkpoint(
    network: tf_keras.Model,
    path: str | Path,
    *,
    allow_partial_backbone: bool = False,
) -> LoadReport:
    """Loads what fits of a checkpoint, in the scope of the network's strategy.

    Call it before optimizers are built: some keep copies of the first weights.

    A relative-position table of another length keeps its middle, or repeats its
    outermost rows as the attention does for offsets beyond the table, so that offsets
    which both tables have mean the same.

    Args:
      network: built, by `build` or by a call. A recursive one takes a checkpoint of a
        plain one twice.
      path: a prefix, a folder of checkpoints or a run directory; of this package
        (training or `save_weights`) or of DeepLab2 (MaX-DeepLab-S or its backbone).
      allow_partial_backbone: go on where fewer than 90% of the backbone's parameters
        would be loaded.

    Returns:
      What was loaded and what was not.

    Raises:
      InputError: the network is not built, there is no checkpoint, it cannot be read,
        it is of no known network, or it holds too little of the backbone; the network
        is unchanged then.
    """
    if not network.built:
        raise InputError(
            f"the network {network.name} is not built: it has no weights yet to load "
            "into; call model.build((None, height, width, 3)) first"
        )
    contents = Contents(find_checkpoint(path))
    targets = list_targets(network)
    plan = make_plan(network, contents, targets)
    report, loads = _decide(network, contents, targets, plan)
    _check(report, _backbone(network, targets), allow_partial_backbone)
    _assign(contents, loads)
    return report


def _assign(contents: Contents, loads: list[tuple[Target, str]]) -> None:
    """Loads values, if all of them are finite.

    Raises:
      InputError: one is not, or cannot be read; nothing is assigned then.
    """
    # Twice, one at a time: a damaged file is found before anything is assigned.
    for _, key in loads:
        if not np.isfinite(contents.value(key).astype(np.float32)).all():
            raise InputError(
                f"checkpoint {contents.prefix} holds values that are not finite, in "
                f"{key}; use an earlier one"
            )
    for target, key in loads:
        target.variable.assign(_fitted(contents.value(key), target))


def _decide(
    network: tf_keras.Model, contents: Contents, targets: list[Target], plan: Plan
) -> tuple[LoadReport, list[tuple[Target, str]]]:
    """Chooses the variables to load, with their keys, and writes the report."""
    other_classes = _heads_of_other_classes(contents, targets, plan)
    loads, missing, wrong_shape, skipped, resized = [], [], [], [], []
    for target in targets:
        key = plan.keys.get(id(target.variable))
        if key is None:
            missing.append(target.name)
            continue
        stored = list(contents.shapes[key])
        text = f"{target.name}: {stored}, {target.shape}"
        if _head(target) in other_classes:
            skipped.append(text)
            continue
        if _is_other_table(stored, target):
            resized.append(text)
        elif not (
            contents.dtypes[key].is_floating
            and (stored == target.shape or _fits_deeplab2(stored, target, plan))
        ):
            wrong_shape.append(text)
            continue
        loads.append((target, key))
    loaded = {id(target.variable) for target, _ in loads}
    report = LoadReport(
        checkpoint=contents.prefix,
        kind=plan.kind,
        matched={target.name: key.removesuffix(SUFFIX) for target, key in loads},
        missing=missing,
        unexpected=plan.unexpected,
        wrong_shape=wrong_shape,
        skipped_heads=skipped,
        resized_tables=resized,
        share=_share(targets, loaded),
        backbone_share=_share(_backbone(network, targets), loaded),
        activation=_other_activation(network, plan),
    )
    return report, loads


def _other_activation(network: tf_keras.Model, plan: Plan) -> str:
    """Names both activations where they are known to differ, else returns ""."""
    if plan.kind != "DeepLab2":
        return ""
    backbone = getattr(network, PASSES[0], network).backbone
    ours = backbone.stem[0].style.activation
    if ours == _DEEPLAB2_ACTIVATION:
        return ""
    return (
        f"DeepLab2 trains these networks with {_DEEPLAB2_ACTIVATION.upper()}, and this "
        f"one has {ours.upper()}; set model.activation={_DEEPLAB2_ACTIVATION.upper()}"
    )


def _head(target: Target) -> str | None:
    """Returns the last layer, with its pass, that a variable belongs to, or None."""
    if not target.local.startswith(_HEADS):
        return None
    return target.name.rpartition("/")[0]


def _heads_of_other_classes(contents, targets, plan) -> set[str]:
    """Returns the last layers that have another number of outputs in the checkpoint."""
    found = set()
    for target in targets:
        key, head = plan.keys.get(id(target.variable)), _head(target)
        if key and head and contents.shapes[key][-1:] != target.shape[-1:]:
            found.add(head)
    return found


def _is_other_table(stored: list[int], target: Target) -> bool:
    return (
        target.local.endswith(_TABLES)
        and len(stored) == 2
        and stored[0] % 2 == 1
        and stored[0] != target.shape[0]
        and stored[1] == target.shape[1]
    )


def _fits_deeplab2(stored: list[int], target: Target, plan: Plan) -> bool:
    return plan.kind == "DeepLab2" and is_deeplab2_layout(
        target.local, stored, target.shape
    )


def _backbone(network: tf_keras.Model, targets: list[Target]) -> list[Target]:
    """Returns the backbone's variables and the moving statistics of its norms."""
    ids = {id(variable) for variable in network.backbone_variables}
    found = [target for target in targets if id(target.variable) in ids]
    norms = {t.name.rpartition("/")[0] for t in found if t.name.endswith("/gamma")}
    moving = ("/moving_mean", "/moving_variance")
    return found + [
        target
        for target in targets
        if target.name.endswith(moving) and target.name.rpartition("/")[0] in norms
    ]


def _share(targets: list[Target], loaded: set[int]) -> float:
    sizes = {id(t.variable): t.variable.shape.num_elements() for t in targets}
    total = sum(sizes.values())
    return sum(sizes[i] for i in sizes if i in loaded) / total if total else 0.0


def _check(
    report: LoadReport, backbone: list[Target], allow_partial_backbone: bool
) -> None:
    """Checks that enough was matched to start training from.

    Raises:
      InputError: nothing fits, or too little of the backbone.
    """
    if not report.matched:
        raise InputError(
            f"checkpoint {report.checkpoint} ({report.kind}) holds nothing that fits "
            f"this network: {_not_loaded(report)}; give one of this architecture"
        )
    if report.backbone_share < MIN_BACKBONE_SHARE and not allow_partial_backbone:
        raise InputError(
            f"checkpoint {report.checkpoint} ({report.kind}) holds "
            f"{percent(report.backbone_share)} of the backbone's parameters, and "
            f"{percent(MIN_BACKBONE_SHARE)} are needed; of its variables "
            f"{_not_loaded(report, {target.name for target in backbone})}; give one "
            "of this backbone, or go on all the same with "
            "trainer.allow_partial_backbone=true in the config, "
            "allow_partial_backbone=True in Python"
        )


def _not_loaded(report: LoadReport, among: set[str] | None = None) -> str:
    """Names a few variables for each reason; only variables in `among` if given."""
    parts = []
    for what, names in (
        ("missing in it", report.missing),
        ("of another shape in it", report.wrong_shape),
    ):
        chosen = [n for n in names if among is None or n.split(":")[0] in among]
        if chosen:
            parts.append(f"{len(chosen)} are {what} ({few(chosen)})")
    return "; ".join(parts)


def _fitted(value: np.ndarray, target: Target) -> np.ndarray:
    """Returns a value in the layout and the type of a variable."""
    if _is_other_table(list(value.shape), target):
        more = (target.shape[0] - value.shape[0]) // 2
        if more > 0:
            value = np.pad(value, [(more, more), (0, 0)], mode="edge")
        else:
            value = value[-more : value.shape[0] + more]
    value = value.reshape(target.shape)
    return value.astype(target.variable.dtype.as_numpy_dtype)
