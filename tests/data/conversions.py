"""Converting in one call, as the command line does."""

from __future__ import annotations

import functools

from cmt.data.convert import convert as conversion
from cmt.data.convert.convert import ConvertOptions
from cmt.data.panoptic.registry import Paths
from cmt.data.records.manifest import Manifest
from cmt.io.storage import Location


def convert_paths(
    paths: Paths,
    *,
    output: Location,
    split: str,
    workers: int = 0,
    exif: str = "",
    **options,
) -> Manifest:
    """The manifest of a data set that is converted with `ConvertOptions`."""
    paths = paths._replace(exif=exif or paths.exif)
    maker = functools.partial(conversion.make_shards, workers=workers)
    return conversion.convert(
        paths,
        output=output,
        split=split,
        options=ConvertOptions(**options),
        maker=maker,
    ).manifest


def convert(
    *, images: Location, annotations: Location, masks: Location, **options
) -> Manifest:
    """`convert_paths` of three paths."""
    return convert_paths(Paths(images, annotations, masks), **options)
