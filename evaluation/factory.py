"""Config messages -> predictors and evaluations. Nobody else here reads configs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from cmt.config import load_experiment
from cmt.data.input import open as data_factory
from cmt.data.input.pipeline import find_source
from cmt.data.panoptic.categories import Category
from cmt.data.records.index import index_records
from cmt.data.records.manifest import Manifest
from cmt.data.records.reader import example_reader
from cmt.errors import InputError
from cmt.evaluation.coco_format import CATEGORY_DIVISOR
from cmt.evaluation.evaluate import GroundTruth, evaluate, readable
from cmt.evaluation.pictures import (
    SheetRow,
    clustering_sheet,
    draw_overlay,
    save_picture,
)
from cmt.factory import build_model, merge_options
from cmt.labels import LABEL_DIVISOR
from cmt.protos import experiment_pb2
from cmt.serving.predict import Segmenter, find_saved_model, load_saved_model
from cmt.serving.predictor import PanopticPredictor, read_categories
from cmt.weights.strict import find_checkpoint, load_weights

CONFIG_FILE = "config.textproto"
CATEGORIES_FILE = "categories.json"


def crop_size(experiment: experiment_pb2.ExperimentConfig) -> tuple[int, int]:
    """Height and width of what the network sees, in pixels."""
    return experiment.data.crop_height_pixels, experiment.data.crop_width_pixels


def load_network(
    experiment: experiment_pb2.ExperimentConfig, checkpoint: Path | str
) -> tuple[tf_keras.Model, int]:
    """The trained network without its semantic branch, and its training step.

    Raises:
      InputError: there is no checkpoint, or it is one of another network.
    """
    network = build_model(experiment.model)
    # AutoGraph would rewrite all of tf_keras to no effect, in many times the time.
    build = tf.autograph.experimental.do_not_convert(network.build)
    build((None, *crop_size(experiment), 3))
    step = load_weights(network, checkpoint)
    # It supervises training only.
    network.semantic_branch = None
    return network, step


def build_predictor(
    experiment: experiment_pb2.ExperimentConfig,
    network: tf_keras.Model,
    categories: Sequence[Category],
) -> PanopticPredictor:
    """What predicts with a network, one still in training too.

    Raises:
      InputError: the network has another number of classes than the data set.
    """
    if len(categories) != experiment.model.num_classes:
        raise InputError(
            "model.num_classes must be the number of categories of the data set; got "
            f"{experiment.model.num_classes} and {len(categories)}; use the config the "
            "network was trained with and the data set it was trained on"
        )
    return PanopticPredictor(
        network,
        crop_size=crop_size(experiment),
        categories=categories,
        merge_options=merge_options(experiment.evaluation),
    )


def load_predictor(
    experiment: experiment_pb2.ExperimentConfig, checkpoint: Path | str
) -> tuple[PanopticPredictor, int]:
    """A predictor with trained weights, and their training step.

    Raises:
      InputError: the checkpoint or the list of categories cannot be used.
    """
    prefix = find_checkpoint(checkpoint)
    categories = find_categories(experiment, prefix)
    network, step = load_network(experiment, prefix)
    return build_predictor(experiment, network, categories), step


def find_categories(
    experiment: experiment_pb2.ExperimentConfig, checkpoint: Path | str
) -> list[Category]:
    """The classes: from the run directory of a checkpoint, else from the manifest.

    Raises:
      InputError: there is no checkpoint, or neither is there.
    """
    prefix = Path(find_checkpoint(checkpoint))
    for folder in (prefix.parent, prefix.parent.parent):
        if (folder / CATEGORIES_FILE).is_file():
            return read_categories(folder / CATEGORIES_FILE)
    return _manifest(experiment).categories


def _manifest(experiment: experiment_pb2.ExperimentConfig) -> Manifest:
    data = experiment.data
    if data.validation.tfrecords:
        return data_factory.validation_manifest(data)
    if data.train.tfrecords:
        return data_factory.training_manifest(data)
    raise InputError(
        f"no list of categories: there is no {CATEGORIES_FILE} beside the checkpoint, "
        "and the config names no TFRecords; set data.validation.tfrecords"
    )


def evaluate_predictor(
    experiment: experiment_pb2.ExperimentConfig,
    predictor: PanopticPredictor,
    output: Path | str,
    *,
    step: int,
) -> dict[str, Any]:
    """Evaluates on the validation split of the config; see `evaluate`.

    Raises:
      InputError: the TFRecords or the ground truth cannot be used.
    """
    options = experiment.evaluation
    manifest = data_factory.validation_manifest(experiment.data)
    _check_same(predictor.categories, manifest)
    num_images = manifest.num_images
    if options.max_images:
        num_images = min(num_images, options.max_images)
    batches = data_factory.evaluation_dataset(
        experiment.data, batch_size=options.batch_size, max_images=options.max_images
    )
    return evaluate(
        predictor,
        batches,
        GroundTruth(manifest.annotations, manifest.masks),
        output,
        step=step,
        config_name=experiment.name,
        num_images=num_images,
        pattern=experiment.data.validation.tfrecords,
    )


def _check_same(categories: Sequence[Category], manifest: Manifest) -> None:
    """The order of the categories decides which class is which."""
    pairs = zip(categories, manifest.categories, strict=False)
    for index, (ours, theirs) in enumerate(pairs):
        if (ours.id, ours.is_thing) != (theirs.id, theirs.is_thing):
            raise InputError(
                f"class {index + 1} of the network is '{ours.name}' (id {ours.id}), of "
                f"the validation split '{theirs.name}' (id {theirs.id}); evaluate on "
                "the data set the network was trained on"
            )


def evaluate_checkpoint(
    experiment: experiment_pb2.ExperimentConfig,
    checkpoint: Path | str,
    output: Path | str,
) -> dict[str, Any]:
    """`cmt eval`: loads the weights and evaluates; see `evaluate`."""
    predictor, step = load_predictor(experiment, checkpoint)
    return evaluate_predictor(experiment, predictor, output, step=step)


def open_model(path: Path | str) -> Segmenter:
    """`cmt predict`'s MODEL: a SavedModel, its versions' folder, or a run directory.

    Raises:
      InputError: it is none of these.
    """
    path = Path(path)
    saved_model = find_saved_model(path)
    if saved_model is not None:
        return load_saved_model(saved_model)
    if (path / CONFIG_FILE).is_file():
        experiment = load_experiment(path / CONFIG_FILE)
        predictor, _ = load_predictor(experiment, path)
        return Segmenter(predictor.predict_bytes, predictor.categories, predictor)
    if not path.exists():
        raise InputError(f"{path}: no such model")
    raise InputError(
        f"{path}: neither a SavedModel of `cmt export` (saved_model.pb, or folders "
        f"1, 2, ... with one) nor a run directory of `cmt train` ({CONFIG_FILE})"
    )


def validation_images(
    experiment: experiment_pb2.ExperimentConfig, number: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The first images of the validation split, with their ground truth.

    Returns:
      [H, W, 3] uint8, and [H, W] int32, category_id * 1000 + instance, each.

    Raises:
      InputError: the TFRecords are missing or damaged.
    """
    split = experiment.data.validation
    source = find_source(
        split.tfrecords, split.manifest, split.annotations, split.masks
    )
    ids = np.array([0, *(category.id for category in source.manifest.categories)])
    index = index_records(source.files)
    read = example_reader(index, num_classes=len(source.manifest.categories))
    records = tf.data.Dataset.range(min(number, index.num_records)).map(read)
    images = []
    for example in readable(records.as_numpy_iterator(), split.tfrecords):
        classes, instances = np.divmod(example.labels, LABEL_DIVISOR)
        panoptic = ids[classes] * CATEGORY_DIVISOR + instances
        images.append((example.image, panoptic.astype(np.int32)))
    return images


