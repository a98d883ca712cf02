"""One image and its mask -> one record, as worker processes make it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cmt.data.checks.files import FilesCheck
from cmt.data.checks.problems import Kind, Problem
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import Counts, PanopticImage, count_segments
from cmt.data.panoptic.masks import label_values
from cmt.data.panoptic.registry import Paths
from cmt.data.records.manifest import Skipped
from cmt.data.records.tfrecord import encode_example, frame
from cmt.io.images import ImageFile
from cmt.io.png import ImageFault

# Changes when the same files would give other records, or other notes on them.
RECORD_VERSION = 4
# Photos take half the time of the default, and hardly more bytes.
_PNG_LEVEL = 1


class EncodingOptions(NamedTuple):
    """How files are found and read, the classes, and whether crowd keeps its class."""

    files: Paths
    categories: list[Category]
    keep_crowd: bool


class Encoded(NamedTuple):
    """What became of one image: its record, as it stands in a file, or its faults.

    Attributes:
      source: SHA-256 of the image and the mask file.
      counts: of the segments that have pixels.
      notes: where the json contradicts the PNG.
    """

    record: bytes | None
    source: bytes
    problems: list[Problem]
    counts: Counts = Counts()
    notes: Mapping[str, list[Any]] = {}


def encode_image(options: EncodingOptions, entry: PanopticImage) -> Encoded:
    """The record of an image, or what is wrong with its files."""
    files = FilesCheck(options.files, entry)
    if files.problems:
        return Encoded(None, b"", files.problems)
    drawn = [
        segment._replace(area=area)
        for segment, area in zip(entry.segments, files.areas, strict=True)
    ]
    values = label_values(drawn, options.categories, keep_crowd=options.keep_crowd)
    labels = np.array([0, 0, *values], np.uint16).take(files.index)
    try:
        image, image_format = _encoded_rgb(files.image)
    except ImageFault as fault:
        files.of_image(Kind(fault.kind), fault.reason, fault.fix)
        return Encoded(None, b"", files.problems)
    record = encode_example(
        name=entry.name, image=image, image_format=image_format, labels=labels
    )
    source = hashlib.sha256(files.image.content)
    source.update(files.mask)
    is_thing = {category.id: category.is_thing for category in options.categories}
    counts = count_segments([one for one in drawn if one.area], is_thing)
    return Encoded(frame(record), source.digest(), [], counts, files.mended)


def _encoded_rgb(image: ImageFile) -> tuple[bytes, str]:
    """The file as it is if it is an upright RGB JPEG or PNG; else its pixels as PNG.

    Without loss, so that training and evaluation see what prediction sees.
    """
    if image.is_plain:
        return image.content, image.format.lower()
    buffer = io.BytesIO()
    image.decode().save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue(), "png"


def left_out(problems: Iterable[Problem]) -> list[Skipped]:
    """The images that have faults, each with the first of its own."""
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.image, problem)
    skipped = []
    for image, problem in first.items():
        message = problem.line.removeprefix(f"{problem.file}: ")
        # A path that is shown as it can be printed stays in the message.
        file = "" if message == problem.line else problem.file
        skipped.append(Skipped(image, problem.kind, message, file))
    return skipped
