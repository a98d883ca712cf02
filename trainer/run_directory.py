"""The run directory: which config it belongs to, and its metrics.jsonl."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from google.protobuf.message import Message

from cmt import config
from cmt.data.panoptic.categories import (
    Category,
    read_categories,
    write_categories,
)
from cmt.errors import InputError, few
from cmt.io.files import atomic_write
from cmt.run_files import CATEGORIES_FILE, CONFIG_FILE, METRICS_FILE, WEIGHTS_FILE
from cmt.weights.load import LoadReport

_FIXED = ("model.", "trainer.optimizer.kind")
_NAMED_AT_MOST = 5

_logger = logging.getLogger(__name__)


def check_config(run_dir: Path, experiment: Message) -> list[str]:
    """Compares the config with that of a run directory, if it is one.

    Args:
      run_dir: may not exist yet.
      experiment: the resolved ExperimentConfig to train.

    Returns:
      "path: old -> new" of what differs and may; empty for a new run.

    Raises:
      InputError: it belongs to another network or optimizer, or its config cannot be
        read.
    """
    path = run_dir / CONFIG_FILE
    if run_dir.exists() and not run_dir.is_dir():
        raise InputError(f"{run_dir} is a file; --output must be a folder or be new")
    if not path.exists():
        return []
    differences = config.diff(config.load_experiment(path), experiment)
    changes = {p: f"{p}: {old} -> {new}" for p, old, new in differences}
    refused = [text for p, text in changes.items() if p.startswith(_FIXED)]
    if refused:
        raise InputError(
            f"{run_dir} holds a run of another model or optimizer: "
            + few(refused, _NAMED_AT_MOST, separator="; ")
            + "; give another --output, or the config of that run"
        )
    return list(changes.values())


def check_categories(run_dir: Path, categories: Sequence[Category]) -> None:
    """Checks that a run continues with the classes it began with.

    Raises:
      InputError: it does not; names the first that differs.
    """
    path = run_dir / CATEGORIES_FILE
    if not path.exists():
        return
    for index, (old, new) in enumerate(
        zip_longest(read_categories(path), categories), start=1
    ):
        if old is None or new is None or (old.id, old.name) != (new.id, new.name):
            raise InputError(
                f"{run_dir} holds a run on data of other categories: number {index} is "
                f"{_of(old)} there and {_of(new)} in data.train; give another "
                "--output, or that data"
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


def drop_metrics_after(run_dir: Path, step: int) -> None:
    """Removes lines of metrics.jsonl beyond a step, and a last one cut short."""
    path = run_dir / METRICS_FILE
    if not path.exists():
        return
    kept, dropped = [], 0
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if _step_of(line) <= step:
            kept.append(line)
        else:
            dropped += 1
    if dropped:
        _logger.info("%s: removed %d lines after step %d", path, dropped, step)
        with atomic_write(path, "w") as file:
            file.writelines(kept)


def _of(category: Category | None) -> str:
    return "none" if category is None else f"'{category.name}' (id {category.id})"


def _step_of(line: str) -> float:
    """Returns the step of a complete line, infinity for any other."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
