"""Claim, not yet measured: what a run does beside the compiled step is below 5% of it.

    python benchmarks/host_overhead.py [--config scenes/tiny] [--steps 40] [--rounds 5]

Rounds of steps take turns: the compiled function alone, on batches from memory; and
`fit` on the same batches, with the callback of a run and its logs (console, metrics
file, TensorBoard) at the config's interval. Checkpoints and evaluations, which a run
pays for by choice, are left out, and so is decoding.
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
    parser.add_argument("--steps", type=int, default=40, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    experiment = load_experiment(options.config)
    trainer = build(experiment)
    dataset = made_up_dataset(experiment, experiment.trainer.global_batch_size)
    step, batches = trainer.make_train_function(), iter(dataset)

    def alone() -> None:
        for _ in range(options.steps):
            step(batches)
        trainer.step.numpy()

    ratios = []
    with (
        tempfile.TemporaryDirectory() as folder,
        pathlib.Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stderr(nowhere),
    ):
        callback = make_callback(experiment, trainer, pathlib.Path(folder))

        def loop() -> None:
            trainer.fit(
                dataset,
                steps_per_epoch=options.steps,
                verbose=0,
                callbacks=[callback],
            )
            trainer.step.numpy()

        for number in range(options.rounds + 1):
            seconds = []
            for run in (alone, loop):
                start = time.perf_counter()
                run()
                seconds.append((time.perf_counter() - start) / options.steps)
            if number:  # The first one builds graphs.
                ratios.append(seconds[1] / seconds[0] - 1)
                first, second = (1e3 * s for s in seconds)
                print(f"ms a step: alone {first:.1f}, loop {second:.1f}", flush=True)
        callback.close()
    print(
        f"overhead of the loop: median {statistics.median(ratios):.1%} of "
        f"{options.rounds} rounds ({min(ratios):.1%} to {max(ratios):.1%})"
    )


if __name__ == "__main__":
    main()
