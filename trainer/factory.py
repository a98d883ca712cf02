"""ExperimentConfig -> the parts of a run. Only this file here reads its messages."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from cmt.config import to_text
from cmt.data.input import open as data_factory
from cmt.data.panoptic.annotations import MAX_CATEGORY_ID
from cmt.data.panoptic.categories import Category
from cmt.errors import InputError
from cmt.evaluation import factory as evaluation_factory
from cmt.evaluation.evaluate import image_ids
from cmt.factory import build_loss, build_model
from cmt.io.storage import is_folder
from cmt.protos import experiment_pb2, trainer_pb2
from cmt.trainer import optimizer, strategy
from cmt.trainer.callbacks import Intervals
from cmt.trainer.schedule import PolynomialWithWarmup
from cmt.trainer.trainer import Trainer

EVALUATION_FOLDER = "eval"
SMOKE_STEPS = 2
_SAMPLE_IMAGES = 2


class Settings(NamedTuple):
    """The plain numbers of a run.

    Attributes:
      name: of the experiment.
      seed: of initial weights, shuffling and augmentation.
      global_batch_size: images in a step, over all replicas.
      keep_checkpoints: how many stay.
      backbone_multiplier: the backbone's learning rate over that of the rest.
      initial_checkpoint: where a new run has its first weights from; "" for random.
      allow_partial_backbone: go on where it holds little of the backbone.
      intervals: when things happen, in steps.
    """

    name: str
    seed: int
    global_batch_size: int
    keep_checkpoints: int
    backbone_multiplier: float
    initial_checkpoint: str
    allow_partial_backbone: bool
    intervals: Intervals


def read_settings(experiment: experiment_pb2.ExperimentConfig) -> Settings:
    """Reads the plain numbers of a run."""
    trainer = experiment.trainer
    return Settings(
        name=experiment.name,
        seed=trainer.seed,
        global_batch_size=trainer.global_batch_size,
        keep_checkpoints=trainer.keep_checkpoints,
        backbone_multiplier=trainer.learning_rate.backbone_multiplier,
        initial_checkpoint=trainer.initial_checkpoint,
        allow_partial_backbone=trainer.allow_partial_backbone,
        intervals=Intervals(
            steps=trainer.steps,
            log=trainer.log_every_steps,
            checkpoint=trainer.checkpoint_every_steps,
            evaluate=trainer.evaluate_every_steps,
        ),
    )


def build_strategy(config: trainer_pb2.StrategyConfig) -> tf.distribute.Strategy:
    """Finds the devices.

    Raises:
      InputError: see `strategy.build_strategy`.
    """
    return strategy.build_strategy(
        trainer_pb2.Strategy.Name(config.kind),
        tpu=config.tpu,
        logical_cpus=config.logical_cpus,
    )


def build_schedule(
    config: trainer_pb2.TrainerConfig, *, multiplier: float = 1.0
) -> PolynomialWithWarmup:
    """The learning rate over the steps, times `multiplier`."""
    rate = config.learning_rate
    return PolynomialWithWarmup(
        base=rate.base,
        steps=config.steps,
        warmup_steps=rate.warmup_steps,
        power=rate.power,
        multiplier=multiplier,
    )


def build_optimizers(
    config: trainer_pb2.TrainerConfig, network: tf_keras.Model
) -> dict[str, tf_keras.optimizers.Optimizer]:
    """The two optimizers, by the keywords of `Trainer`, in the strategy's scope.

    Raises:
      InputError: the kind of optimizer is not installed.
    """
    groups = {
        "optimizer": (network.other_variables, 1.0),
        "backbone_optimizer": (
            network.backbone_variables,
            config.learning_rate.backbone_multiplier,
        ),
    }
    rule = config.optimizer
    return {
        name: optimizer.build_optimizer(
            trainer_pb2.Optimizer.Name(rule.kind),
            variables=variables,
            learning_rate=build_schedule(config, multiplier=multiplier),
            beta1=rule.beta1,
            beta2=rule.beta2,
            epsilon=rule.epsilon,
            weight_decay=rule.weight_decay,
            name=name,
        )
        for name, (variables, multiplier) in groups.items()
    }


def build_network(experiment: experiment_pb2.ExperimentConfig) -> tf_keras.Model:
    """The network with its variables, in the scope of the strategy."""
    data = experiment.data
    network = build_model(experiment.model)
    network.build((None, data.crop_height_pixels, data.crop_width_pixels, 3))
    return network


def build_trainer(
    experiment: experiment_pb2.ExperimentConfig, network: tf_keras.Model
) -> Trainer:
    """Network, loss and optimizers, in the scope of the strategy.

    Args:
      experiment: the config.
      network: of `build_network`, with its first weights: a Lookahead optimizer
        begins with a copy of them.

    Raises:
      InputError: the kind of optimizer is not installed, or see `training_categories`.
    """
    return Trainer(
        network,
        build_loss(
            experiment.model,
            experiment.loss,
            is_thing=[c.is_thing for c in training_categories(experiment)],
        ),
        **build_optimizers(experiment.trainer, network),
        global_batch_size=experiment.trainer.global_batch_size,
        clip_global_norm=experiment.trainer.optimizer.clip_global_norm,
    )


def training_categories(experiment: experiment_pb2.ExperimentConfig) -> list[Category]:
    """The classes of the training split, in order.

    Raises:
      InputError: no data is given, it cannot be read, the model has another number
        of classes, or the id of one is too large for predictions.
    """
    if not experiment.data.train.tfrecords:
        raise InputError(
            "data.train.tfrecords is not set; add it to the config, or "
            "--set 'data.train.tfrecords=\"DIR/train-*.tfrecord\"'"
        )
    categories = data_factory.training_manifest(experiment.data).categories
    if len(categories) != experiment.model.num_classes:
        raise InputError(
            "model.num_classes must be the number of categories of the data; got "
            f"{experiment.model.num_classes} and {len(categories)}"
        )
    for category in categories:
        if not 1 <= category.id <= MAX_CATEGORY_ID:
            raise InputError(
                f"data.train: the id of category '{category.name}' must be from 1 to "
                f"{MAX_CATEGORY_ID}, because predicted PNGs hold category_id * 1000 + "
                f"instance; got {category.id}; renumber it and convert again"
            )
    return categories


def training_dataset(
    experiment: experiment_pb2.ExperimentConfig,
    *,
    first_step: int,
    input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Endless batches of (images, Targets), those of the steps from `first_step` on.

    With an `input_context`, only its host's part of each step, in the batches of its
    replicas: for `tf.distribute.Strategy.distribute_datasets_from_function`.

    Raises:
      InputError: the data cannot be read.
    """
    return data_factory.training_dataset(
        experiment.data,
        global_batch_size=experiment.trainer.global_batch_size,
        seed=experiment.trainer.seed,
        first_step=first_step,
        input_context=input_context,
    )


