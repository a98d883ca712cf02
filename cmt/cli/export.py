"""`cmt export`: a checkpoint as a SavedModel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cmt.protos import experiment_pb2

_SAMPLE_IMAGES = 2


def export(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A textproto file, or the name of a config of the package.",
        ),
    ],
    checkpoint: Annotated[
        Path,
        typer.Option(
            metavar="DIR_OR_PREFIX",
            help="A run directory, a folder of checkpoints (the latest is taken), or "
            "the prefix of one.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            metavar="DIR/NAME", help="NAME is the model's; a version goes below it."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a field; repeatable."),
    ] = None,
) -> None:
    """Write DIR/NAME/VERSION/ for TensorFlow Serving, and prove that it is equal.

    A new process loads it with TensorFlow alone; unless its integers are those of the
    evaluation, nothing is left under the final name.

    \b
    Example:
      cmt export runs/tiny/config.textproto --checkpoint runs/tiny --output models/tiny
    """
    from cmt.config import load_experiment

    experiment = load_experiment(config, overrides or ())
    target = export_checkpoint(experiment, checkpoint, output)
    print(f"SavedModel  {target}")
    print("parity      equal in a new process that imports TensorFlow alone")
    print(f"next        cmt predict {target.parent} IMAGE --output predictions")


def export_checkpoint(
    experiment: experiment_pb2.ExperimentConfig,
    checkpoint: Path | str,
    directory: Path | str,
) -> Path:
    """Exports a checkpoint to `directory`/VERSION; see `trainer.export.export_model`.

    Returns:
      The version folder.
    """
    import tensorflow as tf

    from cmt.config import to_text
    from cmt.errors import InputError
    from cmt.evaluation.factory import load_predictor, validation_images
    from cmt.trainer.export import export_model, made_up_images, version_folder

    options = experiment.export
    version_folder(directory, options.version)  # Refused now and not after the work.
    # The process that checks the model runs on the CPU, and this one has to agree.
    with tf.device("/CPU:0"):
        predictor, step = load_predictor(experiment, checkpoint)
        samples = made_up_images(predictor.crop_size)
        try:
            real = validation_images(experiment, _SAMPLE_IMAGES)
        except InputError:
            real = []  # The data set need not be where a model is exported.
        samples = [tf.io.encode_png(image).numpy() for image, _ in real] + samples
        return export_model(
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