def draw_clustering(
    experiment: experiment_pb2.ExperimentConfig,
    predictor: PanopticPredictor,
    output: Path | str,
    *,
    num_images: int = 6,
) -> None:
    """Writes a sheet of validation images: ground truth, prediction, clustering.

    See `clustering_sheet`. Centers are confident where their class is at least as
    likely as evaluation.thing_confidence says.

    Raises:
      InputError: the TFRecords are missing or damaged.
    """
    rows = [
        _sheet_row(
            predictor, image, ground_truth, experiment.evaluation.thing_confidence
        )
        for image, ground_truth in validation_images(experiment, num_images)
    ]
    num_centers = experiment.model.num_centers
    save_picture(output, clustering_sheet(rows, num_centers=num_centers))


def _sheet_row(
    predictor: PanopticPredictor,
    image: np.ndarray,
    ground_truth: np.ndarray,
    confidence: float,
) -> SheetRow:
    inputs = predictor.prepare(image[np.newaxis])
    outputs = predictor.restore(predictor.segment(inputs))
    predictions = predictor.network(inputs["crops"], training=False)
    class_probs = tf.nn.softmax(predictions.class_logits[0], axis=-1)[:, :-1]
    centers = np.flatnonzero(class_probs.numpy().max(-1) >= confidence)
    categories = predictor.categories
    layers = predictions.layers
    return SheetRow(
        image=image,
        ground_truth=draw_overlay(image, ground_truth, categories),
        prediction=draw_overlay(image, outputs["panoptic"][0].numpy(), categories),
        assignments=[
            layer.affinity_logits[0].numpy().argmax(-1)
            for layer in layers
            if layer.affinity_logits is not None
        ],
        reference_points=[
            layer.reference_points[0].numpy()[centers]
            for layer in layers
            if layer.reference_points is not None
        ],
        centers=centers,
        valid_share=_last_coordinate(
            inputs["resized_sizes"][0].numpy(), predictor.crop_size
        ),
    )


def _last_coordinate(
    size: np.ndarray, crop_size: tuple[int, int]
) -> tuple[float, float]:
    """Coordinate of the image's last row and column, i / (n - 1) along the crop."""
    last_row, last_column = np.maximum(size - 1, 1) / (np.array(crop_size) - 1)
    return float(last_row), float(last_column)
