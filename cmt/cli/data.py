"""`cmt data`: make, check, convert and look at data sets."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmt.cli.data_inspect import inspect
from cmt.cli.options import Things

if TYPE_CHECKING:
    from cmt.data.convert.convert import Maker

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_IMAGES = typer.Option(metavar="DIR", help="Folder of the images.")
_ANNOTATIONS = typer.Option(metavar="JSON", help="COCO panoptic annotations.")
_MASKS = typer.Option(metavar="DIR", help="Folder of the PNG files of the json.")
_DATASET = typer.Option(
    metavar="NAME",
    help="In place of the three paths: coco, cityscapes or ade20k, with --root; or "
    "the manifest of a converted split.",
)
_ROOT = typer.Option(metavar="DIR", help="Where the files of --dataset are.")
_CATEGORY_OFFSET = typer.Option(
    min=0, metavar="N", help="Added to all category ids; 1 for a json that has id 0."
)
_STRICT = typer.Option(
    "--strict",
    help="Refuse what contradicts the PNG or is missing, where its pixels say it.",
)
_WORKERS = typer.Option(min=0, help="Processes; 0 for one a processor.")
_OVERWRITE = typer.Option("--overwrite", help="Replace what is there.")
_MAX_BAD = typer.Option(min=0, help="Leave out up to so many images with problems.")
_KEEP_CROWD = typer.Option(
    "--keep-crowd", help="Crowd keeps its class, without instance, not void."
)
_RESUME = typer.Option("--resume", help="Keep finished shards that are still current.")
_BEAM = typer.Option(
    metavar="OPTIONS",
    help="Run as an Apache Beam pipeline with these options, such as "
    "'--runner=DirectRunner'; needs cmt-deeplab[beam].",
)


@app.callback()
def data() -> None:
    """Make, check, convert and look at panoptic data sets.

    \b
    Example:
      cmt data scenes --output scenes --train 2000 --val 200
    """


class SceneLevel(str, enum.Enum):
    """The keys of `cmt.data.scenes.levels.LEVELS`."""

    EASY = "easy"
    MIDDLE = "middle"
    HARD = "hard"


@app.command()
def scenes(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")],
    level: Annotated[
        SceneLevel,
        typer.Option(help="How many, small and close together the things are."),
    ] = SceneLevel.MIDDLE,
    train: Annotated[int, typer.Option(min=0, help="Images to train on.")] = 2000,
    val: Annotated[int, typer.Option(min=0, help="Images to evaluate on.")] = 200,
    size: Annotated[
        int, typer.Option(min=33, help="Side of an image in pixels.")
    ] = 193,
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
    depend on the seed and not on the number of processes. docs/scenes.md describes the
    levels, and the benchmark that they are.

    \b
    Example:
      cmt data scenes --output scenes --train 2000 --val 200 --seed 1
      cmt data scenes --output hard --level hard --train 4000
    """
    from cmt.data.scenes.generate import generate_scenes
    from cmt.data.scenes.levels import LEVELS

    generate_scenes(
        output,
        train=train,
        val=val,
        size=size,
        seed=seed,
        crowd_or_void=crowd_or_void,
        level=LEVELS[level.value],
        workers=workers,
        overwrite=overwrite,
    )
    print(f"wrote {train} images to train on and {val} to evaluate on to {output}")


class Exif(str, enum.Enum):
    """How EXIF orientations are taken."""

    AUTO = "auto"
    APPLY = "apply"
    IGNORE = "ignore"


_EXIF = typer.Option(
    help="EXIF orientation: apply it, ignore it, or auto, whichever fits the masks. "
    "[default: auto, or that of the manifest]"
)


