"""Config messages -> predictors and exported models."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import tensorflow as tf
import tf_keras

from cmt.config import load_experiment, to_text
from cmt.data.input.open import Data
from cmt.data.panoptic.categories import Category, read_categories
from cmt.errors import InputError
from cmt.factory import build_model, list_passes, merge_options
from cmt.io.storage import find_files
from cmt.protos import experiment_pb2
from cmt.run_files import CATEGORIES_FILE, CONFIG_FILE
from cmt.serving.mistaken import recognize
from cmt.serving.predictor import PanopticPredictor
from cmt.serving.saved_model import Segmenter, find_saved_model, load_saved_model
from cmt.weights.files import find_checkpoint
from cmt.weights.load import load_weights

_SAMPLE_IMAGES = 2


def crop_size(experiment: experiment_pb2.ExperimentConfig) -> tuple[int, int]:
    """Returns height and width of what the network sees, in pixels."""
    return experiment.data.crop_height_pixels, experiment.data.crop_width_pixels


def build_predictor(
    experiment: experiment_pb2.ExperimentConfig,
    network: tf_keras.Model,
    categories: Sequence[Category],
) -> PanopticPredictor:
    """Builds the predictor of a network, which may still be in training.

    Args:
      experiment: the config.
      network: is built.
      categories: the classes of the data set, in order.

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
        passes=list_passes(experiment.evaluation),
    )


def load_predictor(
    experiment: experiment_pb2.ExperimentConfig, data: Data, checkpoint: Path | str
) -> tuple[PanopticPredictor, int]:
    """Builds a predictor with trained weights, without the semantic branch.

    Args:
      experiment: the config.
      data: the data of the config; opened only if no list of categories is beside the
        checkpoint.
      checkpoint: as `find_checkpoint` takes it.

    Returns:
      The predictor, and the training step of its weights.

    Raises:
      InputError: there is no checkpoint, it is one of another network, or the list of
        categories cannot be used.
    """
    prefix = find_checkpoint(checkpoint)
    categories = find_categories(experiment, data, prefix)
    network = build_model(experiment.model)
    # AutoGraph would rewrite all of tf_keras to no effect, in many times the time.
    build = tf.autograph.experimental.do_not_convert(network.build)
    build((None, *crop_size(experiment), 3))
    step = load_weights(network, prefix)
    # It supervises training only.
    network.semantic_branch = None
    return build_predictor(experiment, network, categories), step


def find_categories(
    experiment: experiment_pb2.ExperimentConfig, data: Data, prefix: str
) -> list[Category]:
    """Finds the classes: beside a checkpoint, in the manifest, in the config's list.

    Args:
      experiment: the config.
      data: the data of the config; opened only if it is needed.
      prefix: of the checkpoint.

    Raises:
      InputError: none of these is there.
    """
    for folder in list(Path(prefix).parents)[:2]:
        if (folder / CATEGORIES_FILE).is_file():
            return read_categories(folder / CATEGORIES_FILE)
    listed = experiment.data.categories
    for name in ("validation", "train"):
        pattern = getattr(experiment.data, name).tfrecords
        if pattern and (find_files(pattern) or not listed):
            return getattr(data, name).categories
    if listed:
        packaged = Path(str(importlib.resources.files("cmt.configs")), f"{listed}.json")
        return read_categories(packaged if packaged.is_file() else listed)
    raise InputError(
        f"no list of categories: there is no {CATEGORIES_FILE} beside the checkpoint, "
        "and the config names no TFRecords and no list; set data.validation.tfrecords "
        "or data.categories"
    )


def open_model(path: Path | str, checkpoint: Path | str | None = None) -> Segmenter:
    """Opens what `cmt predict` calls MODEL.

    Args:
      path: a SavedModel, the folder of its versions, or a run directory; with a
        checkpoint a config, which is a textproto file or a name of the package.
      checkpoint: as `find_checkpoint` takes it, of this package or of DeepLab2.

    Raises:
      InputError: it is none of these.
    """
    if checkpoint is None and (saved_model := find_saved_model(path)) is not None:
        return load_saved_model(saved_model)
    _, predictor = open_network(path, checkpoint)
    return Segmenter(predictor.predict, predictor.categories, predictor.crop_size)


def open_network(
    path: Path | str, checkpoint: Path | str | None = None
) -> tuple[experiment_pb2.ExperimentConfig, PanopticPredictor]:
    """Opens a MODEL whose layers can be looked at: the config, and the predictor.

    Args:
      path: a run directory; with a checkpoint a config.
      checkpoint: see `open_model`.

    Raises:
      InputError: it is none of these.
    """
    if checkpoint is not None:
        experiment = load_experiment(str(path))
    elif (Path(path) / CONFIG_FILE).is_file():
        experiment, checkpoint = load_experiment(Path(path) / CONFIG_FILE), path
    else:
        _refuse_model(Path(path))
    predictor, _ = load_predictor(experiment, Data(experiment.data), checkpoint)
    return experiment, predictor


def _refuse_model(path: Path) -> NoReturn:
    if find_saved_model(path) is not None:
        raise InputError(
            f"{path} is a SavedModel, which gives panoptic maps and no layers; give "
            "the run directory it was exported from, or a config and its --checkpoint"
        )
    mistaken = recognize(path)
    if mistaken is not None:
        raise InputError(
            f"{path} is {mistaken.what}, and MODEL is a SavedModel or a run directory;"
            f" {mistaken.model}"
        )
    if not path.exists():
        raise InputError(f"{path}: no such model")
    raise InputError(
        f"{path}: neither a SavedModel of `cmt export` (saved_model.pb, or folders "
        f"1, 2, ... with one) nor a run directory of `cmt train` ({CONFIG_FILE})"
    )


def export_checkpoint(
    experiment: experiment_pb2.ExperimentConfig,
    checkpoint: Path | str,
    directory: Path | str,
) -> Path:
    """Exports a checkpoint to `directory`/VERSION; see `export_model`.

    Args:
      experiment: the config; `experiment.export` holds the options.
      checkpoint: as `find_checkpoint` takes it.
      directory: DIR/NAME, the folder of all versions.

    Returns:
      The version folder.

    Raises:
      InputError: the checkpoint cannot be used, or the version is already there.
      WorkError: the exported model does not give the integers of the evaluation.
    """
    from cmt.serving import export, parity  # Orbax takes seconds to import.

    options = experiment.export
    # Refused now and not after the work.
    export.version_folder(directory, options.version)
    # The process that checks the model runs on the CPU, and this one has to agree.
    with tf.device("/CPU:0"):
        data = Data(experiment.data)
        predictor, step = load_predictor(experiment, data, checkpoint)
        try:
            split = data.validation
            number = min(_SAMPLE_IMAGES, split.num_images)
            examples = list(split.examples(range(number)))
        except InputError:
            examples = []  # The data set need not be where a model is exported.
        samples = [tf.io.encode_png(example.image).numpy() for example in examples]
        return export.export_model(
            predictor,
            directory,
            samples=samples + parity.made_up_images(predictor.crop_size),
            step=step,
            config_name=experiment.name,
            config_text=to_text(experiment),
            version=options.version,
            warmup_requests=options.warmup_requests,
            score_tolerance=options.score_tolerance,
        )
