"""Reads the raw results of the ablation; what does not fit the configs is left out."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ablation_rows as rows
import numpy as np
from ablation_rows import ROWS, SMALL, Row, Scale

from cmt.errors import InputError

TIMES_FILE = "step_times.json"


class Results(NamedTuple):
    """What the document is made from.

    Attributes:
      by_row: the results of each row that has any, by seed.
      searched: the results of each searched row, by rate, of the first seed.
      seconds: time of a step of each row where it was measured.
      times: what was noted with these times.
      left_out: why, by the names of files.
      scale: of the trainings.
    """

    by_row: dict[str, dict[int, dict[str, Any]]]
    searched: dict[str, dict[float, dict[str, Any]]]
    seconds: dict[str, float]
    times: dict[str, dict[str, Any]]
    left_out: dict[str, str]
    scale: Scale

    def counts(self, name: str, seeds: Sequence[int]) -> np.ndarray:
        """Counts [S, I, C, 4] of a row: IoU, TP, FP, FN by seed, image and class."""
        return np.stack([counts_of(self.by_row[name][seed]) for seed in seeds])

    def present(self) -> list[tuple[str, dict[int, dict[str, Any]]]]:
        """The rows that have results, in the order of ROWS, each with them by seed."""
        return [(name, self.by_row[name]) for name in ROWS if name in self.by_row]

    def all(self) -> list[dict[str, Any]]:
        """Every result that is used, once."""
        groups = (*self.by_row.values(), *self.searched.values())
        found = {id(r): r for group in groups for r in group.values()}
        return list(found.values())


def counts_of(result: Mapping[str, Any]) -> np.ndarray:
    """The counts [I, C, 4] of a result; images in the order of their names."""
    counts = np.zeros([len(result["images"]), len(result["categories"]), 4])
    for image, name in enumerate(sorted(result["images"])):
        for category, *values in result["images"][name]:
            counts[image, category] = values
    return counts


def mean_and_spread(values: np.ndarray) -> tuple[float, float | None]:
    """Mean, and standard deviation (n - 1); None in place of that of one value."""
    values = np.asarray(values, np.float64)
    return values.mean(), values.std(ddof=1) if values.size > 1 else None


def why_stale(
    result: Mapping[str, Any],
    settings: Mapping[str, Any],
    data: Mapping[str, Any] | None = None,
) -> str:
    """Says in what a result differs from what is wanted; empty if it does not.

    Args:
      result: from its file.
      settings: those wanted, from `ablation_rows.settings_of`.
      data: those wanted, as `ablation.py` describes them; None if that is not asked.
    """
    old = result["settings"]
    reasons = [
        f"{path} was {old.get(path, 'the default')},"
        f" is {settings.get(path, 'the default')}"
        for path in sorted({*old, *settings})
        if old.get(path) != settings.get(path)
    ]
    if data is not None and result["data"] != data:
        reasons.append(f"its scenes were {result['data']}")
    return "; ".join(reasons)


def settings_of(
    row: Row, seed: int, rate: float, overrides: Sequence[str]
) -> dict[str, Any]:
    """The settings of a result, as they are in the checkout."""
    experiment = rows.row_experiment(row, seed, rate, tuple(overrides))
    return rows.settings_of(experiment)


def read(
    folder: pathlib.Path, scale: Scale = SMALL, changes: Sequence[str] = ()
) -> Results:
    """Reads the results of a folder.

    Args:
      folder: may be missing or empty.
      scale: of the trainings.
      changes: "path=value" that the results were made with, besides.

    Raises:
      InputError: results that fit the configs were made with different scenes.
    """
    found = Results({}, {}, {}, {}, {}, scale)
    overrides = [*scale.overrides, *changes]
    for path in sorted(folder.glob("*-seed*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        row, seed, rate = ROWS.get(result["row"]), result["seed"], result["rate"]
        if row is None:
            found.left_out[path.name] = "there is no such row any more"
            continue
        reason = why_stale(result, settings_of(row, seed, rate, overrides))
        if reason:
            found.left_out[path.name] = reason
            continue
        if rate == rows.chosen_rate(row, scale):
            found.by_row.setdefault(row.name, {})[seed] = result
        if row.name in rows.SEARCHED and seed == rows.SEEDS[0]:
            found.searched.setdefault(row.name, {})[rate] = result
    scenes = {json.dumps(r["data"], sort_keys=True): r for r in found.all()}
    if len(scenes) > 1:
        raise InputError(
            f"{folder}: results of different scenes cannot be compared: "
            + " and ".join(scenes)
            + "; remove those of one, or run them again with --redo-stale"
        )
    _add_times(found, folder / TIMES_FILE, overrides)
    return found


def _add_times(found: Results, path: pathlib.Path, overrides: Sequence[str]) -> None:
    times = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, entry in times.items():
        row = ROWS.get(name)
        if row is None:
            continue
        rate = rows.chosen_rate(row, found.scale)
        wanted = settings_of(row, rows.SEEDS[0], rate, overrides)
        if entry["digest"] != rows.digest(wanted):
            found.left_out[f"{path.name}: {name}"] = "measured with another config"
            continue
        found.times[name] = entry
        found.seconds[name] = entry["seconds"]
