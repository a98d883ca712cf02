"""Panoptic quality of a network on a data set, through COCO panoptic files."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from cmt.data.input.pipeline import EvaluationBatch
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import ImageId, PanopticImage
from cmt.data.panoptic.predictions import (
    MASKS_FOLDER,
    PREDICTIONS_FILE,
    PredictionWriter,
    segment_scores,
    write_predictions,
)
from cmt.errors import InputError
from cmt.evaluation.pairs import Pairs, PanopticFile
from cmt.evaluation.score import measure
from cmt.io.files import atomic_write
from cmt.io.parallel import threaded_map
from cmt.io.progress import track
from cmt.io.storage import Location

PREDICTIONS_FOLDER = "predictions"
METRICS_FILE = "metrics.json"
PER_IMAGE_FILE = "per_image.csv"
REPORT_FILE = "report.html"


class Predictor(Protocol):
    """The part of a predictor, such as `PanopticPredictor`, that evaluations use.

    Attributes:
      categories: the classes of its network, in order.
      crop_size: height and width of what its network sees, in pixels.
    """

    categories: Sequence[Category]
    crop_size: tuple[int, int]

    def predict(self, images: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """Segments images [B, H, W, 3] of one size."""

    def predict_crops(
        self, crops: tf.Tensor, resized_sizes: tf.Tensor, original_sizes: tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        """Segments what the evaluation pipeline has resized and padded."""


class GroundTruth(NamedTuple):
    """The annotations that predictions are scored against.

    Attributes:
      file: the annotations.
      masks: folder of their PNGs, local or what `tf.io.gfile` reads.
      images: annotated images by the names that records have for them.
    """

    file: PanopticFile
    masks: Location
    images: dict[str, PanopticImage]


def read_ground_truth(annotations: Location, masks: Location) -> GroundTruth:
    """Reads a COCO panoptic json, once.

    Args:
      annotations: the json, local or what `tf.io.gfile` reads.
      masks: folder of its PNGs.

    Raises:
      InputError: the json is missing or damaged, an image has no name, or two images
        share one.
    """
    file = PanopticFile.read(annotations)
    images: dict[str, PanopticImage] = {}
    for image in file.images.values():
        if not image.file_name:
            raise InputError(
                f"{annotations}: image {image.image_id} has an annotation, but "
                '"images" does not name its file; add it'
            )
        if image.name in images:
            raise InputError(
                f"{annotations}: images {images[image.name].image_id} and "
                f"{image.image_id} are both called '{image.name}'; records are found "
                "by this name, so give each its own"
            )
        images[image.name] = image
    return GroundTruth(file, masks, images)


def evaluate(
    predictor: Predictor,
    batches: Iterable[EvaluationBatch],
    ground_truth: GroundTruth,
    output: Path | str,
    *,
    step: int,
    config_name: str,
    num_images: int | None = None,
    pattern: str = "the TFRecords",
    read_photos: Callable[[Sequence[int]], Iterable[np.ndarray]] | None = None,
) -> dict[str, Any]:
    """Predicts all images, writes the predictions and scores the files.

    Below `output`: `predictions/panoptic.json`, `predictions/panoptic/*.png`,
    `per_image.csv` (see `write_images`), `metrics.json` and, with `read_photos`,
    `report.html` (see `write_report`), each replaced as a whole if it was there.

    Args:
      predictor: network and categories.
      batches: images as the evaluation pipeline gives them.
      ground_truth: of these images; others in it are not counted.
      output: the folder.
      step: training step of the weights, for metrics.json.
      config_name: name of the config, for metrics.json.
      num_images: how many there will be, for the progress bar.
      pattern: of the files the batches are read from, for messages.
      read_photos: places in `batches` -> [H, W, 3] uint8 of each image; None for no
        report.

    Returns:
      The content of metrics.json: "config", "step", "num_images",
      "images_per_second" (predicting and writing) and "panoptic", see
      `Measurement.result`.

    Raises:
      InputError: the ground truth lacks an image, its PNGs are missing or damaged, a
        record is damaged, or there is no image.
    """
    output = Path(output)
    batches = _readable(batches, pattern)
    with ThreadPoolExecutor(1) as beside:
        # The first batch starts the input, the first call builds the graph: neither is
        # what the rate is about.
        first = beside.submit(list, itertools.islice(batches, 1))
        predictor.predict(np.zeros([1, *predictor.crop_size, 3], np.uint8))
    start = time.monotonic()
    predictions = output / PREDICTIONS_FOLDER
    results = _predict_batches(predictor, itertools.chain(first.result(), batches))
    with write_predictions(predictions, predictor.categories) as writer:
        written = _write_all(results, ground_truth, writer)
        # Closed, and with it its threads, before the folder is moved or removed.
        with contextlib.closing(written):
            names = track(written, description="evaluating", total=num_images)
            done = dict(zip(names, itertools.count(), strict=False))
        if not done:
            raise InputError("there is no image to evaluate")
    seconds = time.monotonic() - start
    pairs = Pairs(
        ground_truth.file.only(done),
        ground_truth.masks,
        PanopticFile.read(predictions / PREDICTIONS_FILE),
        predictions / MASKS_FOLDER,
    )
    measurement = measure(pairs, workers=1, per_image=output / PER_IMAGE_FILE)
    metrics = {
        "config": config_name,
        "step": int(step),
        "num_images": len(done),
        "images_per_second": round(len(done) / max(seconds, 1e-9), 3),
        "panoptic": measurement.result(),
    }
    with atomic_write(output / METRICS_FILE, "w") as file:
        json.dump(metrics, file, indent=1)
        file.write("\n")
    if read_photos is not None:
        from cmt.evaluation.report import write_report  # Matplotlib, Jinja2.

        write_report(
            output / REPORT_FILE,
            metrics,
            measurement,
            pairs,
            lambda ids: read_photos([done[image_id] for image_id in ids]),
        )
    return metrics


def _predict_batches(
    predictor: Predictor, batches: Iterable[EvaluationBatch]
) -> Iterator[tuple[str, np.ndarray, dict[int, float]]]:
    """Yields name, panoptic [H, W] int32 (category_id * 1000 + instance), scores."""
    for batch in batches:
        outputs = predictor.predict_crops(
            batch.images, batch.resized_sizes, batch.original_sizes
        )
        found = {key: value.numpy() for key, value in outputs.items()}
        for index, name in enumerate(batch.names.numpy()):
            height, width = found["sizes"][index]
            panoptic = found["panoptic"][index, :height, :width]
            scores = segment_scores(found["segment_ids"][index], found["scores"][index])
            yield name.decode(), panoptic, scores


def _write_all(
    results: Iterable[tuple[str, np.ndarray, dict[int, float]]],
    ground_truth: GroundTruth,
    writer: PredictionWriter,
) -> Iterator[ImageId]:
    """Writes predictions beside the network, and yields their images in order."""

    def write(
        numbered: tuple[int, tuple[str, np.ndarray, dict[int, float]]],
    ) -> ImageId:
        place, (name, panoptic, scores) = numbered
        image = find(name, ground_truth)
        writer.add(image.image_id, image.file_name, panoptic, scores, place=place)
        return image.image_id

    return threaded_map(write, enumerate(results))


def _readable(elements: Iterable[Any], pattern: str) -> Iterator[Any]:
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


def find(name: str, ground_truth: GroundTruth) -> PanopticImage:
    """Finds the annotation of an image by the name that its record has.

    Raises:
      InputError: there is none.
    """
    # Records of other tools may name the file with its ending.
    for candidate in (name, str(PurePosixPath(name).with_suffix(""))):
        if candidate in ground_truth.images:
            return ground_truth.images[candidate]
    raise InputError(
        f"{ground_truth.file.path}: has no annotation of the image '{name}' that is in "
        "the TFRecords; set data.validation.annotations to the json they were made from"
    )