@app.command()
def validate(
    images: Annotated[str | None, _IMAGES] = None,
    annotations: Annotated[str | None, _ANNOTATIONS] = None,
    masks: Annotated[str | None, _MASKS] = None,
    dataset: Annotated[str | None, _DATASET] = None,
    root: Annotated[str | None, _ROOT] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Split of --dataset: train, val.")
    ] = "val",
    exif: Annotated[Exif | None, _EXIF] = None,
    category_offset: Annotated[int | None, _CATEGORY_OFFSET] = None,
    things: Things = None,
    strict: Annotated[bool, _STRICT] = False,
    num_centers: Annotated[
        int,
        typer.Option(
            min=1, max=255, help="Of the model; images with more masks are noted."
        ),
    ] = 128,
    examples: Annotated[
        int, typer.Option(min=0, help="Lines to print of each kind; 0 for all.")
    ] = 10,
    workers: Annotated[int, _WORKERS] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print counts and all problems as json.")
    ] = False,
) -> None:
    """Check a COCO panoptic data set and report all problems; exit code 1 if any.

    Notes are no problems: conversion takes care of them, or they only say something
    about the data. A json or folder that is not there is wrong usage, exit code 2.
    Paths may be local or what TensorFlow reads, such as gs://.

    \b
    Example:
      cmt data validate --images val2017 --annotations panoptic_val2017.json \\
        --masks panoptic_val2017
      cmt data validate --dataset coco --root coco --split val
    """
    from cmt.cli.data_paths import named_paths, with_reading
    from cmt.cli.data_report import print_validation
    from cmt.data.checks.report import validate as check

    paths = named_paths(images, annotations, masks, dataset, root, split)
    paths = with_reading(paths, exif and exif.value, category_offset, things, strict)
    found = check(paths, workers=workers, num_centers=num_centers)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        print_validation(found, examples)
    if found.problems:
        raise typer.Exit(1)


@app.command()
def convert(
    output: Annotated[str, typer.Option(metavar="DIR", help="Folder of the shards.")],
    split: Annotated[
        str, typer.Option(metavar="NAME", help="First part of the shards' names.")
    ],
    images: Annotated[str | None, _IMAGES] = None,
    annotations: Annotated[str | None, _ANNOTATIONS] = None,
    masks: Annotated[str | None, _MASKS] = None,
    dataset: Annotated[str | None, _DATASET] = None,
    root: Annotated[str | None, _ROOT] = None,
    shards: Annotated[
        int, typer.Option(min=0, help="Files; 0 for one for 200 MB.")
    ] = 0,
    workers: Annotated[int, _WORKERS] = 0,
    limit: Annotated[
        int, typer.Option(min=0, help="Only the first images; 0 for all.")
    ] = 0,
    keep_crowd: Annotated[bool, _KEEP_CROWD] = False,
    exif: Annotated[Exif | None, _EXIF] = None,
    category_offset: Annotated[int | None, _CATEGORY_OFFSET] = None,
    things: Things = None,
    strict: Annotated[bool, _STRICT] = False,
    max_bad: Annotated[int, _MAX_BAD] = 0,
    resume: Annotated[bool, _RESUME] = False,
    overwrite: Annotated[bool, _OVERWRITE] = False,
    beam: Annotated[str | None, _BEAM] = None,
) -> None:
    """Write TFRecord shards and a manifest from COCO panoptic data.

    A conversion that was interrupted, killed or stopped by a fault continues with
    --resume and the same options. Paths may be local or what TensorFlow reads, such
    as gs://.

    \b
    Example:
      cmt data convert --images val2017 --annotations panoptic_val2017.json \\
        --masks panoptic_val2017 --output tfrecords --split val
      cmt data convert --dataset coco --root coco --output tfrecords --split val
    """
    from cmt.cli.data_convert import print_conversion, stoppable
    from cmt.cli.data_paths import named_paths, with_reading
    from cmt.data.convert import convert as conversion

    paths = named_paths(images, annotations, masks, dataset, root, split)
    paths = with_reading(paths, exif and exif.value, category_offset, things, strict)
    options = conversion.ConvertOptions(
        shards=shards,
        limit=limit,
        keep_crowd=keep_crowd,
        max_bad=max_bad,
        resume=resume,
        overwrite=overwrite,
    )
    maker = _maker(workers, beam)
    with stoppable(output, split, overwrite):
        done = conversion.convert(
            paths, output=output, split=split, options=options, maker=maker
        )
    print_conversion(done, output)


def _maker(workers: int, beam: str | None) -> Maker:
    """What makes the shards: processes of this machine, or a pipeline."""
    import functools

    from cmt.errors import InputError

    if beam is None:
        from cmt.data.convert.convert import make_shards

        return functools.partial(make_shards, workers=workers)
    if workers:
        raise InputError(
            f"--workers {workers} does not go with --beam, whose options have their "
            "own; leave --workers out"
        )
    from cmt.data.convert.beam import beam_maker

    return beam_maker(beam)


app.command()(inspect)
