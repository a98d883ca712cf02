"""Two evaluated runs side by side: scores, paired intervals, configs, curves."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmt.config import diff, load_experiment
from cmt.errors import InputError, few
from cmt.evaluation.bootstrap import LEVEL, RESAMPLES, paired_difference
from cmt.evaluation.curves import plot_comparison
from cmt.evaluation.evaluate import METRICS_FILE, PER_IMAGE_FILE
from cmt.evaluation.per_image import ImageTable, read_images
from cmt.io.files import write_json
from cmt.io.storage import read_json
from cmt.run_files import CONFIG_FILE, EVALUATION_FOLDER
from cmt.run_files import METRICS_FILE as CURVE_FILE

COMPARISON_FILE, CURVES_FILE = "comparison.json", "curves.png"
_GROUPS = ("all", "things", "stuff")


class Run(NamedTuple):
    """A run and the evaluation of it that is compared.

    Attributes:
      given: what the user gave.
      evaluation: the folder of the evaluation.
      folder: of the run; None for an evaluation that lies in none.
      metrics: the content of metrics.json.
      images: the counts of each image.
    """

    given: Path
    evaluation: Path
    folder: Path | None
    metrics: dict[str, Any]
    images: ImageTable


def open_run(path: Path) -> Run:
    """Opens a run, of which the evaluation of the last step counts.

    Args:
      path: a run directory, or the folder of an evaluation.

    Raises:
      InputError: it is neither, or the run has not been evaluated.
    """
    if (path / METRICS_FILE).is_file():
        evaluation = path
        outer = (path, *path.resolve().parents[:2])
        folder = next((f for f in outer if (f / CONFIG_FILE).is_file()), None)
    elif (path / CONFIG_FILE).is_file():
        found = list(path.glob(f"{EVALUATION_FOLDER}/*/{METRICS_FILE}"))
        if not found:
            words = ["cmt", "eval", path / CONFIG_FILE, "--checkpoint", path]
            words += ["--output", path / EVALUATION_FOLDER / "last"]
            line = shlex.join(map(str, words))
            raise InputError(
                f"{path}: the run has no evaluation to compare; make one with `{line}`"
            )
        last = max(found, key=lambda file: (_read_metrics(file)["step"], file.name))
        evaluation, folder = last.parent, path
    else:
        raise InputError(
            f"{path}: neither a run directory of `cmt train` ({CONFIG_FILE}) nor a "
            f"folder of `cmt eval` ({METRICS_FILE})"
        )
    metrics = _read_metrics(evaluation / METRICS_FILE)
    return Run(
        path, evaluation, folder, metrics, read_images(evaluation / PER_IMAGE_FILE)
    )


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        metrics = read_json(path)
        _scores(metrics)
        int(metrics["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not the scores that this version of `cmt eval` writes "
            f"({error!r}); evaluate again"
        ) from error
    return metrics


def compare(a: Run, b: Run) -> dict[str, Any]:
    """Compares two runs that were evaluated on the same images.

    Returns:
      "a" and "b": "path", "evaluation", "config" (its name) and "step"; "images": how
      many; "metrics": by name "a", "b" and "difference" (b - a), in percent, None where
      a run has none, and of PQ "interval", [low, high] of the difference, by paired
      bootstrap over images, with "level" and "resamples"; "config": the fields that
      differ, each {"path", "a", "b"}, None where a config is not known.

    Raises:
      InputError: the images differ, or a config is damaged.
    """
    _check_same_images(a, b)
    scores_a, scores_b = _scores(a.metrics), _scores(b.metrics)
    metrics: dict[str, dict[str, Any]] = {}
    for name, value in scores_a.items():
        other = scores_b[name]
        known = value is not None and other is not None
        difference = other - value if known else None
        metrics[name] = {"a": value, "b": other, "difference": difference}
    for name, interval in _intervals(a.images, b.images).items():
        metrics[name]["interval"] = interval
    return {
        "a": _about(a),
        "b": _about(b),
        "images": len(a.images.images),
        "level": LEVEL,
        "resamples": RESAMPLES,
        "metrics": metrics,
        "config": _config_differences(a, b),
    }


def write_comparison(a: Run, b: Run, comparison: dict[str, Any], output: Path) -> bool:
    """Writes `comparison.json` and, if both runs have curves, `curves.png`.

    Returns:
      Whether there are curves.

    Raises:
      InputError: a curve cannot be read.
    """
    curves = {
        f"{letter}: {run.given.name}": run.folder / CURVE_FILE
        for letter, run in (("A", a), ("B", b))
        if run.folder is not None and (run.folder / CURVE_FILE).is_file()
    }
    if len(curves) == 2:
        plot_comparison(curves, output / CURVES_FILE)
    write_json(output / COMPARISON_FILE, comparison)
    return len(curves) == 2


def _about(run: Run) -> dict[str, Any]:
    paths = {"path": str(run.given), "evaluation": str(run.evaluation)}
    return {**paths, **{key: run.metrics[key] for key in ("config", "step")}}


def _scores(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """The scores that are compared, by the names that tables show."""
    found = metrics["panoptic"]
    scores = {
        f"{key.upper()}, {group}": found[group][key]
        for key in ("pq", "sq", "rq")
        for group in _GROUPS
    }
    ap = found["mask_ap"]
    scores["mask AP"] = None if ap is None else ap["ap"]
    return {**scores, "mIoU": found["semantic"]["miou"]}


def _check_same_images(a: Run, b: Run) -> None:
    for one, other in ((a, b), (b, a)):
        only = [i for i in one.images.images if i not in other.images.images]
        if only:
            raise InputError(
                f"{a.evaluation} and {b.evaluation} are of different images: "
                f"{len(only)} are in {one.evaluation} alone ({few(only)}); evaluate "
                "both on the same split"
            )
    classes = (a.images.is_thing, b.images.is_thing)
    twofold = [
        k for k in classes[0] if classes[1].get(k, classes[0][k]) != classes[0][k]
    ]
    if twofold:
        raise InputError(
            f"{a.evaluation} and {b.evaluation} are of different data sets: category "
            f"{twofold[0]} is a thing in one and stuff in the other; evaluate both on "
            "the same split"
        )


def _intervals(a: ImageTable, b: ImageTable) -> dict[str, list[float]]:
    """Intervals of the differences of PQ, by name."""
    is_thing = {**a.is_thing, **b.is_thing}
    kinds = np.array(list(is_thing.values()), bool)
    images = list(a.images)
    counts = [table.counts(images, list(is_thing))[np.newaxis] for table in (a, b)]
    members = {"all": kinds | True, "things": kinds, "stuff": ~kinds}
    intervals = {}
    for group in _GROUPS:
        of_group = [of_run[:, :, members[group]] for of_run in counts]
        _, low, high = paired_difference(*of_group)
        intervals[f"PQ, {group}"] = [low, high]
    return intervals


def _config_differences(a: Run, b: Run) -> list[dict[str, Any]] | None:
    if a.folder is None or b.folder is None:
        return None
    configs = [load_experiment(run.folder / CONFIG_FILE) for run in (a, b)]
    return [{"path": p, "a": left, "b": right} for p, left, right in diff(*configs)]
