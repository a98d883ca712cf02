"""`cmt demo`: everything once, on generated scenes."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from cmt.cli.paths import local_path


def demo(
    output: Annotated[
        pathlib.Path,
        typer.Option(
            parser=local_path,
            metavar="DIR",
            help="Gets everything; must be new or empty.",
        ),
    ] = pathlib.Path("demo"),
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            help="Minutes of training; a short trial measures how many steps that is.",
            show_default="2,300 steps",
        ),
    ] = None,
    train: Annotated[int, typer.Option(min=1, help="Scenes to train on.")] = 4000,
    val: Annotated[int, typer.Option(min=1, help="Scenes to evaluate on.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of scenes and training.")] = 0,
) -> None:
    """Make scenes, train on them, evaluate, export, and serve predictions.

    Every step is a command you can type yourself; commands.sh in the output lists
    them.

    \b
    Example:
      cmt demo --output demo --minutes 3
    """
    from cmt.cli.demo_run import run_demo
    from cmt.cli.evaluate import print_metrics

    summary = run_demo(output, minutes=minutes, train=train, val=val, seed=seed)
    print()
    print_metrics(summary.metrics, output / "evaluation")
    print(
        f"{summary.steps} steps; {summary.seconds / 60:.1f} minutes in all\n"
        f"served maps equal to the evaluator's: {summary.served_images} of "
        f"{summary.served_images} images, every pixel\n"
        f"learning curve: {output / 'learning_curve.png'}\n"
        f"pictures:       {output / 'pictures.png'} (image, ground truth, prediction, "
        "clustering by layer)\n"
        f"attention:      {output / 'attention.png'} (what a center attends to, "
        "and its cluster)\n"
        f"overlays:       {output / 'served'}\n"
        f"the commands:   {output / 'commands.sh'}"
    )
