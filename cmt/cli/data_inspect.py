"""`cmt data inspect`: look at TFRecords."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmt.cli.paths import local_path
from cmt.errors import InputError

if TYPE_CHECKING:
    from cmt.data.input.inspect import Inspection
    from cmt.data.input.pipeline import Split
    from cmt.data.input.prepare import Options

_BAR_LENGTH = 10
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
        typer.Option(
            parser=local_path, metavar="DIR", help="Folder for pictures of some images."
        ),
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
    losses. Where a split is found in several folders, the pictures of the second are
    called {split}-2. TFRECORDS may be local or what TensorFlow reads, such as gs://.

    \b
    Example:
      cmt data inspect tfrecords/val-*.tfrecord --output pictures --augmented \\
        --config scenes/tiny --set data.augmentation.max_scale=2
    """
    from cmt.data.input.inspect import inspect as look
    from cmt.data.input.open import find_splits

    if augmented and output is None:
        raise InputError("--augmented draws pictures; give --output DIR, too")
    if (config or overrides) and not augmented:
        raise InputError("--config and --set are for --augmented; give it, too")
    options = _read_options(config, overrides or ())
    found = []
    for split, name in _named(find_splits(tfrecords, annotations, options)):
        drawn = [] if output is None else [output / f"{name}.png"]
        found.append((look(split, picture=drawn[0] if drawn else None), drawn))
        if augmented:
            drawn.append(output / f"{name}-augmented.png")
            _draw_augmented(split, seed, drawn[1])
    if as_json:
        print(json.dumps([inspection.to_json() for inspection, _ in found], indent=2))
        return
    for inspection, drawn in found:
        _print_inspection(inspection, drawn)


def _read_options(config: str, overrides: Sequence[str]) -> Options:
    """What becomes of the records: that of a config, or the defaults."""
    from cmt.config import load_experiment, parse_experiment
    from cmt.data.input.open import read_options

    if config:
        return read_options(load_experiment(config, overrides).data)
    return read_options(parse_experiment("", "defaults", overrides).data)


def _named(splits: Sequence[Split]) -> Iterator[tuple[Split, str]]:
    """Gives each split a name that no other has."""
    counts: dict[str, int] = {}
    for split in splits:
        name = split.manifest.split
        counts[name] = counts.get(name, 0) + 1
        yield split, name if counts[name] == 1 else f"{name}-{counts[name]}"


def _draw_augmented(split: Split, seed: int, path: Path) -> None:
    from cmt.data.input.inspect import SHEET_IMAGES, draw_batches

    batches = split.batches(global_batch_size=4, seed=seed)
    draw_batches(batches.take(SHEET_IMAGES // 4), split.categories, path)


def _print_inspection(split: Inspection, drawn: Sequence[Path]) -> None:
    from cmt.io.terminal import LABEL, NUMBER, TEXT, print_table

    pixels = max(split.pixels, 1)
    print(f"folder: {split.folder}")
    print(
        f"{split.split}: {split.images} images in {split.shards} "
        f"{'shard' if split.shards == 1 else 'shards'}, at most "
        f"{split.most_masks} masks an image, "
        f"{100 * split.void_pixels / pixels:.1f} % void"
    )
    for name, sizes in (("height", split.heights), ("width", split.widths)):
        print(f"{name}: {sizes[0]} to {sizes[2]} pixels, median {sizes[1]}")
    small, medium, large = split.thing_sizes
    print(
        f"things: {small} below 32 x 32 pixels, {medium} below 96 x 96, {large} larger"
    )
    numbers = dict.fromkeys(("id", "images", "instances", "% of pixels"), NUMBER)
    most = max((count.pixels for count in split.classes), default=0)
    rows = [
        (
            count.name,
            "thing" if count.isthing else "stuff",
            str(count.id),
            str(count.images),
            str(count.instances),
            f"{100 * count.pixels / pixels:.2f}",
            _bar(count.pixels, most),
        )
        for count in split.classes
    ]
    print_table({"class": TEXT, "kind": LABEL, **numbers, "pixels": LABEL}, rows)
    print_table(
        {"masks of an image": LABEL, "images": NUMBER, "": LABEL},
        _masks_rows(split.masks_per_image),
    )
    for kind, path in zip(("pictures", "augmented"), drawn, strict=False):
        print(f"{kind}: {path}")


def _masks_rows(masks_per_image: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    ends = [end for end in _MASK_COUNTS if end < len(masks_per_image) - 1]
    ends.append(len(masks_per_image) - 1)
    starts = [0, *(end + 1 for end in ends[:-1])]
    counts = [
        sum(masks_per_image[start : end + 1])
        for start, end in zip(starts, ends, strict=True)
    ]
    for start, end, count in zip(starts, ends, counts, strict=True):
        name = str(end) if start == end else f"{start} to {end}"
        yield name, str(count), _bar(count, max(counts))


def _bar(value: int, largest: int) -> str:
    return "#" * round(_BAR_LENGTH * value / max(largest, 1))
