"""The COCO panoptic format: a json of segments, and PNG files of segment ids."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from cmt.data.checks.categories import LABEL_RANGE
from cmt.data.checks.integrity import (
    DAMAGED,
    JPEG_HEAD,
    NO_IMAGE,
    TOO_LARGE,
    TRUNCATED,
    ImageFault,
    Png,
    read_png,
    refuse_too_large,
)
from cmt.data.checks.json import JsonCheck

# The names after "as" are for those who import them from here.
from cmt.data.panoptic.annotations import (
    LABEL_DIVISOR,
    MAX_LABEL_PART,
    MAX_SEGMENT_ID,
    PanopticAnnotations,
)
from cmt.data.panoptic.annotations import MAX_CATEGORY_ID as MAX_CATEGORY_ID
from cmt.data.panoptic.annotations import PanopticImage as PanopticImage
from cmt.data.panoptic.annotations import Segment as Segment
from cmt.errors import InputError
from cmt.io.storage import read_bytes

# Faults that leave an entry readable: what it says is clear, though not allowed.
_READABLE = {
    "category not in list",
    "crowd",
    "empty data set",
    "image without annotation",
    LABEL_RANGE,
    "stuff twice",
}
_JSON_AGAIN = "download it again or correct it"
# Kinds of files that cannot be decoded.
UNREADABLE = (NO_IMAGE, TRUNCATED, DAMAGED)
# What Pillow raises for files that are no images or damaged.
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
NO_MASK = "not a panoptic PNG"
# Of a PNG's header: RGB, or RGB with an opacity, which is not looked at.
_IDS_COLORS = (2, 6)
_COLOR_NAMES = {0: "a grey", 2: "an RGB", 3: "a palette", 4: "a grey", 6: "an RGB"}


class JsonFault(InputError):
    """A file that holds no json object.

    Attributes:
      reason: what is wrong with it.
      fix: what to do.
    """

    def __init__(self, path: Path | str, reason: str, fix: str):
        super().__init__(f"{path}: {reason}; {fix}")
        self.reason = reason
        self.fix = fix


def load_json(path: Path | str) -> dict[str, Any]:
    """The json as it stands.

    Raises:
      JsonFault: it is not a json object.
      InputError: the file is missing.
    """
    return parse_json(path, read_file(path))


def read_file(path: Path | str) -> bytes:
    """The bytes of an annotation file.

    Raises:
      InputError: it is missing.
    """
    try:
        return read_bytes(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such annotation file") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: a folder, not an annotation file") from error


def parse_json(path: Path | str, data: bytes) -> dict[str, Any]:
    """The json object in the bytes of a file.

    Raises:
      JsonFault: there is none.
    """
    try:
        # Editors of Windows begin a file with a mark.
        content = json.loads(data.decode("utf-8-sig"))
    except ValueError as error:
        raise JsonFault(path, f"not a json file: {error}", _JSON_AGAIN) from error
    except RecursionError as error:
        reason = "its lists and objects are nested too deeply"
        raise JsonFault(path, reason, _JSON_AGAIN) from error
    if not isinstance(content, dict):
        reason = f"must hold a json object; got {type(content).__name__}"
        raise JsonFault(path, reason, "give another file")
    return content


def read_annotations(
    path: Path | str,
    content: dict[str, Any] | None = None,
    *,
    is_prediction: bool = False,
) -> PanopticAnnotations:
    """Reads a COCO panoptic json.

    What can be read is taken, though `cmt data convert` would refuse it (crowd on
    stuff, an image without annotation, ...).

    Args:
      path: of the json.
      content: what `load_json` gave for it; read from `path` if None.
      is_prediction: "images", "categories" and areas may be missing; the images then
        have no file name and size.

    Raises:
      InputError: the file is missing, or not in this format; the first fault is
        named, `cmt data validate` says all.
    """
    content = load_json(path) if content is None else content
    check = JsonCheck(path, content, is_prediction=is_prediction)
    faults = [problem for problem in check.problems if problem.kind not in _READABLE]
    if faults:
        raise InputError(
            f"{faults[0].line} (not COCO panoptic annotations; `cmt data validate` "
            "lists all problems)"
        )
    return PanopticAnnotations(check.categories, check.images)


def read_ids(path: Path | str) -> np.ndarray:
    """[H, W] int32 segment ids, 0 for void, of a COCO panoptic PNG.

    Raises:
      InputError: the file is missing or not an RGB image.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such mask file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    try:
        return decode_ids(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def decode_ids(content: bytes) -> np.ndarray:
    """[H, W] int32 segment ids, 0 for void, of the bytes of a COCO panoptic PNG.

    Raises:
      InputError: they are not an RGB image; without the file's name.
    """
    try:
        check_mask(content)
        return mask_ids(content)
    except ImageFault as fault:
        message = f"{fault.reason}; {fault.fix}"
        if fault.kind in UNREADABLE:
            message = f"not an image that can be read: {message}"
        raise InputError(message) from fault


def check_mask(content: bytes) -> Png:
    """Goes through the bytes of a COCO panoptic PNG; its pixels stay compressed.

    Raises:
      ImageFault: it is cut off, damaged, or of another kind.
    """
    if content.startswith(JPEG_HEAD):
        raise ImageFault(
            NO_MASK,
            "must be a PNG; got a JPEG, which changes colours, and so destroys ids",
            "give the PNG that the JPEG was made of",
        )
    png = read_png(content)
    refuse_too_large(png.height, png.width)
    if png.color_type not in _IDS_COLORS or png.depth != 8:
        raise ImageFault(
            NO_MASK,
            "must be an RGB PNG of 8 bits a channel, with id = R + 256 G + 65536 B; "
            f"got {_COLOR_NAMES[png.color_type]} PNG of {png.depth} bits",
            'write the ids of "segments_info" so; a map of classes or of instances, as '
            "grey and palette PNGs mostly are, is no panoptic mask",
        )
    return png


def mask_ids(content: bytes) -> np.ndarray:
    """[H, W] int32 segment ids of a PNG that `check_mask` lets pass.

    Raises:
      ImageFault: its pixels cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            # Four bytes a pixel are one number, and what Pillow has in memory.
            colors = image.tobytes("raw", "RGBX" if image.mode == "RGB" else "RGBA")
            height, width = image.height, image.width
    except DECODING_ERRORS as error:
        raise decoding_fault(error) from error
    return (np.frombuffer(colors, "<i4") & MAX_SEGMENT_ID).reshape(height, width)


def decoding_fault(error: Exception) -> ImageFault:
    """One of DECODING_ERRORS as what it says of the file."""
    if isinstance(error, ImageFault):
        return error
    if isinstance(error, UnidentifiedImageError):
        return ImageFault(NO_IMAGE, "it has no known image format")
    if isinstance(error, Image.DecompressionBombError):
        return ImageFault(TOO_LARGE, "it declares more pixels than Pillow reads")
    reason = next(iter(str(error).splitlines()), "it is damaged")
    return ImageFault(TRUNCATED if "truncated" in reason else DAMAGED, reason)


def write_ids(path: Path | str, ids: np.ndarray) -> None:
    """Writes [H, W] segment ids as a COCO panoptic PNG."""
    planes = [ids & 0xFF, ids >> 8 & 0xFF, ids >> 16 & 0xFF]
    colors = np.stack(planes, axis=-1).astype(np.uint8)
    Image.fromarray(colors).save(path, "PNG", compress_level=3)


def segment_index(ids: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
    """[H, W] unsigned: 0 for unknown ids, 1 for void, 2 + index in `segments` else."""
    known = [segment.id for segment in segments]
    kind = np.uint16 if len(known) + 2 <= 2**16 else np.uint32
    # Fresh zeros cost nothing until they are touched, and few of them are.
    table = np.zeros(MAX_SEGMENT_ID + 1, kind)
    table[0] = 1
    table[known] = np.arange(2, len(known) + 2, dtype=kind)
    return table.take(ids)


def label_values(
    segments: Sequence[Segment],
    classes: dict[int, int],
    is_thing: Sequence[bool],
    *,
    keep_crowd: bool,
) -> list[int]:
    """The label, class * 256 + instance, of each segment.

    Stuff has instance 0; things are numbered 1, 2, ... in each class in the order
    of the segments. Crowd is void, or its class with instance 0.

    Args:
      segments: of one image.
      classes: contiguous class of each category id.
      is_thing: for class 1..C in order.
      keep_crowd: crowd is not void.

    Raises:
      InputError: a class or an instance above 255; without the image's name.
    """
    counts: dict[int, int] = {}
    values = []
    for segment in segments:
        number = classes[segment.category_id]
        if number > MAX_LABEL_PART:
            raise InputError(
                f"segment {segment.id}: at most {MAX_LABEL_PART} classes fit in a "
                f"label; got class {number}; convert fewer categories"
            )
        if segment.is_crowd:
            values.append(number * LABEL_DIVISOR if keep_crowd else 0)
        elif is_thing[number - 1]:
            counts[number] = counts.get(number, 0) + 1
            if counts[number] > MAX_LABEL_PART:
                raise InputError(
                    f"segment {segment.id}: at most {MAX_LABEL_PART} instances of a "
                    f"class fit in a label; class {number} has more; make some of "
                    "them crowd"
                )
            values.append(number * LABEL_DIVISOR + counts[number])
        else:
            values.append(number * LABEL_DIVISOR)
    return values
