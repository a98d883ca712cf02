"""A training run, from a config to checkpoints in a run directory."""

from __future__ import annotations

import functools
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
import tf_keras
from google.protobuf.message import Message

from cmt import config
from cmt.data.input.open import Data
from cmt.errors import WorkError, tensorflow_reason
from cmt.io.terminal import LABEL, TEXT, print_table
from cmt.run_files import LOGS_FOLDER, METRICS_FILE
from cmt.trainer import factory, reporting, run_directory
from cmt.trainer.callbacks import RunCallback, stop_on_signals
from cmt.trainer.checkpoint import RunCheckpoints, has_checkpoint
from cmt.trainer.schedule import PolynomialWithWarmup
from cmt.trainer.strategy import dataset_of_hosts, describe
from cmt.trainer.trainer import Trainer
from cmt.weights.load import LoadReport, load_initial_checkpoint


class Summary(NamedTuple):
    """How far a run has come.

    Attributes:
      step: updates made, over all its continuations.
      steps: updates it is meant to make.
      checkpoint: prefix of the latest checkpoint.
      last: numbers of the last log step; None if no step was made.
      signal: name of the signal that ended it early, "" if none did.
    """

    step: int
    steps: int
    checkpoint: str
    last: reporting.LogRecord | None
    signal: str


def train(experiment: Message, run_dir: Path | str, *, smoke: bool = False) -> Summary:
    """Trains the network of a config, or continues a run.

    Continuing repeats neither images nor augmentation. Random numbers inside the
    network (dropout, drop path, sampled pixels) begin anew from the seed and the step.

    Args:
      experiment: ExperimentConfig, resolved.
      run_dir: the run directory; made if it is not there, continued if it holds a run.
      smoke: only try memory and data: 2 steps, one batch of evaluation and a
        checkpoint, in a temporary folder beside `run_dir`.

    Returns:
      How far the run has come.

    Raises:
      InputError: the config, data, devices or run directory cannot be used; nothing
        was written then.
      WorkError: training failed; checkpoints stay.
    """
    run_dir = Path(run_dir)
    if not smoke:
        return _train(experiment, run_dir)
    near = next(p for p in run_dir.absolute().parents if p.is_dir())
    with tempfile.TemporaryDirectory(dir=near, prefix=".smoke-") as folder:
        return _train(factory.smoke_experiment(experiment), Path(folder))


def _train(experiment: Message, run_dir: Path) -> Summary:
    settings = factory.read_settings(experiment)
    changes = run_directory.check_config(run_dir, experiment)
    data = Data(experiment.data)
    categories = data.train.categories
    factory.check_categories(experiment, categories)
    run_directory.check_categories(run_dir, categories)
    strategy = factory.build_strategy(experiment.trainer.strategy)
    config.check(experiment, num_replicas=strategy.num_replicas_in_sync)
    tf_keras.utils.set_random_seed(settings.seed)
    with strategy.scope():
        network = factory.build_network(experiment)
        weights = _load_first_weights(network, settings, run_dir)
        trainer = factory.build_trainer(experiment, network, categories)
    checkpoints = RunCheckpoints(run_dir, trainer, keep=settings.keep_checkpoints)
    first_step = checkpoints.restore_latest()
    batches = functools.partial(
        data.train.batches,
        global_batch_size=settings.global_batch_size,
        seed=settings.seed,
        first_step=first_step,
    )
    dataset = dataset_of_hosts(strategy, batches)
    evaluate = None
    if settings.intervals.evaluate:
        evaluate = factory.build_evaluation(experiment, trainer, data, run_dir)
    run_directory.write_head(run_dir, experiment, categories)
    run_directory.drop_metrics_after(run_dir, first_step)
    if weights is not None:
        run_directory.write_weights(run_dir, weights)
    learning_rate = factory.build_schedule(experiment.trainer)
    _print_banner(settings, trainer, strategy, learning_rate)
    steps = settings.intervals.steps
    for line in weights.summary_lines() if weights else ():
        _print(line)
    if first_step:
        _print(f"continues at step {first_step} from {checkpoints.latest}")
    for change in changes:
        _print(f"changed since the run began: {change}")
    if first_step >= steps:
        _print(f"all {steps} steps are done; raise trainer.steps to go on")
        return Summary(first_step, steps, checkpoints.latest or "", None, "")
    # Not the numbers of step 0 again.
    tf.random.set_seed(settings.seed + first_step)
    callback = RunCallback(
        trainer,
        first_step=first_step,
        intervals=settings.intervals,
        global_batch_size=settings.global_batch_size,
        learning_rate=lambda step: float(learning_rate(step)),
        checkpoints=checkpoints,
        reports=_reports(run_dir, settings, first_step),
        evaluate=evaluate,
        image_names=data.train.names,
    )
    signal = _fit(trainer, dataset, callback, steps - first_step)
    return Summary(callback.step, steps, checkpoints.latest, callback.last, signal)


