"""Panoptic quality of a network on a data set, through COCO panoptic files."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from cmt.data.input.pipeline import EvaluationBatch
from cmt.data.panoptic.json import load_json, read_annotations
from cmt.data.panoptic.predictions import PredictionWriter
from cmt.errors import InputError
from cmt.evaluation.panoptic_quality import score_files
from cmt.io.files import atomic_write
from cmt.io.progress import track
from cmt.io.storage import Location, split
from cmt.serving.predictor import PanopticPredictor

PREDICTIONS_FOLDER = "predictions"
METRICS_FILE = "metrics.json"

ImageId = int | str


class GroundTruth(NamedTuple):
    """What predictions are scored against.

    Attributes:
      annotations: a COCO panoptic json, local or what `tf.io.gfile` reads.
      masks: the folder of its PNGs, likewise.
    """

    annotations: Location
    masks: Location


def evaluate(
    predictor: PanopticPredictor,
    batches: Iterable[EvaluationBatch],
    ground_truth: GroundTruth,
    output: Path | str,
    *,
    step: int,
    config_name: str,
    num_images: int | None = None,
    pattern: str = "the TFRecords",
) -> dict[str, Any]:
    """Predicts all images, writes the predictions and scores the files.

    Below `output`: `predictions/panoptic.json`, `predictions/panoptic/*.png` and
    `metrics.json`, each replaced as a whole if it was there.

    Args:
      predictor: network and categories.
      batches: images as the evaluation pipeline gives them.
      ground_truth: of these images; others in it are not counted.
      output: the folder.
      step: training step of the weights, for metrics.json.
      config_name: name of the config, for metrics.json.
      num_images: how many there will be, for the progress bar.
      pattern: of the files the batches are read from, for messages.

    Returns:
      The content of metrics.json: "config", "step", "num_images",
      "images_per_second" (predicting and writing) and "panoptic", see `score_files`.

    Raises:
      InputError: the ground truth is missing or damaged, or lacks an image; a record
        is damaged; or there is no image.
    """
    output = Path(output)
    known = image_ids(ground_truth.annotations)
    # The first call builds the graph, which is not what the rate is about.
    predictor.predict(np.zeros([1, *predictor.crop_size, 3], np.uint8))
    start = time.monotonic()
    predictions = output / PREDICTIONS_FOLDER
    done: set[ImageId] = set()
    with PredictionWriter(predictions, predictor.categories) as writer:
        results = predict_batches(predictor, readable(batches, pattern))
        results = track(results, description="evaluating", total=num_images)
        for name, panoptic in results:
            identity, file_name = _find(name, known, ground_truth.annotations)
            writer.add(identity, file_name, panoptic)
            done.add(identity)
        if not done:
            raise InputError("there is no image to evaluate")
    seconds = time.monotonic() - start
    metrics = {
        "config": config_name,
        "step": int(step),
        "num_images": len(done),
        "images_per_second": round(len(done) / max(seconds, 1e-9), 3),
        "panoptic": score(ground_truth, predictions, done),
    }
    with atomic_write(output / METRICS_FILE, "w") as file:
        json.dump(metrics, file, indent=1)
        file.write("\n")
    return metrics


def predict_batches(
    predictor: PanopticPredictor, batches: Iterable[EvaluationBatch]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, panoptic [H, W] int32, category_id * 1000 + instance)."""
    for batch in batches:
        outputs = predictor.predict_crops(
            batch.images, batch.resized_sizes, batch.original_sizes
        )
        panoptic, sizes = outputs["panoptic"].numpy(), outputs["sizes"].numpy()
        for index, name in enumerate(batch.names.numpy()):
            height, width = sizes[index]
            yield name.decode(), panoptic[index, :height, :width]


def readable(elements: Iterable[Any], pattern: str) -> Iterator[Any]:
    """Passes on what is read from TFRecords; names their pattern if they are damaged.

    Raises:
      InputError: a record cannot be read.
    """
    try:
        yield from elements
    except tf.errors.OpError as error:
        reason = next(iter(error.message.splitlines()), type(error).__name__)
        raise InputError(
            f"{pattern}: a record cannot be read ({reason}); convert the split again"
        ) from error


def image_ids(annotations: Location) -> dict[str, tuple[ImageId, str]]:
    """Name of each annotated image, as in its record -> (image id, file name).

    Raises:
      InputError: the json is missing or damaged, or two images share a name.
    """
    known: dict[str, tuple[ImageId, str]] = {}
    for image in read_annotations(annotations).images:
        if image.name in known:
            raise InputError(
                f"{annotations}: images {known[image.name][0]} and {image.image_id} "
                f"are both called '{image.name}'; records are told apart by this name, "
                "so give each its own"
            )
        known[image.name] = (image.image_id, image.file_name)
    return known


def _find(
    name: str, known: dict[str, tuple[ImageId, str]], annotations: Location
) -> tuple[ImageId, str]:
    # Records of other tools may name the file with its ending.
    for candidate in (name, str(PurePosixPath(name).with_suffix(""))):
        if candidate in known:
            return known[candidate]
    raise InputError(
        f"{annotations}: has no annotation of the image '{name}' that is in the "
        "TFRecords; set data.validation.annotations to the json they were made from"
    )


def score(
    ground_truth: GroundTruth, predictions: Path, images: Collection[ImageId]
) -> dict[str, Any]:
    """Scores the files of a prediction on the given images alone.

    Returns:
      See `score_files`.
    """
    with tempfile.TemporaryDirectory(prefix="cmt-evaluate-") as folder:
        annotations = ground_truth.annotations
        content = load_json(annotations)
        chosen = [
            entry for entry in content["annotations"] if entry["image_id"] in images
        ]
        if len(chosen) < len(content["annotations"]):
            annotations = Path(folder, split(annotations)[1])
            annotations.write_text(
                json.dumps({**content, "annotations": chosen}), encoding="utf-8"
            )
        return score_files(
            annotations,
            ground_truth.masks,
            predictions / "panoptic.json",
            predictions / "panoptic",
        )
