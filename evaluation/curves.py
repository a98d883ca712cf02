"""The learning curve of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

from cmt.errors import InputError
from cmt.io.files import atomic_write

_TOTAL = "total"
_VALIDATION = "validation/"
_NOT_LOSSES = ("step", "learning_rate", "images_per_second", "gradient_norm")


def plot_learning_curve(metrics: Path | str, output: Path | str) -> None:
    """Plots the losses and the learning rate of a run against its steps.

    Losses of single layers ("layer1/...") are left out: they follow the others.

    Args:
      metrics: the run's `metrics.jsonl`; a line holds "step" and numbers.
      output: the PNG file to write.

    Raises:
      InputError: the file is missing, damaged, or holds no step.
    """
    lines = _read(Path(metrics))
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.subplots()
    for index, name in enumerate(_losses(lines)):
        steps, values = _series(lines, name)
        if name == _TOTAL:
            style = dict(color="black", linewidth=2)
        elif name == _VALIDATION + _TOTAL:
            style = dict(color="black", linewidth=1.5, linestyle="--", marker="o")
        else:
            style = dict(color=colormaps["tab10"](index % 10), linewidth=1)
        axes.plot(steps, values, label=name, **style)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    steps, rates = _series(lines, "learning_rate")
    if steps:
        right = axes.twinx()
        right.plot(steps, rates, color="gray", linestyle=":", label="learning rate")
        right.set_ylabel("learning rate (dotted)")
        right.set_ylim(bottom=0)
    figure.legend(loc="outside right upper", fontsize=9)
    with atomic_write(output) as file:
        figure.savefig(file, format="png", dpi=120)


def plot_comparison(metrics: Mapping[str, Path | str], output: Path | str) -> None:
    """Plots the losses and the validation PQ of runs beside each other.

    Args:
      metrics: the `metrics.jsonl` of each run, by what it is called in the picture.
      output: the PNG file to write.

    Raises:
      InputError: a file is missing, damaged, or holds no step.
    """
    runs = {name: _read(Path(path)) for name, path in metrics.items()}
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, (name, lines) in enumerate(runs.items()):
        color = colormaps["tab10"](index)
        for axes, series, style, label in (
            (left, _TOTAL, "-", name),
            (left, _VALIDATION + _TOTAL, "--", f"{name}, validation"),
            (right, _VALIDATION + "pq", "-", name),
        ):
            steps, values = _series(lines, series)
            if steps:
                marker = "" if series == _TOTAL else "o"
                axes.plot(
                    steps,
                    values,
                    color=color,
                    linestyle=style,
                    marker=marker,
                    label=label,
                )
    left.set_yscale("log")
    for axes, title in ((left, "total loss"), (right, "PQ on the validation split")):
        axes.set_xlabel("step")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=9)
    with atomic_write(output) as file:
        figure.savefig(file, format="png", dpi=120)


def _losses(lines: list[dict[str, float]]) -> list[str]:
    """Names the losses: the total, the terms, then the total on validation images."""
    names = {name for line in lines for name in line}
    terms = sorted(
        name for name in names if "/" not in name and name not in (*_NOT_LOSSES, _TOTAL)
    )
    ordered = [_TOTAL, *terms, _VALIDATION + _TOTAL]
    return [name for name in ordered if name in names]


def _series(lines: list[dict[str, float]], name: str) -> tuple[list, list]:
    # A number that was not finite is null in the file.
    points = [(x["step"], x[name]) for x in lines if x.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _read(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; a training run writes it")
    try:
        text = path.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines() if line]
        lines = [line for line in lines if "step" in line]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a metrics.jsonl of a run: {error}") from error
    if not lines:
        raise InputError(f"{path}: holds no step, so there is nothing to plot")
    return lines
