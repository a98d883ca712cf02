"""A training run, from a config to checkpoints in a run directory."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
import tf_keras
from google.protobuf.message import Message

from cmt import config
from cmt.data.input.open import Data
from cmt.data.panoptic.categories import Category
from cmt.errors import InputError, WorkError, tensorflow_reason
from cmt.evaluation.factory import Evaluation
from cmt.io.terminal import LABEL, TEXT, print_table
from cmt.run_files import METRICS_FILE
from cmt.trainer import factory, reporting, run_directory
from cmt.trainer import strategy as strategies
from cmt.trainer.callbacks import RunCallback, stop_on_signals
from cmt.trainer.checkpoint import Best, RunCheckpoints, checkpoint_steps
from cmt.trainer.monitor import StallWatch
from cmt.trainer.schedule import LearningRate
from cmt.trainer.trainer import Trainer
from cmt.weights.files import find_checkpoint
from cmt.weights.load import LoadReport, load_initial_checkpoint


class Summary(NamedTuple):
    """How far a run has come.

    Attributes:
      step: updates made, over all its continuations.
      steps: updates it is meant to make.
      checkpoint: prefix of the latest checkpoint.
      last: numbers of the last log step; None if no step was made.
      signal: name of the signal that ended it early, "" if none did.
      best: its best evaluation; None where there was none.
    """

    step: int
    steps: int
    checkpoint: str
    last: reporting.LogRecord | None
    signal: str
    best: Best | None = None


class _Plan(NamedTuple):
    """What is known of a run before its network is built.

    Attributes:
      settings: its plain numbers.
      strategy: the devices.
      data: its splits.
      categories: the classes of the training data, in order.
      evaluation: of the validation split; None where the run evaluates nothing.
      learning_rate: over the steps.
      changes: what the config changes of a run that is continued, in words.
    """

    settings: factory.Settings
    strategy: tf.distribute.Strategy
    data: Data
    categories: Sequence[Category]
    evaluation: Evaluation | None
    learning_rate: LearningRate
    changes: list[str]


def train(
    experiment: Message,
    run_dir: Path | str,
    *,
    smoke: bool = False,
    new_schedule: bool = False,
) -> Summary:
    """Trains the network of a config, or continues a run.

    A run that was stopped at any moment goes on as if it had not been: images,
    augmentation, dropout, drop path and sampled pixels depend on seed and step alone.

    Args:
      experiment: ExperimentConfig, resolved.
      run_dir: the run directory; made if it is not there, continued if it holds a run.
      smoke: only try memory and data: 2 steps, one batch of evaluation and a
        checkpoint, in a temporary folder beside `run_dir`.
      new_schedule: go on where another number of steps makes the learning rate jump.

    Returns:
      How far the run has come.

    Raises:
      InputError: the config, data, devices or run directory cannot be used; nothing
        was written then.
      WorkError: training failed; checkpoints stay.
    """
    run_dir = Path(run_dir)
    if not smoke:
        return _train(experiment, run_dir, new_schedule)
    near = next(p for p in run_dir.absolute().parents if p.is_dir())
    with tempfile.TemporaryDirectory(dir=near, prefix=".smoke-") as folder:
        return _train(factory.smoke_experiment(experiment), Path(folder), False)


def _check(experiment: Message, run_dir: Path, new_schedule: bool) -> _Plan | None:
    """Checks all that can be checked before the network is built; finds the devices.

    Returns:
      What it found; None where all steps are made.
    """
    settings = factory.read_settings(experiment)
    before, changes = run_directory.check_config(run_dir, experiment)
    learning_rate = factory.build_schedule(experiment.trainer)
    step = max(checkpoint_steps(run_dir), default=0)
    if step == learning_rate.steps:
        return None
    # TensorFlow splits a CPU, limits threads and connects processes only before its
    # first use, which even a learning rate is.
    strategy = factory.build_strategy(experiment.trainer.strategy)
    config.check(experiment, num_replicas=strategy.num_replicas_in_sync)
    if before is not None:
        run_directory.check_steps(
            run_dir,
            step,
            before=factory.build_schedule(before.trainer),
            now=learning_rate,
            new_schedule=new_schedule,
        )
    data = Data(experiment.data)
    categories = data.train.categories
    factory.check_categories(experiment, categories)
    run_directory.check_categories(run_dir, categories)
    evaluation = None
    if settings.intervals.evaluate:
        evaluation = factory.open_validation(experiment, data)
    return _Plan(
        settings, strategy, data, categories, evaluation, learning_rate, changes
    )


def _train(experiment: Message, run_dir: Path, new_schedule: bool) -> Summary:
    plan = _check(experiment, run_dir, new_schedule)
    if plan is None:
        steps = experiment.trainer.steps
        _print(
            f"all {steps} steps are done; to go on, raise trainer.steps and add "
            "--new-schedule"
        )
        return Summary(steps, steps, find_checkpoint(run_dir), None, "")
    settings, strategy = plan.settings, plan.strategy
    replicas, steps = strategy.num_replicas_in_sync, settings.intervals.steps
    trainer, weights = _build_trainer(experiment, plan, run_dir)
    is_chief = strategies.is_chief(strategy)
    checkpoints = RunCheckpoints(
        run_dir, trainer, keep=settings.keep_checkpoints, writes=is_chief
    )
    first_step = checkpoints.restore_latest()
    _check_processes(strategy, run_dir, first_step)
    dataset = _dataset(plan, first_step)
    evaluate = None
    if plan.evaluation is not None:
        evaluate = factory.build_evaluation(
            experiment,
            trainer,
            plan.evaluation,
            plan.categories,
            run_dir if is_chief else None,
        )
    checkpoints.check_folder()
    evaluated = run_directory.has_evaluation(run_dir, first_step)
    callback = _make_callback(plan, trainer, checkpoints, evaluate, first_step)
    callback.owes_evaluation = first_step > 0 and not evaluated
    if is_chief:
        run_directory.write_head(run_dir, experiment, plan.categories)
        run_directory.drop_metrics_after(run_dir, first_step)
        _print_banner(plan, trainer)
        if weights is not None:
            run_directory.write_weights(run_dir, weights)
            _print("\n".join(weights.summary_lines()))
        if first_step:
            _print(f"continues at step {first_step} from {checkpoints.latest}")
        callback.reports = _reports(
            run_dir, settings, first_step, config.to_text(experiment)
        )
    callback.watch = StallWatch(settings.stall_seconds, doing="the first step's graph")
    _fit(
        trainer,
        dataset,
        callback,
        steps=steps - first_step,
        memory_advice=factory.memory_advice(experiment, replicas),
    )
    return Summary(
        callback.step,
        steps,
        checkpoints.latest,
        callback.last,
        callback.signal,
        checkpoints.best,
    )


def _make_callback(
    plan: _Plan,
    trainer: Trainer,
    checkpoints: RunCheckpoints,
    evaluate: Callable[[int], dict[str, float]] | None,
    first_step: int,
) -> RunCallback:
    """Makes the callback of a run, without reports."""
    settings = plan.settings

    def learning_rates(step: int) -> tuple[float, float]:
        rate = float(plan.learning_rate(step))
        return rate * settings.backbone_multiplier, rate

    return RunCallback(
        trainer,
        first_step=first_step,
        intervals=settings.intervals,
        global_batch_size=settings.global_batch_size,
        learning_rates=learning_rates,
        checkpoints=checkpoints,
        evaluate=evaluate,
        image_names=plan.data.train.names,
        go_on_unsaved=settings.go_on_unsaved,
    )


def _dataset(
    plan: _Plan, first_step: int
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """The batches of all steps from `first_step` on."""
    return strategies.dataset_of_hosts(
        plan.strategy,
        functools.partial(
            plan.data.train.batches,
            global_batch_size=plan.settings.global_batch_size,
            seed=plan.settings.seed,
            first_step=first_step,
        ),
    )


def _check_processes(
    strategy: tf.distribute.Strategy, run_dir: Path, first_step: int
) -> None:
    """Checks that all processes of a run found the same checkpoint.

    Raises:
      InputError: this one did not.
    """
    ours = float(first_step)
    from_chief = ours if strategies.is_chief(strategy) else 0.0
    (chiefs,) = strategies.sum_over_processes(strategy, [from_chief])
    if chiefs != ours:
        raise InputError(
            f"the first worker continues from step {chiefs:.0f}, this one found step "
            f"{first_step} in {run_dir}; --output must be a folder that all workers see"
        )


def _build_trainer(
    experiment: Message, plan: _Plan, run_dir: Path
) -> tuple[Trainer, LoadReport | None]:
    """Builds network, loss and optimizers on the devices.

    Returns:
      The trainer; and what was loaded of an initial checkpoint, None where there is
      none, or a run is continued.
    """
    settings, weights = plan.settings, None
    tf_keras.utils.set_random_seed(settings.seed)
    with plan.strategy.scope():
        network = factory.build_network(experiment)
        if settings.initial_checkpoint and not checkpoint_steps(run_dir):
            weights = load_initial_checkpoint(
                network,
                settings.initial_checkpoint,
                allow_partial_backbone=settings.allow_partial_backbone,
            )
        return factory.build_trainer(experiment, network, plan.categories), weights


def _fit(
    trainer: Trainer,
    dataset: tf.data.Dataset | tf.distribute.DistributedDataset,
    callback: RunCallback,
    *,
    steps: int,
    memory_advice: str,
) -> None:
    """Makes the steps, until the last one or a signal, and writes a checkpoint.

    Raises:
      WorkError: memory, another process or something else failed.
    """
    callbacks = tf_keras.callbacks.CallbackList(
        [callback], add_history=True, model=trainer, steps=steps
    )
    # Or Keras warns that evaluations and checkpoints take longer than a step.
    callbacks._check_timing = False
    try:
        with stop_on_signals(callback):
            trainer.fit(
                dataset,
                epochs=1,
                steps_per_epoch=steps,
                verbose=0,
                callbacks=callbacks,
            )
        callback.save()  # Unless that of this step is written.
    except tf.errors.ResourceExhaustedError as error:
        raise WorkError(
            f"out of memory at step {callback.step + 1} ({tensorflow_reason(error)}): "
            + memory_advice
        ) from error
    except tf.errors.OpError as error:
        reason = tensorflow_reason(error)
        if strategies.num_processes(trainer.distribute_strategy) > 1:
            reason += "; unless it is this one's, another worker has ended: its output "
            reason += "says why; start the same command on all of them to go on"
        raise WorkError(
            f"training stopped at step {callback.step + 1}: {reason}"
        ) from error
    finally:
        callback.close()


def _reports(
    run_dir: Path, settings: factory.Settings, first_step: int, config_text: str
) -> list[reporting.Report]:
    steps = settings.intervals.steps
    if sys.stderr.isatty():
        console = reporting.ProgressBar(steps=steps, first_step=first_step)
    else:
        console = reporting.LogLines(
            steps=steps, global_batch_size=settings.global_batch_size
        )
    return [
        console,
        reporting.MetricsFile(run_dir / METRICS_FILE),
        reporting.TensorBoardLogs(run_dir, config_text=config_text),
    ]


def _print_banner(plan: _Plan, trainer: Trainer) -> None:
    settings, strategy = plan.settings, plan.strategy
    replicas = strategy.num_replicas_in_sync
    batch, steps = settings.global_batch_size, settings.intervals.steps
    parts = settings.accumulation_steps
    in_parts = f", in {parts} parts" if parts > 1 else ""
    parameters = sum(v.shape.num_elements() for v in trainer.network.trainable_weights)
    rows = {
        "model": f"{trainer.network.name}, {parameters:,} trainable parameters",
        "devices": strategies.describe(strategy),
        "batch": f"{batch} images, {batch // replicas} a replica{in_parts}",
        "steps": f"{steps:,}, {steps * batch:,} images in all",
        "learning rate": plan.learning_rate.describe(),
        "backbone": f"learning rate x {settings.backbone_multiplier:g}",
    }
    print_table(
        {"setting": LABEL, "value": TEXT},
        rows.items(),
        title=f"cmt train {settings.name}",
        show_header=False,
        stderr=True,
    )
    for change in plan.changes:
        _print(f"changed since the run began: {change}")


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
