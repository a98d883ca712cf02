"""ExperimentConfig -> the parts of a run. In trainer/, only this file reads configs."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from cmt.data.input.open import Data
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.predictions import check_category_ids
from cmt.errors import InputError
from cmt.evaluation.factory import Evaluation, open_evaluation
from cmt.factory import build_loss, build_model
from cmt.protos import experiment_pb2, model_pb2, trainer_pb2
from cmt.run_files import EVALUATION_FOLDER, EVALUATION_PICTURE
from cmt.serving.factory import build_predictor
from cmt.trainer import optimizer, strategy
from cmt.trainer.callbacks import Intervals
from cmt.trainer.reporting import panoptic_scores
from cmt.trainer.schedule import LearningRate
from cmt.trainer.trainer import Trainer

SMOKE_STEPS = 2


class Settings(NamedTuple):
    """The plain numbers of a run.

    Attributes:
      name: of the experiment.
      seed: of initial weights, shuffling and augmentation.
      global_batch_size: images in a step, over all replicas.
      accumulation_steps: parts of a step, one after the other.
      keep_checkpoints: how many stay.
      go_on_unsaved: whether a run goes on where it cannot write.
      backbone_multiplier: the backbone's learning rate over that of the rest.
      initial_checkpoint: gives a new run its first weights; "" for random ones.
      allow_partial_backbone: accept one that holds little of the backbone.
      intervals: steps between logs, checkpoints and evaluations.
      stall_seconds: how long a run stands still before it says where.
    """

    name: str
    seed: int
    global_batch_size: int
    accumulation_steps: int
    keep_checkpoints: int
    go_on_unsaved: bool
    backbone_multiplier: float
    initial_checkpoint: str
    allow_partial_backbone: bool
    intervals: Intervals
    stall_seconds: int


def read_settings(experiment: experiment_pb2.ExperimentConfig) -> Settings:
    """Reads the plain numbers of a run."""
    trainer = experiment.trainer
    return Settings(
        name=experiment.name,
        seed=trainer.seed,
        global_batch_size=trainer.global_batch_size,
        accumulation_steps=trainer.accumulation_steps,
        keep_checkpoints=trainer.keep_checkpoints,
        go_on_unsaved=trainer.go_on_unsaved,
        backbone_multiplier=trainer.learning_rate.backbone_multiplier,
        initial_checkpoint=trainer.initial_checkpoint,
        allow_partial_backbone=trainer.allow_partial_backbone,
        intervals=Intervals(
            steps=trainer.steps,
            log=trainer.log_every_steps,
            checkpoint=trainer.checkpoint_every_steps,
            evaluate=trainer.evaluate_every_steps,
        ),
        stall_seconds=trainer.stall_seconds,
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
        intra_op_threads=config.intra_op_threads,
        deterministic_ops=config.deterministic_ops,
    )


def build_schedule(
    config: trainer_pb2.TrainerConfig, *, multiplier: float = 1.0
) -> LearningRate:
    """Builds the learning rate over the steps, times `multiplier`."""
    rate = config.learning_rate
    return LearningRate(
        base=rate.base,
        steps=config.steps,
        warmup_steps=rate.warmup_steps,
        power=rate.power,
        multiplier=multiplier,
        kind=trainer_pb2.Schedule.Name(rate.kind),
    )


def build_optimizers(
    config: trainer_pb2.TrainerConfig, network: tf_keras.Model
) -> dict[str, tf_keras.optimizers.Optimizer]:
    """Builds the two optimizers of `Trainer`, by its keywords, in the strategy's scope.

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
    """Builds the network and its variables, in the scope of the strategy."""
    data = experiment.data
    network = build_model(experiment.model)
    network.build((None, data.crop_height_pixels, data.crop_width_pixels, 3))
    return network


def build_trainer(
    experiment: experiment_pb2.ExperimentConfig,
    network: tf_keras.Model,
    categories: Sequence[Category],
) -> Trainer:
    """Builds loss and optimizers of a network, in the scope of the strategy.

    Args:
      experiment: the config.
      network: from `build_network`, with its first weights: a Lookahead optimizer
        begins with a copy of them.
      categories: the classes of the training data, in order.

    Raises:
      InputError: the kind of optimizer is not installed.
    """
    is_thing = [category.is_thing for category in categories]
    rule, averaged = experiment.trainer.optimizer, None
    if rule.average_decay:
        averaged = build_network(experiment)
        for average, variable in zip(
            averaged.variables, network.variables, strict=True
        ):
            average.assign(variable)
    return Trainer(
        network,
        build_loss(experiment.model, experiment.loss, is_thing=is_thing),
        **build_optimizers(experiment.trainer, network),
        global_batch_size=experiment.trainer.global_batch_size,
        clip_global_norm=rule.clip_global_norm,
        seed=experiment.trainer.seed,
        accumulation_steps=experiment.trainer.accumulation_steps,
        averaged=averaged,
        average_decay=rule.average_decay,
        steps_per_execution=experiment.trainer.steps_per_execution,
    )


