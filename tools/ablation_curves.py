"""Learning curves of the ablation: means over the seeds."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from ablation_results import Results
from ablation_rows import ROWS
from matplotlib.figure import Figure

from cmt.io.files import atomic_write


def curve(by_seed: dict[int, dict[str, Any]], key: str) -> dict[int, float]:
    """The mean over the seeds of a number in the curves, by step, where all have it."""
    curves = [
        {
            point["step"]: point[key]
            for point in r["curve"]
            if point.get(key) is not None
        }
        for r in by_seed.values()
    ]
    common = sorted(set.intersection(*map(set, curves)))
    return {step: float(np.mean([c[step] for c in curves])) for step in common}


def plot_curves(results: Results, path: pathlib.Path) -> None:
    """Plots PQ on the held-out scenes against the steps, a line for each row."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name, by_seed in results.present():
        points = curve(by_seed, "validation/pq")
        if points and not ROWS[name].weights:
            axes.plot(list(points), list(points.values()), marker=".", label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("PQ on held-out scenes")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=9)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=100)
