"""Claim: what a run does beside the compiled step takes below 5% of its time.

    python benchmarks/host_overhead.py [--config scenes/tiny] [--steps 50] [--rounds 5]

A round is a `fit` on batches from memory with the callback of a run and its logs (a
line, metrics file, TensorBoard) at the config's interval, the last one at its end. Of
its time, what passes outside calls of the compiled function is the overhead: both are
timed step by step in one run, so that other work on the machine falls on both.
Checkpoints and evaluations, which a run pays for by choice, are left out, and so is
decoding.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tiny_step import made_up_dataset

from cmt.config import load_experiment
from cmt.data.panoptic.categories import Category
from cmt.trainer import factory, reporting
from cmt.trainer.callbacks import RunCallback
from cmt.trainer.checkpoint import RunCheckpoints


def build(experiment):
    """The trainer of a config, with made-up classes."""
    with factory.build_strategy(experiment.trainer.strategy).scope():
        categories = [
            Category(i, f"c{i}", i % 2 == 0, (i, 0, 0))
            for i in range(1, experiment.model.num_classes + 1)
        ]
        network = factory.build_network(experiment)
        return factory.build_trainer(experiment, network, categories)


def make_callback(experiment, trainer, folder: pathlib.Path) -> RunCallback:
    """The callback of a run that logs and does nothing else."""
    settings = factory.read_settings(experiment)
    batch = settings.global_batch_size
    never = 10**9
    callback = RunCallback(
        trainer,
        first_step=0,
        intervals=settings.intervals._replace(
            steps=never, checkpoint=never, evaluate=0
        ),
        global_batch_size=batch,
        learning_rates=lambda step: (0.0, 0.0),
        checkpoints=RunCheckpoints(folder, trainer, keep=1),
        evaluate=None,
    )
    callback.reports = [
        reporting.LogLines(steps=never, global_batch_size=batch),
        reporting.MetricsFile(folder / "metrics.jsonl"),
        reporting.TensorBoardLogs(folder, config_text=""),
    ]
    return callback


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="scenes/tiny")
    parser.add_argument("--steps", type=int, default=50, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    experiment = load_experiment(options.config)
    trainer = build(experiment)
    dataset = made_up_dataset(experiment, experiment.trainer.global_batch_size)
    step, inside = trainer.make_train_function(), []

    def timed(iterator):
        start = time.perf_counter()
        result = step(iterator)
        inside.append(time.perf_counter() - start)
        return result

    trainer.train_function = timed
    shares = []
    with (
        tempfile.TemporaryDirectory() as folder,
        pathlib.Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stderr(nowhere),
    ):
        callback = make_callback(experiment, trainer, pathlib.Path(folder))
        for number in range(options.rounds + 1):
            inside.clear()
            start = time.perf_counter()
            trainer.fit(
                dataset, steps_per_epoch=options.steps, verbose=0, callbacks=[callback]
            )
            whole = time.perf_counter() - start
            if number:  # The first one builds graphs.
                shares.append(1 - sum(inside) / whole)
                milliseconds = 1e3 * whole / options.steps
                print(f"{milliseconds:.1f} ms a step, {shares[-1]:.2%} outside it")
        callback.close()
    print(
        f"outside the compiled step: median {statistics.median(shares):.2%} of "
        f"{options.rounds} rounds ({min(shares):.2%} to {max(shares):.2%})"
    )


if __name__ == "__main__":
    main()
