"""`cmt data`: make, check, convert and look at data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cmt.data.inspect import Inspection
    from cmt.data.problems import Problem

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_IMAGES = typer.Option(metavar="DIR", help="Folder of the images.")
_ANNOTATIONS = typer.Option(metavar="JSON", help="COCO panoptic annotations.")
_MASKS = typer.Option(metavar="DIR", help="Folder of the PNG files of the json.")
_WORKERS = typer.Option(min=0, help="Processes; 0 for one a processor.")
_OVERWRITE = typer.Option("--overwrite", help="Replace what is there.")


@app.callback()
def data() -> None:
    """Make, check, convert and look at panoptic data sets.

    \b
    Example:
      cmt data scenes --output scenes --train 2000 --val 200
    """


@app.command()
def scenes(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")],
    train: Annotated[int, typer.Option(min=0, help="Images to train on.")] = 2000,
    val: Annotated[int, typer.Option(min=0, help="Images to evaluate on.")] = 200,
    size: Annotated[int, typer.Option(min=33, help="Side of an image in pixels.")] = 97,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    crowd_or_void: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of images with crowd or void areas."),
    ] = 0.2,
    workers: Annotated[int, _WORKERS] = 0,
    overwrite: Annotated[bool, _OVERWRITE] = False,
) -> None:
    """Generate a panoptic data set: shapes on textured ground, in COCO's layout.

    Writes images/{split}/, annotations/panoptic_{split}.json and
    annotations/panoptic_{split}/*.png for the splits train and val. The files
    depend on the seed and not on the number of processes.

    \b
    Example:
      cmt data scenes --output scenes --train 2000 --val 200 --seed 1
    """
    from cmt.data.scenes import generate_scenes

    generate_scenes(
        output,
        train=train,
        val=val,
        size=size,
        seed=seed,
        crowd_or_void=crowd_or_void,
        workers=workers,
        overwrite=overwrite,
    )
    print(f"wrote {train} images to train on and {val} to evaluate on to {output}")


@app.command()
def validate(
    images: Annotated[Path, _IMAGES],
    annotations: Annotated[Path, _ANNOTATIONS],
    masks: Annotated[Path, _MASKS],
    workers: Annotated[int, _WORKERS] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a list of problems as json.")
    ] = False,
) -> None:
    """Check a COCO panoptic data set and report all problems; exit code 1 if any.

    A json or folder that is not there is wrong usage, exit code 2.

    \b
    Example:
      cmt data validate --images val2017 --annotations panoptic_val2017.json \\
        --masks panoptic_val2017
    """
    from cmt.data.validate import validate as find_problems

    problems = find_problems(
        images=images, annotations=annotations, masks=masks, workers=workers
    )
    if as_json:
        print(json.dumps([problem.to_json() for problem in problems], indent=2))
    else:
        _print_problems(problems)
    if problems:
        raise typer.Exit(1)


def _print_problems(problems: list[Problem]) -> None:
    import collections

    from rich.console import Console
    from rich.table import Table

    if not problems:
        print("no problems")
        return
    for problem in sorted(problems, key=lambda problem: problem.kind):
        print(f"{problem.kind}: {problem.line}")
    table = Table("problem", "times")
    kinds = collections.Counter(problem.kind for problem in problems)
    for kind, times in kinds.most_common():
        table.add_row(kind, str(times))
    table.add_section()
    table.add_row("all", str(len(problems)))
    Console().print(table)


@app.command()
def convert(
    images: Annotated[Path, _IMAGES],
    annotations: Annotated[Path, _ANNOTATIONS],
    masks: Annotated[Path, _MASKS],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the shards.")],
    split: Annotated[
        str, typer.Option(metavar="NAME", help="First part of the shards' names.")
    ],
    shards: Annotated[
        int,
        typer.Option(min=0, help="Files; 0 for one a 1000 images or 128 MiB."),
    ] = 0,
    workers: Annotated[int, _WORKERS] = 0,
    limit: Annotated[
        int, typer.Option(min=0, help="Only the first images; 0 for all.")
    ] = 0,
    keep_crowd: Annotated[
        bool,
        typer.Option(
            "--keep-crowd", help="Crowd keeps its class, without instance, not void."
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep finished shards that are still current."),
    ] = False,
    overwrite: Annotated[bool, _OVERWRITE] = False,
) -> None:
    """Write TFRecord shards and a manifest from COCO panoptic data.

    \b
    Example:
      cmt data convert --images val2017 --annotations panoptic_val2017.json \\
        --masks panoptic_val2017 --output tfrecords --split val
    """
    from cmt.data.convert import convert as write_shards

    manifest = write_shards(
        images=images,
        annotations=annotations,
        masks=masks,
        output=output,
        split=split,
        shards=shards,
        workers=workers,
        limit=limit,
        keep_crowd=keep_crowd,
        resume=resume,
        overwrite=overwrite,
    )
    print(
        f"wrote {manifest.num_images} images in {len(manifest.shards)} shards and "
        f"{split}.manifest.json to {output}"
    )


@app.command()
def inspect(
    tfrecords: Annotated[
        list[str],
        typer.Argument(
            metavar="TFRECORDS", help="Shards, a pattern, or a folder of them."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for pictures of the first images."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a list of splits as json.")
    ] = False,
) -> None:
    """Count images and classes in TFRecords, check them, and draw some.

    With --output, DIR/{split}.png shows the first images, and their segments below
    them in the colours of their classes.

    \b
    Example:
      cmt data inspect tfrecords/val-*.tfrecord --output pictures
    """
    from cmt.data.inspect import find_sources
    from cmt.data.inspect import inspect as look

    splits = [look(source, output=output) for source in find_sources(tfrecords)]
    if as_json:
        print(json.dumps([split.to_json() for split in splits], indent=2))
        return
    for split in splits:
        _print_inspection(split)
        if output is not None:
            print(f"pictures: {output / f'{split.split}.png'}")


def _print_inspection(split: Inspection) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    pixels = max(split.pixels, 1)
    print(
        f"{split.split}: {split.images} images in {split.shards} shards, at most "
        f"{split.most_masks} masks an image, "
        f"{100 * split.void_pixels / pixels:.1f} % void"
    )
    table = Table(
        "class",
        "kind",
        *(
            Column(name, justify="right")
            for name in ("id", "images", "instances", "% of pixels")
        ),
    )
    for count in split.classes:
        table.add_row(
            count.category.name,
            "thing" if count.category.is_thing else "stuff",
            str(count.category.id),
            str(count.images),
            str(count.instances),
            f"{100 * count.pixels / pixels:.2f}",
        )
    Console().print(table)
