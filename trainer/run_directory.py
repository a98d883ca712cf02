"""The run directory: which config it belongs to, and its metrics.jsonl."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import Message

from cmt import config
from cmt.data.panoptic.categories import (
    Category,
    first_difference,
    read_categories,
    write_categories,
)
from cmt.errors import InputError, few
from cmt.io.files import atomic_write
from cmt.run_files import CATEGORIES_FILE, CONFIG_FILE, METRICS_FILE, WEIGHTS_FILE
from cmt.trainer.schedule import LearningRate
from cmt.weights.load import LoadReport

_FIXED = ("model.", "trainer.optimizer.kind", "trainer.optimizer.average_decay")
_NAMED_AT_MOST = 5
_SAME_RATE = 1e-3  # relative

_logger = logging.getLogger(__name__)


def check_config(
    run_dir: Path, experiment: Message
) -> tuple[Message | None, list[str]]:
    """Compares the config with that of a run directory, if it is one.

    Args:
      run_dir: may not exist yet.
      experiment: the resolved ExperimentConfig to train.

    Returns:
      The config that the run has had so far, None for a new run; and "path: old ->
      new" of what differs and may.

    Raises:
      InputError: it belongs to another network or optimizer, or its config cannot be
        read.
    """
    path = run_dir / CONFIG_FILE
    if run_dir.exists() and not run_dir.is_dir():
        raise InputError(f"{run_dir} is a file; --output must be a folder or be new")
    if not path.exists():
        return None, []
    before = config.load_experiment(path)
    differences = config.diff(before, experiment)
    changes = {p: f"{p}: {old} -> {new}" for p, old, new in differences}
    refused = [text for p, text in changes.items() if p.startswith(_FIXED)]
    if refused:
        raise InputError(
            f"{run_dir} holds a run of another model or optimizer: "
            + few(refused, _NAMED_AT_MOST, separator="; ")
            + "; give another --output, or the config of that run"
        )
    return before, list(changes.values())


def check_categories(run_dir: Path, categories: Sequence[Category]) -> None:
    """Checks that a run continues with the classes it began with.

    Raises:
      InputError: it does not; names the first that differs.
    """
    path = run_dir / CATEGORIES_FILE
    if not path.exists():
        return
    difference = first_difference(read_categories(path), categories)
    if difference:
        number, old, new = difference
        raise InputError(
            f"{run_dir} holds a run on data of other categories: number {number} is "
            f"{old} there and {new} in data.train; give another --output, or that data"
        )


def check_steps(
    run_dir: Path,
    step: int,
    *,
    before: LearningRate,
    now: LearningRate,
    new_schedule: bool,
) -> None:
    """Checks that a run of another length than planned does not change its rate unseen.

    Args:
      run_dir: of the run, for messages.
      step: updates it has made.
      before: its learning rate so far.
      now: the one it is to go on with.
      new_schedule: whether the user wants the other rate.

    Raises:
      InputError: it has made more steps than it is to make; or another number of
        steps changes the rate of the next one, and `new_schedule` is off.
    """
    if step > now.steps:
        raise InputError(
            f"{run_dir} has made {step} steps, and trainer.steps is {now.steps}; "
            f"nothing was changed: set it to at least {step}, or give another --output"
        )
    rates = [float(schedule(step)) for schedule in (before, now)]
    same = math.isclose(*rates, rel_tol=_SAME_RATE)
    if before.steps == now.steps or step == now.steps or same or new_schedule:
        return
    raise InputError(
        f"{run_dir} has made {step} steps with a learning rate of {before.describe()}, "
        f"and is at {rates[0]:.3g}; with trainer.steps={now.steps} it would be "
        f"{now.describe()}, and jump to {rates[1]:.3g}: add --new-schedule to go on "
        "so, or begin another run from these weights (another --output, and "
        f'trainer.initial_checkpoint="{run_dir}")'
    )


def write_head(
    run_dir: Path, experiment: Message, categories: Sequence[Category]
) -> None:
    """Writes the resolved config and the categories, each atomically."""
    with atomic_write(run_dir / CONFIG_FILE, "w") as file:
        file.write(config.to_text(experiment))
    write_categories(run_dir / CATEGORIES_FILE, categories)


def write_weights(run_dir: Path, report: LoadReport) -> None:
    """Writes which of its first weights a run has from a checkpoint, atomically."""
    with atomic_write(run_dir / WEIGHTS_FILE, "w") as file:
        file.write(report.to_json())


def has_evaluation(run_dir: Path, step: int) -> bool:
    """Whether metrics.jsonl has an evaluation of this step."""
    return any(
        _step_of(line) == step and '"validation/' in line
        for line in _metrics_lines(run_dir)
    )


def drop_metrics_after(run_dir: Path, step: int) -> None:
    """Removes lines of metrics.jsonl beyond a step, and a last one cut short."""
    lines = _metrics_lines(run_dir)
    kept = [line for line in lines if _step_of(line) <= step]
    if len(kept) == len(lines):
        return
    path = run_dir / METRICS_FILE
    _logger.info(
        "%s: removed %d lines after step %d", path, len(lines) - len(kept), step
    )
    with atomic_write(path, "w") as file:
        file.writelines(kept)


def _metrics_lines(run_dir: Path) -> list[str]:
    path = run_dir / METRICS_FILE
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8").splitlines(keepends=True)


def _step_of(line: str) -> float:
    """Returns the step of a complete line, infinity for any other."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
