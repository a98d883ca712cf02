"""`cmt data inspect`: look at TFRecords."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmt.errors import InputError

if TYPE_CHECKING:
    from cmt.data.inspect import Inspection
    from cmt.data.pipeline import Source

_BAR_LENGTH = 20
# Upper ends of the rows of the table of masks per image.
_MASK_COUNTS = (0, 5, 10, 20, 30, 50, 100)


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
    augmented: Annotated[
        bool,
        typer.Option(
            "--augmented", help="Also draw what the network sees (needs --output)."
        ),
    ] = False,
    config: Annotated[
        str,
        typer.Option(metavar="CONFIG", help="Whose data section --augmented uses."),
    ] = "",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a field; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of --augmented.")] = 0,
    annotations: Annotated[
        str,
        typer.Option(
            metavar="JSON", help="COCO panoptic json: classes of shards of DeepLab2."
        ),
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a list of splits as json.")
    ] = False,
) -> None:
    """Count images and classes in TFRecords, check them, and draw some.

    With --output, DIR/{split}.png shows the first images, and their segments below
    them in the colours of their classes. With --augmented, DIR/{split}-augmented.png
    shows images after scale, crop and other random changes, with the targets of the
    losses.

    \b
    Example:
      cmt data inspect tfrecords/val-*.tfrecord --output pictures --augmented \\
        --config scenes/tiny --set data.augmentation.max_scale=2
    """
    from cmt.data.inspect import find_sources
    from cmt.data.inspect import inspect as look

    if augmented and output is None:
        raise InputError("--augmented draws pictures; give --output DIR, too")
    if (config or overrides) and not augmented:
        raise InputError("--config and --set are for --augmented; give it, too")
    splits = []
    for source in find_sources(tfrecords, annotations):
        splits.append(look(source, output=output))
        if augmented:
            _draw_augmented(source, config, overrides or (), seed, output)
    if as_json:
        print(json.dumps([split.to_json() for split in splits], indent=2))
        return
    for split in splits:
        _print_inspection(split)
        if output is not None:
            print(f"pictures: {output / f'{split.split}.png'}")
            if augmented:
                print(f"augmented: {output / f'{split.split}-augmented.png'}")


def _draw_augmented(
    source: Source, config: str, overrides: Sequence[str], seed: int, output: Path
) -> None:
    from cmt.config import load_experiment, parse_experiment
    from cmt.data.factory import training_dataset
    from cmt.data.inspect import SHEET_IMAGES, draw_batches

    if config:
        experiment = load_experiment(config, overrides)
    else:
        experiment = parse_experiment("", "defaults", overrides)
    batches = training_dataset(
        experiment.data, global_batch_size=4, seed=seed, source=source
    )
    manifest = source.manifest
    path = output / f"{manifest.split}-augmented.png"
    draw_batches(batches.take(SHEET_IMAGES // 4), manifest.categories, path)


def _print_inspection(split: Inspection) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    pixels = max(split.pixels, 1)
    print(
        f"{split.split}: {split.images} images in {split.shards} shards, at most "
        f"{split.most_masks} masks an image, "
        f"{100 * split.void_pixels / pixels:.1f} % void"
    )
    for name, sizes in (("height", split.heights), ("width", split.widths)):
        print(f"{name}: {sizes[0]} to {sizes[2]} pixels, median {sizes[1]}")
    small, medium, large = split.thing_sizes
    print(
        f"things: {small} below 32 x 32 pixels, {medium} below 96 x 96, {large} larger"
    )
    numbers = ("id", "images", "instances", "% of pixels")
    columns = [Column(name, justify="right") for name in numbers]
    table = Table("class", "kind", *columns, "pixels")
    most = max((count.pixels for count in split.classes), default=0)
    for count in split.classes:
        table.add_row(
            count.category.name,
            "thing" if count.category.is_thing else "stuff",
            str(count.category.id),
            str(count.images),
            str(count.instances),
            f"{100 * count.pixels / pixels:.2f}",
            _bar(count.pixels, most),
        )
    Console().print(table)
    Console().print(_masks_table(split.masks_per_image))


def _masks_table(masks_per_image: Sequence[int]) -> object:
    from rich.table import Column, Table

    table = Table("masks of an image", Column("images", justify="right"), "")
    ends = [end for end in _MASK_COUNTS if end < len(masks_per_image) - 1]
    ends.append(len(masks_per_image) - 1)
    starts = [0, *(end + 1 for end in ends[:-1])]
    counts = [
        sum(masks_per_image[start : end + 1])
        for start, end in zip(starts, ends, strict=True)
    ]
    for start, end, count in zip(starts, ends, counts, strict=True):
        name = str(end) if start == end else f"{start} to {end}"
        table.add_row(name, str(count), _bar(count, max(counts)))
    return table


def _bar(value: int, largest: int) -> str:
    return "#" * round(_BAR_LENGTH * value / max(largest, 1))
