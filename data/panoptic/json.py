"""A COCO panoptic json: its entries, typed, and how it is read from a file.

`data/checks` finds what is wrong in one; `evaluation/annotations.py` reads it to score.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from cmt.errors import InputError
from cmt.io.storage import Location, read_bytes
from cmt.labels import CATEGORY_DIVISOR

ImageId = int | str
# Takes an object of a json when it has been read, and gives what stands for it.
Hook = Callable[[dict[str, Any]], Any]

# A segment id is a colour, R + 256 G + 65536 B.
MAX_SEGMENT_ID = 2**24 - 1
# So that the ids of predicted segments fit.
MAX_CATEGORY_ID = MAX_SEGMENT_ID // CATEGORY_DIVISOR
# More pixels than any image has; also keeps numbers that no float holds away.
_LARGEST_AREA = 2**40
_JSON_AGAIN = "download it again, correct it or save it as UTF-8"
# First bytes of gzip and zip.
_PACKED, _UNPACK = (
    (b"\x1f\x8b", b"PK"),
    "it is packed: give what gunzip or unzip makes of it",
)
Number = int | float
# How a value is shown: in one line, a long or deep one without its middle.
shown = reprlib.repr


class Segment(NamedTuple):
    """An entry of "segments_info".

    Attributes:
      id: R + 256 G + 65536 B of its pixels in the PNG.
      area: in pixels, as the json has it; None where it has none.
      is_crowd: several objects in one segment.
      box: "bbox" as it stands, unchecked; None where there is none.
      score: how sure a prediction is; None where it has no number for it.
    """

    id: int
    category_id: int
    area: float | None
    is_crowd: bool
    box: object = None
    score: float | None = None


class PanopticImage(NamedTuple):
    """An image and its annotation, with segments in the order of the json.

    Attributes:
      image_id: id in the json; a number in COCO, a name in Cityscapes.
      file_name, mask_name: of the image and the PNG, as the json has them; "" for none.
      height, width: in pixels; 0 where the json does not list the image.
      path: of the image below the images folder; "" for `file_name`.
    """

    image_id: ImageId
    file_name: str
    mask_name: str
    height: int
    width: int
    segments: Sequence[Segment]
    path: str = ""

    @property
    def name(self) -> str:
        """The image's file name without extension, as records have it."""
        return record_name(self.file_name)

    @property
    def image_path(self) -> str:
        """Where the image is below the images folder."""
        return self.path or self.file_name


class Counts(NamedTuple):
    """Segments with pixels: stuff classes and crowd regions of each image, things.

    `things` are instances that are not crowd; one image has `max_masks`, the most.
    """

    things: int = 0
    stuff: int = 0
    crowd: int = 0
    max_masks: int = 0

    def plus(self, other: Counts) -> Counts:
        """Returns the counts of both."""
        sums = (one + more for one, more in zip(self[:3], other[:3], strict=True))
        return Counts(*sums, max(self.max_masks, other.max_masks))


class JsonFault(InputError):
    """A file that holds no json object: what is wrong with it, and what to do."""

    def __init__(self, path: Location, reason: str, fix: str):
        super().__init__(f"{path}: {reason}; {fix}")
        self.reason, self.fix = reason, fix


def record_name(file_name: str) -> str:
    """Returns the name that records give an image: its file name less extension."""
    return str(PurePosixPath(file_name).with_suffix("")) if file_name else ""


def count_segments(
    segments: Iterable[Segment], is_thing: Mapping[int, bool | None]
) -> Counts:
    """Counts the segments of an image, and the masks that training makes of them.

    Args:
      segments: of the image.
      is_thing: of each category id; unknown ones are counted as things.
    """
    stuff, things, crowd = set(), 0, 0
    for segment in segments:
        crowd += segment.is_crowd
        if is_thing.get(segment.category_id) is False:
            stuff.add(segment.category_id)
        elif not segment.is_crowd:
            things += 1
    return Counts(things, len(stuff), crowd, max_masks=things + len(stuff))


def parse_json(path: Location, data: bytes, hook: Hook | None = None) -> dict[str, Any]:
    """Returns the json object in the bytes of a file.

    Raises:
      JsonFault: there is none.
    """
    head = data[:2]
    try:
        # UTF-8, 16 or 32, which editors of Windows begin with a mark.
        text = data.decode(json.detect_encoding(data), "surrogatepass")
        del data  # There are large ones.
        content = json.loads(text, object_hook=hook)
    except ValueError as error:
        fix = _UNPACK if head in _PACKED else _JSON_AGAIN
        raise JsonFault(path, f"not a json file: {error}", fix) from error
    except RecursionError as error:
        reason = "its lists and objects are nested too deeply"
        raise JsonFault(path, reason, _JSON_AGAIN) from error
    if not isinstance(content, dict):
        reason = f"must hold a json object; got {type(content).__name__}"
        raise JsonFault(path, reason, "give another file")
    return content


def load_json(path: Location, hook: Hook | None = None) -> dict[str, Any]:
    """Returns the json object of a file.

    Raises:
      JsonFault: it holds none.
      InputError: it is missing.
    """
    try:
        return parse_json(path, read_bytes(path), hook)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such annotation file") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: a folder, not an annotation file") from error


def area_of(info: dict[str, Any]) -> float | None:
    """Returns the "area" of a segment; None where it is none that pixels can have."""
    area = number_of(info.get("area"))
    return area if area is not None and 0 <= area <= _LARGEST_AREA else None


def number_of(value: Any) -> float | None:
    """Returns a number of a json; None for anything else."""
    is_number = isinstance(value, Number) and not isinstance(value, bool)
    return value if is_number else None


def crowd_of(info: dict[str, Any]) -> Any:
    """Returns the "iscrowd" of a segment; 0 where there is none."""
    crowd = info.get("iscrowd")
    return 0 if crowd is None else crowd