def _load_first_weights(
    network: tf_keras.Model, settings: factory.Settings, run_dir: Path
) -> LoadReport | None:
    """Loads the initial checkpoint; None where there is none, or a run is continued."""
    if not settings.initial_checkpoint or has_checkpoint(run_dir):
        return None
    return load_initial_checkpoint(
        network,
        settings.initial_checkpoint,
        allow_partial_backbone=settings.allow_partial_backbone,
    )


def _fit(
    trainer: Trainer,
    dataset: tf.data.Dataset | tf.distribute.DistributedDataset,
    callback: RunCallback,
    steps: int,
) -> str:
    """Makes the steps; returns the name of the signal that ended them, or ""."""
    callbacks = tf_keras.callbacks.CallbackList(
        [callback], add_history=True, model=trainer, steps=steps
    )
    # Or Keras warns that evaluations and checkpoints take longer than a step.
    callbacks._check_timing = False
    try:
        with stop_on_signals(trainer) as signals:
            trainer.fit(
                dataset,
                epochs=1,
                steps_per_epoch=steps,
                verbose=0,
                callbacks=callbacks,
            )
        if signals:
            callback.save()
    except tf.errors.ResourceExhaustedError as error:
        raise WorkError(
            f"out of memory at step {callback.step + 1} ({tensorflow_reason(error)}); "
            "lower trainer.global_batch_size or the crop size"
        ) from error
    except tf.errors.OpError as error:
        raise WorkError(
            f"training stopped at step {callback.step + 1}: {tensorflow_reason(error)}"
        ) from error
    finally:
        callback.close()
    return signals[0] if signals else ""


def _reports(
    run_dir: Path, settings: factory.Settings, first_step: int
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
        reporting.TensorBoardLogs(run_dir / LOGS_FOLDER),
    ]


def _print_banner(
    settings: factory.Settings,
    trainer: Trainer,
    strategy: tf.distribute.Strategy,
    learning_rate: PolynomialWithWarmup,
) -> None:
    replicas = strategy.num_replicas_in_sync
    batch, steps = settings.global_batch_size, settings.intervals.steps
    parameters = sum(v.shape.num_elements() for v in trainer.network.trainable_weights)
    rows = {
        "model": f"{trainer.network.name}, {parameters:,} trainable parameters",
        "devices": describe(strategy),
        "batch": f"{batch} images, {batch // replicas} a replica",
        "steps": f"{steps:,}, {steps * batch:,} images in all",
        "learning rate": f"{learning_rate.base:g}, backbone x "
        f"{settings.backbone_multiplier:g}",
        "warm-up": f"{learning_rate.warmup_steps:,} steps, then power "
        f"{learning_rate.power:g}",
    }
    print_table(
        {"setting": LABEL, "value": TEXT},
        rows.items(),
        title=f"cmt train {settings.name}",
        show_header=False,
        stderr=True,
    )


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