def memory_advice(
    experiment: experiment_pb2.ExperimentConfig, num_replicas: int
) -> str:
    """Says how much was tried at a time, and which settings need less memory.

    Args:
      experiment: the config.
      num_replicas: devices that share a batch.
    """
    trainer, model, data = experiment.trainer, experiment.model, experiment.data
    parts = trainer.accumulation_steps
    images = trainer.global_batch_size // (num_replicas * parts)
    more = next((n for n in range(2, images + 1) if images % n == 0), 1)
    kept = [
        field.name
        for field in model.recompute.DESCRIPTOR.fields
        if not getattr(model.recompute, field.name)
    ]
    precision = model_pb2.Precision.Name(model.precision)
    advice = []
    if more > 1:
        advice.append(f"set trainer.accumulation_steps={parts * more}")
    advice += [f"set model.recompute.{name}=true" for name in kept]
    if precision != "MIXED_BFLOAT16":
        advice.append("set model.precision=MIXED_BFLOAT16")
    advice.append("lower data.crop_height_pixels and data.crop_width_pixels")
    return (
        f"a device had {images} images of {data.crop_height_pixels} x "
        f"{data.crop_width_pixels} pixels at a time, {precision}; any of these needs "
        f"less: {'; '.join(advice)}"
    )


def check_categories(
    experiment: experiment_pb2.ExperimentConfig, categories: Sequence[Category]
) -> None:
    """Checks that the network can predict the classes of the training data.

    Raises:
      InputError: the model has another number of classes, or the id of one is too
        large for predictions.
    """
    if len(categories) != experiment.model.num_classes:
        raise InputError(
            "model.num_classes must be the number of categories of the data; got "
            f"{experiment.model.num_classes} and {len(categories)}"
        )
    check_category_ids(categories)


def validation_steps(
    experiment: experiment_pb2.ExperimentConfig, num_images: int
) -> int:
    """Returns how many whole batches are validated on, at least one.

    Args:
      experiment: the config.
      num_images: images of the validation split.
    """
    limit = experiment.evaluation.max_images or num_images
    return max(1, min(limit, num_images) // validation_batch(experiment))


def validation_batch(experiment: experiment_pb2.ExperimentConfig) -> int:
    """Returns how many images, over all replicas, are validated on at a time."""
    trainer = experiment.trainer
    return trainer.global_batch_size // trainer.accumulation_steps


def open_validation(
    experiment: experiment_pb2.ExperimentConfig, data: Data
) -> Evaluation:
    """Opens the validation split and checks all that an evaluation will need of it.

    Raises:
      InputError: its classes are not those of the training data, or its records or
        their ground truth cannot be used; now, and not after hours of training.
    """
    evaluation = open_evaluation(experiment, data.validation, data.train.categories)
    evaluation.check()
    return evaluation


def build_evaluation(
    experiment: experiment_pb2.ExperimentConfig,
    trainer: Trainer,
    evaluation: Evaluation,
    categories: Sequence[Category],
    run_dir: Path | None,
) -> Callable[[int], dict[str, float]]:
    """Builds the function that evaluates the network of a trainer at a step.

    The losses are of images without random changes, in whole batches. These are
    shuffled, each time in the same way: with evaluation.max_images, the losses are of
    a fixed sample of the split and not of its first images, as the scores are.

    Args:
      experiment: the config.
      trainer: whose network is evaluated.
      evaluation: from `open_validation`.
      categories: the classes of the training data.
      run_dir: each evaluation writes `eval/<step>/` in this folder; None for a process
        that leaves that to another one.

    Returns:
      step -> losses on the validation split and "pq", "pq_things", "pq_stuff" in
      percent.
    """
    split = evaluation.split
    steps = validation_steps(experiment, split.num_images)
    batches = strategy.dataset_of_hosts(
        trainer.distribute_strategy,
        functools.partial(
            split.batches,
            global_batch_size=validation_batch(experiment),
            seed=0,
        ),
    )
    predictor = build_predictor(experiment, trainer.evaluated, categories)

    def evaluate(step: int) -> dict[str, float]:
        losses = trainer.validate(batches, steps=steps)
        with contextlib.ExitStack() as stack:
            folder = run_dir or stack.enter_context(tempfile.TemporaryDirectory())
            folder = Path(folder, EVALUATION_FOLDER, str(step))
            metrics = evaluation.run(predictor, folder, step=step)
            evaluation.draw(predictor, folder / EVALUATION_PICTURE)
        return losses | panoptic_scores(metrics)

    return evaluate


def smoke_experiment(
    experiment: experiment_pb2.ExperimentConfig,
) -> experiment_pb2.ExperimentConfig:
    """Returns a copy that makes 2 steps, a checkpoint and one batch of evaluation."""
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
