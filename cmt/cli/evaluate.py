"""`cmt eval`: the scores of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cmt.cli.options import Config, Overrides
from cmt.cli.paths import local_path


def evaluate(
    config: Config,
    checkpoint: Annotated[
        Path,
        typer.Option(
            parser=local_path,
            metavar="DIR_OR_PREFIX",
            help="A run directory, a folder of checkpoints (the latest is taken), or "
            "the prefix of one.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            parser=local_path,
            metavar="DIR",
            help="Gets predictions/, metrics.json and per_image.csv.",
        ),
    ],
    overrides: Overrides = None,
) -> None:
    """Evaluate on data.validation: PQ, mask AP, mIoU, and predictions as COCO files.

    \b
    Example:
      cmt eval runs/tiny/config.textproto --checkpoint runs/tiny --output runs/tiny/eval
    """
    from cmt.config import load_experiment
    from cmt.data.input.open import Data
    from cmt.evaluation.factory import open_evaluation
    from cmt.serving.factory import load_predictor

    experiment = load_experiment(config, overrides or ())
    data = Data(experiment.data)
    predictor, step = load_predictor(experiment, data, checkpoint)
    evaluation = open_evaluation(experiment, data.validation, predictor.categories)
    metrics = evaluation.run(predictor, output, step=step)
    print_metrics(metrics, output)


def print_metrics(metrics: dict[str, Any], output: Path) -> None:
    """Prints the scores as tables, and where the files are."""
    from cmt.cli.score import print_tables

    print_tables(metrics["panoptic"])
    print(
        f"{metrics['num_images']} images at {metrics['images_per_second']:.2f} images/s"
        f", step {metrics['step']}"
    )
    print(f"scores       {output / 'metrics.json'}")
    print(f"by image     {output / 'per_image.csv'}")
    print(f"predictions  {output / 'predictions' / 'panoptic.json'}")
