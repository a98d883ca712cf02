"""`cmt predict`: panoptic maps of images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmt.cli.paths import local_path

if TYPE_CHECKING:
    from cmt.serving.predict import Outcome

_ROWS_SHOWN = 20

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUTS...",
        help="Images (JPEG, PNG and others), folders of them, patterns; - reads their "
        "paths from standard input, one a line.",
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        parser=local_path,
        metavar="DIR_OR_PREFIX",
        help="The weights, of this package or of DeepLab2 (MaX-DeepLab-S), where MODEL "
        "is a config.",
    ),
]
_Formats = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="overlay,coco",
        help="overlay: pictures with coloured segments and class names, as PNG; "
        "overlay-jpeg: the same as JPEG, smaller and sooner written; coco: "
        "panoptic.json and panoptic/*.png; npz: the outputs of the model, a file an "
        "image.",
    ),
]


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            parser=local_path,
            metavar="MODEL",
            help="A SavedModel, the folder of its versions (the highest is taken), or "
            "a run directory of `cmt train` (its latest checkpoint is taken). With "
            "--checkpoint, a config.",
        ),
    ],
    inputs: Inputs,
    output: Annotated[
        Path,
        typer.Option(
            parser=local_path, metavar="DIR", help="Gets pictures and json files."
        ),
    ],
    checkpoint: Checkpoint = None,
    formats: _Formats = "overlay,coco",
    page: Annotated[
        bool,
        typer.Option("--html", help="Write index.html, a page to look through."),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print predictions.json instead of a table."),
    ] = False,
) -> None:
    """Segment images and write pictures and COCO panoptic files.

    A file that is no image is reported and left out; the others are done, and the exit
    code is 1.

    \b
    Examples:
      cmt predict models/tiny holiday.jpg --output out
      cmt predict runs/tiny photos/ 'more/*.png' --output out --format overlay
      cmt predict coco/max_deeplab_s_relu_641 photos/ --output out \\
        --checkpoint max_deeplab_s/ckpt-100000
      cmt predict runs/tiny photos/ --output out --format overlay-jpeg --html
      find photos -name '*.jpg' | cmt predict runs/tiny - --output out
    """
    from cmt.serving.factory import open_model
    from cmt.serving.inputs import find_inputs
    from cmt.serving.predict import check_formats, parse_formats, predict_files

    wanted, files = parse_formats(formats), find_inputs(inputs)
    check_formats(wanted, page=page)
    opened = open_model(model, checkpoint)
    outcome = predict_files(opened, files, output, formats=wanted, page=page)
    if as_json:
        print(json.dumps(outcome.to_json(), indent=1))
    else:
        _print_table(outcome, output)
    report_unreadable(outcome)


def report_unreadable(outcome: Outcome) -> None:
    """Names the files that are no images.

    Raises:
      WorkError: there are some.
    """
    from cmt.errors import WorkError

    unreadable = outcome.unreadable
    for file, reason in unreadable:
        print(f"skipped {file}: {reason}", file=sys.stderr)
    if unreadable:
        number = len(unreadable) + len(outcome.images)
        raise WorkError(
            f"{len(unreadable)} of {number} files are no images that can be read, the "
            f"first is {unreadable[0][0]}; the others are done"
        )


def _print_table(outcome: Outcome, output: Path) -> None:
    from collections import Counter

    from cmt.io.terminal import TEXT, print_table

    rows = []
    for entry in outcome.images[:_ROWS_SHOWN]:
        counts = Counter(segment["category"] for segment in entry["segments"])
        found = (
            f"{number} {name}" if number > 1 else name
            for name, number in counts.most_common()
        )
        rows.append((entry["file"], ", ".join(found) or "none"))
    print_table({"image": TEXT, "segments": TEXT}, rows)
    if len(outcome.images) > _ROWS_SHOWN:
        print(f"and {len(outcome.images) - _ROWS_SHOWN} more images")
    print(f"results  {output}, segments in {output / 'predictions.json'}")
