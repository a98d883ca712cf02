"""`cmt export`: a checkpoint as a SavedModel."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cmt.cli.options import Config, Overrides
from cmt.cli.paths import local_path


def export(
    config: Config,
    checkpoint: Annotated[
        Path,
        typer.Option(
            parser=local_path,
            metavar="DIR_OR_PREFIX",
            help="A run directory, a folder of checkpoints (the latest is taken), or "
            "the prefix of one; of this package or of DeepLab2 (MaX-DeepLab-S).",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            parser=local_path,
            metavar="DIR/NAME",
            help="NAME is the model's; a version goes below it.",
        ),
    ],
    overrides: Overrides = None,
) -> None:
    """Write DIR/NAME/VERSION/ for TensorFlow Serving, and prove that it is equal.

    A new process loads it with TensorFlow alone; unless its integers are those of the
    evaluation, nothing is left under the final name.

    \b
    Example:
      cmt export runs/tiny/config.textproto --checkpoint runs/tiny --output models/tiny
    """
    from cmt.config import load_experiment
    from cmt.serving.factory import export_checkpoint

    experiment = load_experiment(config, overrides or ())
    target = export_checkpoint(experiment, checkpoint, output)
    print(f"SavedModel  {target}")
    print("parity      equal in a new process that imports TensorFlow alone")
    model = shlex.quote(str(target.parent))
    print(f"next        cmt predict {model} IMAGE --output predictions")
