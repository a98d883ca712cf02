"""`cmt train`: trains a network, or continues a run."""

from __future__ import annotations

import pathlib
import shlex
import sys
from typing import Annotated

import typer

from cmt.cli.options import Config, Overrides
from cmt.cli.paths import local_path

_INTERRUPTED = 130
# EX_TEMPFAIL of sysexits.h: for schedulers, which start such a command again.
_PREEMPTED = 75


def train(
    config: Config,
    output: Annotated[
        pathlib.Path,
        typer.Option(
            "--output",
            parser=local_path,
            metavar="DIR",
            help="The run directory; if it holds a run, training continues it.",
        ),
    ],
    overrides: Overrides = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Same as --set trainer.seed=SEED."),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Only try memory and data: 2 steps, one batch of evaluation and a "
            "checkpoint, in a temporary folder.",
        ),
    ] = False,
    new_schedule: Annotated[
        bool,
        typer.Option(
            "--new-schedule",
            help="Continue a run with another trainer.steps than it began with, though "
            "its learning rate jumps.",
        ),
    ] = False,
) -> None:
    """Train the network of a config.

    \b
    Example:
      cmt train scenes/tiny --output runs/first --set trainer.steps=200
    """
    from cmt.config import load_experiment
    from cmt.run_files import CONFIG_FILE, EVALUATION_FOLDER

    seeds = [] if seed is None else [f"trainer.seed={seed}"]
    experiment = load_experiment(config, [*(overrides or ()), *seeds])

    from cmt.trainer.train import train as run

    summary = run(experiment, output, smoke=smoke, new_schedule=new_schedule)
    if summary.signal:
        print(
            f"stopped by {summary.signal} at step {summary.step} of {summary.steps}, "
            f"checkpoint {summary.checkpoint}; run the same command again to go on",
            file=sys.stderr,
        )
        raise typer.Exit(_PREEMPTED if summary.signal == "SIGTERM" else _INTERRUPTED)
    if smoke:
        print(f"smoke run passed: {summary.steps} steps, checkpoint and evaluation")
        return
    print(f"step {summary.step} of {summary.steps}, checkpoint {summary.checkpoint}")
    if summary.best:
        print(f"best: PQ {summary.best.pq:.2f} at step {summary.best.step}, kept too")
    words = ["cmt", "eval", output / CONFIG_FILE, "--checkpoint", output]
    words += ["--output", output / EVALUATION_FOLDER / str(summary.step)]
    print(f"next: {shlex.join(map(str, words))}")