def validation_dataset(
    experiment: experiment_pb2.ExperimentConfig,
    *,
    input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Batches of (images, Targets) of the validation split, endlessly.

    The images are resized and padded without random changes. They are shuffled,
    each time in the same way: with evaluation.max_images, the losses are of a fixed
    sample of the split and not of its first images, as the scores are. A damaged
    record ends it, as it does the scores: nothing is counted in its place.

    Args:
      experiment: the config.
      input_context: as in `training_dataset`.

    Raises:
      InputError: the data cannot be read.
    """
    config = type(experiment.data)()
    config.CopyFrom(experiment.data)
    config.train.CopyFrom(config.validation)
    config.augmentation.Clear()  # Of what it leaves out, only these change images.
    config.augmentation.min_scale = config.augmentation.max_scale = 1.0
    config.augmentation.flip_probability = 0.0
    config.skip_damaged_records = False
    config.service = ""
    return data_factory.training_dataset(
        config,
        global_batch_size=experiment.trainer.global_batch_size,
        seed=0,
        input_context=input_context,
    )


def validation_steps(experiment: experiment_pb2.ExperimentConfig) -> int:
    """Whole batches in the images that are validated on, at least one."""
    num_images = data_factory.validation_manifest(experiment.data).num_images
    limit = experiment.evaluation.max_images or num_images
    return max(1, min(limit, num_images) // experiment.trainer.global_batch_size)


def dataset_of_hosts(
    distribution: tf.distribute.Strategy, make: Callable[..., tf.data.Dataset]
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """A data set for `fit`, of which each host reads its own part alone.

    A single host gets whole batches, which `fit` deals out to its replicas.

    Args:
      distribution: whose hosts.
      make: `training_dataset` or `validation_dataset`; takes the keyword
        `input_context`, or none for whole batches.
    """
    if _num_hosts(distribution) == 1:
        return make()
    return distribution.distribute_datasets_from_function(
        lambda context: make(input_context=context)
    )


def _num_hosts(distribution: tf.distribute.Strategy) -> int:
    try:
        names = distribution.extended.worker_devices
    except RuntimeError:  # TensorFlow's default strategy does not tell.
        return 1
    devices = [tf.DeviceSpec.from_string(name) for name in names]
    return len({(device.job, device.task) for device in devices})


def build_evaluation(
    experiment: experiment_pb2.ExperimentConfig,
    trainer: Trainer,
    categories: Sequence[Category],
    run_dir: Path,
) -> Callable[[int], dict[str, float]]:
    """What evaluates the network of a trainer at a step.

    Returns:
      step -> losses on the validation split and "pq", "pq_things", "pq_stuff" in
      percent. Each call writes `eval/<step>/` in the run directory.

    Raises:
      InputError: the validation data or its ground truth cannot be read; said now and
        not after hours of training.
    """
    dataset = dataset_of_hosts(
        trainer.distribute_strategy,
        functools.partial(validation_dataset, experiment),
    )
    batches = validation_steps(experiment)
    manifest = data_factory.validation_manifest(experiment.data)
    image_ids(manifest.annotations)
    if not is_folder(manifest.masks):
        raise InputError(
            f"{manifest.masks} is no folder; set data.validation.masks to the PNGs of "
            f"{manifest.annotations}"
        )
    predictor = evaluation_factory.build_predictor(
        experiment, trainer.network, categories
    )

    def evaluate(step: int) -> dict[str, float]:
        losses = trainer.validate(dataset, steps=batches)
        metrics = evaluation_factory.evaluate_predictor(
            experiment, predictor, run_dir / EVALUATION_FOLDER / str(step), step=step
        )
        groups = {"pq": "all", "pq_things": "things", "pq_stuff": "stuff"}
        scores = {k: metrics["panoptic"][g]["pq"] for k, g in groups.items()}
        return losses | scores

    return evaluate


def smoke_experiment(
    experiment: experiment_pb2.ExperimentConfig,
) -> experiment_pb2.ExperimentConfig:
    """A copy that makes 2 steps, a checkpoint and one batch of evaluation."""
    copy = type(experiment)()
    copy.CopyFrom(experiment)
    copy.trainer.steps = SMOKE_STEPS
    copy.trainer.learning_rate.warmup_steps = 0
    copy.trainer.log_every_steps = 1
    copy.trainer.checkpoint_every_steps = SMOKE_STEPS
    copy.trainer.evaluate_every_steps = 0
    if copy.data.validation.tfrecords:
        copy.trainer.evaluate_every_steps = SMOKE_STEPS
        copy.evaluation.max_images = copy.evaluation.batch_size
    return copy


def export_checkpoint(
    experiment: experiment_pb2.ExperimentConfig,
    checkpoint: Path | str,
    directory: Path | str,
) -> Path:
    """Exports a checkpoint to `directory`/VERSION; see `serving.export.export_model`.

    Returns:
      The version folder.

    Raises:
      InputError: the checkpoint cannot be used, or the version is already there.
      WorkError: the exported model does not give the integers of the evaluation.
    """
    from cmt.serving import export  # Orbax is of no use to training.

    options = experiment.export
    # Refused now and not after the work.
    export.version_folder(directory, options.version)
    # The process that checks the model runs on the CPU, and this one has to agree.
    with tf.device("/CPU:0"):
        predictor, step = evaluation_factory.load_predictor(experiment, checkpoint)
        samples = export.made_up_images(predictor.crop_size)
        try:
            real = evaluation_factory.validation_images(experiment, _SAMPLE_IMAGES)
        except InputError:
            real = []  # The data set need not be where a model is exported.
        samples = [tf.io.encode_png(image).numpy() for image, _ in real] + samples
        return export.export_model(
            predictor,
            directory,
            samples=samples,
            step=step,
            config_name=experiment.name,
            config_text=to_text(experiment),
            version=options.version,
            warmup_requests=options.warmup_requests,
            score_tolerance=options.score_tolerance,
        )
