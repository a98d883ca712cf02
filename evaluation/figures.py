"""The figures of a report: drawn by matplotlib, as SVG.

Letters stay text, which the browser draws, so that all names can be read.
"""

from __future__ import annotations

import io
import math
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmt.pictures.overlay import Color

# A figure of that width fits on a telephone.
_WIDTH_INCHES = 3.8
_LETTER_INCHES = 0.1  # as wide as one may be in the size of labels
_MOST_LETTERS = 22
_LABEL_POINTS = 8
_BAR = "#4878a8"


def draw_classes(scores: Mapping[str, Any], colors: Mapping[str, Color]) -> str:
    """Draws PQ of each class as a bar, with its interval where there is one.

    Args:
      scores: from `Measurement.result`.
      colors: of the classes, by category id.
    """
    classes = scores["per_class"]
    intervals = (scores["intervals"] or {}).get("per_class", {})
    names = [row["name"] for row in classes.values()]
    left = _label_inches(names)
    figure, axes = _figure(0.55 + 0.2 * len(names), left, bottom=0.45)
    places = np.arange(len(names))
    values = [row["pq"] for row in classes.values()]
    fill = [np.array(colors[number]) / 255 for number in classes]
    axes.barh(places, values, height=0.75, color=fill, edgecolor="#555", linewidth=0.5)
    for place, number in enumerate(classes):
        if number in intervals:
            axes.plot(intervals[number], [place, place], color="#222", linewidth=1.2)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(places)
    _set_labels(axes.set_yticklabels, names)
    axes.set_xlim(0, 100)
    axes.set_xlabel("PQ", fontsize=_LABEL_POINTS)
    axes.grid(axis="x", alpha=0.3)
    return _svg(figure)


def draw_groups(rows: Sequence[Mapping[str, Any]], of_what: str, unit: str) -> str:
    """Draws PQ of `quality_by_size` or `quality_by_things`.

    Args:
      rows: what one of them returned.
      of_what: "segments" or "images", of which each group has a number.
      unit: what the groups are of, for the axis.
    """
    figure, axes = _figure(2.4, 0.55, bottom=0.65)
    places = np.arange(len(rows))
    bars = axes.bar(places, [row["pq"] for row in rows], width=0.75, color=_BAR)
    labels = [f"{row['pq']:.0f}" for row in rows]
    axes.bar_label(bars, labels, fontsize=_LABEL_POINTS)
    axes.set_xticks(places)
    axes.set_xticklabels([f"{_range(row, unit)}\n({row[of_what]})" for row in rows])
    axes.set_ylim(0, 108)
    axes.set_ylabel("PQ", fontsize=_LABEL_POINTS)
    axes.set_xlabel(f"{unit} (number of {of_what})", fontsize=_LABEL_POINTS)
    axes.grid(axis="y", alpha=0.3)
    return _svg(figure)


def draw_confusion(confusion: np.ndarray, names: Sequence[str]) -> str:
    """Draws where the pixels of each class go, as shares of its row.

    Args:
      confusion: [K, K] pixels by class in ground truth and prediction.
      names: of the K classes.
    """
    total = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, total, out=np.zeros_like(confusion), where=total > 0)
    few = len(names) <= 20
    # With ten classes it fits a narrow phone.
    cell, labels = (0.24 if few else 0.17), _label_inches(names)
    side = cell * len(names)
    figure = Figure(figsize=(labels + side + 0.1, labels + side + 0.1))
    width, height = figure.get_size_inches()
    axes = figure.add_axes(
        (labels / width, 0.1 / height, side / width, side / height),
    )
    # The square root, or small shares are not seen.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if few:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                color = "white" if share > 0.35 else "black"
                text = f"{100 * share:.0f}"
                style = dict(ha="center", va="center", color=color, fontsize=7)
                axes.text(column, row, text, **style)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    places = np.arange(len(names))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(places)
    _set_labels(axes.set_xticklabels, names, rotation=90)
    _set_labels(axes.set_yticklabels, names)
    axes.set_ylabel("ground truth", fontsize=_LABEL_POINTS)
    axes.set_xlabel("prediction", fontsize=_LABEL_POINTS)
    return _svg(figure)


def _range(row: Mapping[str, Any], unit: str) -> str:
    """4-6, or 16+; sides of squares are real numbers, counts are not."""
    low, high = row["from"], row["to"]
    if high is None:
        return f"{low}+"
    last = high - 1 if unit.startswith("things") else high
    return f"{low}" if low == last else f"{low}-{last}"


def _label_inches(names: Sequence[str]) -> float:
    """How much room the longest name needs; Chinese letters are twice as wide."""
    widths = [
        sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in _short(name)) / 1.4
        for name in names
    ]
    return 0.35 + _LETTER_INCHES * math.ceil(max(widths, default=0))


def _short(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else name[: _MOST_LETTERS - 1] + "…"


def _set_labels(set_them: Any, names: Sequence[str], **style: Any) -> None:
    """Writes names of users, in which $ is no formula."""
    short = [_short(name) for name in names]
    set_them(short, fontsize=_LABEL_POINTS, parse_math=False, **style)


def _figure(height: float, left: float, *, bottom: float) -> tuple[Figure, Axes]:
    """A figure with one plot, margins in inches."""
    figure = Figure(figsize=(_WIDTH_INCHES, height))
    right, top = 0.12, 0.1
    box = left, bottom, _WIDTH_INCHES - left - right, height - bottom - top
    axes = figure.add_axes(tuple(np.array(box) / ([_WIDTH_INCHES, height] * 2)))
    axes.tick_params(labelsize=_LABEL_POINTS)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    # The same figure is the same text, at any time.
    style = {"svg.fonttype": "none", "svg.hashsalt": "cmt"}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # Letters that matplotlib's font lacks; the browser has others.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
