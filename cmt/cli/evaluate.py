"""`cmt eval`: the scores of a checkpoint."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

from cmt.cli.options import Overrides, config_argument
from cmt.cli.paths import local_path


class Split(str, enum.Enum):
    """The images to predict."""

    VAL = "val"
    TEST = "test"


def evaluate(
    config: Annotated[str | None, config_argument("[CONFIG]")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            parser=local_path,
            metavar="DIR_OR_PREFIX",
            help="A run directory, a folder of checkpoints (the latest is taken), or "
            "the prefix of one; of this package or of DeepLab2 (MaX-DeepLab-S).",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            parser=local_path,
            metavar="DIR",
            help="Gets report.html, metrics.json, per_image.csv and predictions/.",
        ),
    ] = None,
    watched: Annotated[
        Path | None,
        typer.Option(
            "--watch",
            parser=local_path,
            metavar="RUN",
            help="Instead of CONFIG, --checkpoint and --output: follow a training to "
            "its end, and evaluate each new checkpoint into RUN/eval/STEP.",
        ),
    ] = None,
    split: Annotated[
        Split,
        typer.Option(
            help="val: data.validation, with scores; test: data.test, without."
        ),
    ] = Split.VAL,
    packs: Annotated[
        bool,
        typer.Option("--zip", help="Write the file that COCO's server takes, too."),
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Evaluate on data.validation: PQ, mask AP, mIoU, and predictions as COCO files.

    Test images have no annotations here: --split test writes predictions alone, and
    with --zip the file to submit.

    \b
    Examples:
      cmt eval runs/tiny/config.textproto --checkpoint runs/tiny --output runs/tiny/eval
      cmt eval runs/r50/config.textproto --checkpoint runs/r50 --output runs/r50/test \\
        --split test --zip --set 'data.test.images="coco/test2017"' \\
        --set 'data.test.list="coco/annotations/image_info_test-dev2017.json"'
      cmt eval --watch runs/r50
    """
    if watched is not None:
        if config or checkpoint or output or packs or split is not Split.VAL:
            raise typer.BadParameter(
                "--watch RUN takes config and checkpoints from RUN and writes there; "
                "it goes with --set alone"
            )
        from cmt.cli.watch import follow

        follow(watched, overrides or ())
        return
    given = {"CONFIG": config, "--checkpoint": checkpoint, "--output": output}
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise typer.BadParameter(
            f"{', '.join(missing)} missing, and there is no --watch RUN"
        )
    _evaluate_one(config, checkpoint, output, split, packs, overrides)


def _evaluate_one(
    config: str,
    checkpoint: Path,
    output: Path,
    split: Split,
    packs: bool,
    overrides: list[str] | None,
) -> None:
    from cmt.config import load_experiment
    from cmt.data.input.open import Data
    from cmt.evaluation.factory import open_evaluation, open_test_set
    from cmt.evaluation.submission import predict_test_set, set_name, write_submission
    from cmt.serving.factory import load_predictor
    from cmt.serving.inputs import decode_file

    experiment = load_experiment(config, overrides or ())
    data = Data(experiment.data)
    # What is listed is looked at before the network is built.
    test_set = open_test_set(experiment) if split is Split.TEST else None
    predictor, step = load_predictor(experiment, data, checkpoint)
    if test_set is not None:
        name = test_set.name
        predict_test_set(predictor, test_set, output, decode_file)
        print(f"predictions  {output / 'predictions' / 'panoptic.json'}")
    else:
        evaluation = open_evaluation(experiment, data.validation, predictor.categories)
        name = set_name(evaluation.ground_truth.file.path)
        metrics = evaluation.run(predictor, output, step=step, report=True)
        print_metrics(metrics, output)
    if packs:
        print(f"submission   {write_submission(output, name, experiment.name)}")


def print_metrics(metrics: dict[str, Any], output: Path) -> None:
    """Prints the scores as tables, and where the files are."""
    from cmt.cli.score import print_tables

    print_tables(metrics["panoptic"])
    print(
        f"{metrics['num_images']} images at {metrics['images_per_second']:.2f} images/s"
        f", step {metrics['step']}"
    )
    print(f"report       {output / 'report.html'}")
    print(f"scores       {output / 'metrics.json'}")
    print(f"by image     {output / 'per_image.csv'}")
    print(f"predictions  {output / 'predictions' / 'panoptic.json'}")
