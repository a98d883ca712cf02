"""Measures a trained network; `ablation.py` runs it as a process of its own.

    python tools/ablation_measure.py HEAD RUN OUTPUT [--picture PNG]

HEAD is a json of what is known before ("row", "seed", "rate", "overrides", ...); OUTPUT
gets it with what is measured here. The working directory holds the data.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from ablation_rows import ROWS, row_experiment
from google.protobuf.message import Message
from look_inside import look_inside
from PIL import Image

from cmt import run_files
from cmt.cli.demo_run import draw_clustering
from cmt.data.input.open import Data
from cmt.data.panoptic.masks import read_ids
from cmt.data.panoptic.predictions import MASKS_FOLDER, PREDICTIONS_FILE
from cmt.evaluation.evaluate import PREDICTIONS_FOLDER
from cmt.evaluation.factory import Evaluation, open_evaluation
from cmt.evaluation.overlap import PanopticMap, category_rows
from cmt.evaluation.pairs import PanopticFile
from cmt.evaluation.panoptic_quality import count_image
from cmt.io.files import atomic_write
from cmt.serving.factory import load_predictor
from cmt.zoo.cost import count_multiply_adds, count_parameters

_CURVE_POINTS = 24
_CURVE = ("step", "total", "pq_class", "pq_mask", "mask_id", "semantic")
_CURVE += ("images_per_second", "validation/pq", "validation/pq_things")
_CURVE += ("validation/pq_stuff",)
_PICTURE_SIZE = (900, 1200)  # width and height in pixels, at the most
_PICTURE_COLORS = 128


def count_images(evaluation: Evaluation, folder: pathlib.Path) -> dict[str, list]:
    """Counts each image of an evaluation, after `Evaluation.run` wrote its files.

    Args:
      evaluation: has the ground truth.
      folder: of the evaluation.

    Returns:
      For each image name [class, iou, tp, fp, fn] of the classes that occur, the place
      of the class in the ground truth's list and the sum of IoU to 4 decimals.
    """
    truth = evaluation.ground_truth
    predictions = folder / PREDICTIONS_FOLDER
    predicted = PanopticFile.read(predictions / PREDICTIONS_FILE).images
    rows = category_rows(truth.file.categories)
    found = {}
    for name, image in sorted(truth.images.items()):
        if image.image_id not in predicted:
            continue
        maps = [
            PanopticMap(name, read_ids(f"{masks}/{entry.mask_name}"), entry.segments)
            for masks, entry in (
                (truth.masks, image),
                (predictions / MASKS_FOLDER, predicted[image.image_id]),
            )
        ]
        counts = count_image(*maps, rows)
        found[name] = [
            [int(c), round(float(counts[c, 0]), 4), *map(int, counts[c, 1:])]
            for c in np.flatnonzero(counts[:, 1:].any(axis=1))
        ]
    return found


def read_curve(metrics: pathlib.Path) -> list[dict[str, float]]:
    """Reads the learning curve, thinned; lines with a validation stay, all of them."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    every = max(1, -(-len(lines) // _CURVE_POINTS))
    kept = [
        line
        for number, line in enumerate(lines, start=1)
        if number % every == 0 or number == len(lines) or "validation/pq" in line
    ]
    return [
        {
            key: value if key == "step" or value is None else float(f"{value:.4g}")
            for key, value in line.items()
            if key in _CURVE or key.endswith("/mask_approximation")
        }
        for line in kept
    ]


def experiment_of(head: dict[str, Any]) -> Message:
    """Returns the config of a result."""
    changes = tuple(head["overrides"])
    return row_experiment(ROWS[head["row"]], head["seed"], head["rate"], changes)


def measure(head: dict[str, Any], run: pathlib.Path) -> dict[str, Any]:
    """Evaluates the network of a run and counts what it costs.

    Args:
      head: see above.
      run: the run directory.

    Returns:
      What is to be added to the head.
    """
    experiment = experiment_of(head)
    data = Data(experiment.data)
    predictor, step = load_predictor(experiment, data, run)
    evaluation = open_evaluation(experiment, data.validation, predictor.categories)
    folder = run / run_files.EVALUATION_FOLDER / head["row"]
    metrics = evaluation.run(predictor, folder, step=step)
    size = predictor.crop_size
    return {
        "step": step,
        "pq": {k: metrics["panoptic"][k]["pq"] for k in ("all", "things", "stuff")},
        "parameters": count_parameters(predictor.network).total,
        "multiply_adds": count_multiply_adds(predictor.network, size).total,
        **look_inside(predictor.network, data, experiment.trainer.global_batch_size),
        "curve": read_curve(run / run_files.METRICS_FILE),
        "categories": [[c.id, c.name, c.is_thing] for c in predictor.categories],
        "images": count_images(evaluation, folder),
    }


def draw(head: dict[str, Any], run: pathlib.Path, path: pathlib.Path) -> None:
    """Writes two sheets of held-out scenes, small enough for git.

    Args:
      head: of the result.
      run: the run directory.
      path: the PNG file of the clustering; what centers attend to goes beside it.
    """
    sheets = {"clustering": path, "attention": path.with_stem(path.stem + "_attention")}
    draw_clustering(experiment_of(head), run, **sheets)
    for file in sheets.values():
        with Image.open(file) as sheet:
            sheet.thumbnail(_PICTURE_SIZE)
            sheet.quantize(_PICTURE_COLORS).save(file, optimize=True)


def write_result(path: pathlib.Path, result: dict[str, Any]) -> None:
    """Writes a json with a line for each image and each point of the curve."""

    def lines(name: str, value: Any) -> str:
        inner = json.dumps(value)
        if name == "images":
            entries = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
            inner = "{\n" + ",\n".join(entries) + "\n }"
        elif name == "curve":
            inner = "[\n" + ",\n".join(f"  {json.dumps(v)}" for v in value) + "\n ]"
        return f" {json.dumps(name)}: {inner}"

    text = ",\n".join(lines(name, value) for name, value in result.items())
    with atomic_write(path, "w") as file:
        file.write(f"{{\n{text}\n}}\n")


def main() -> None:
    """Measures and draws, then writes the result, which stands for all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("head", type=pathlib.Path)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--picture", type=pathlib.Path)
    arguments = parser.parse_args()
    head = json.loads(arguments.head.read_text())
    result = head | measure(head, arguments.run)
    if arguments.picture:
        draw(head, arguments.run, arguments.picture)
    write_result(arguments.output, result)


if __name__ == "__main__":
    main()
