"""COCO panoptic PNG files, whose colours are segment ids, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence

import kornia_rs
import numpy as np

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import MAX_SEGMENT_ID, Segment
from cmt.data.panoptic.kinds import Kind
from cmt.errors import InputError
from cmt.io.images import JPEG_HEAD
from cmt.io.png import DAMAGED, ImageFault, Png, encode_png, read_png
from cmt.io.storage import Location, open_file, read_bytes
from cmt.labels import LABEL_DIVISOR

# RGB, or RGB with an opacity, which is not looked at.
_IDS_COLORS = {2: "rgb", 6: "rgba"}
_COLOR_NAMES = {0: "a grey", 2: "an RGB", 3: "a palette", 4: "a grey", 6: "an RGB"}


def read_ids(path: Location) -> np.ndarray:
    """Reads the segment ids, [H, W] int32, of a COCO panoptic PNG; 0 where void.

    Raises:
      InputError: the file is missing, damaged, or of another kind.
    """
    return color_ids(read_colors(path))


def read_colors(path: Location) -> np.ndarray:
    """Reads the colours, [H, W, 3] uint8, of a COCO panoptic PNG.

    Raises:
      InputError: the file is missing, damaged, or of another kind.
    """
    try:
        content = read_bytes(path)
        return decode_mask(content, check_mask(content))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such mask file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except ImageFault as fault:
        raise InputError(f"{path}: {fault}") from fault


def color_ids(colors: np.ndarray) -> np.ndarray:
    """The segment ids, [...] int32, that colours, [..., 3] uint8, stand for."""
    red, green, blue = (colors[..., channel] for channel in range(3))
    ids = blue.astype(np.int32)
    for channel in (green, red):
        ids <<= 8
        ids |= channel
    return ids


def check_mask(content: bytes) -> Png:
    """Goes through the bytes of a COCO panoptic PNG; its pixels stay compressed.

    Raises:
      ImageFault: it is cut off, damaged, too large, or of another kind.
    """
    if content.startswith(JPEG_HEAD):
        reason = "must be a PNG; got a JPEG, which changes colours, and so destroys ids"
        raise ImageFault(Kind.NO_MASK, reason, "give the PNG that the JPEG was made of")
    mask = read_png(content)
    if mask.color_type not in _IDS_COLORS or mask.depth != 8:
        raise ImageFault(
            Kind.NO_MASK,
            "must be an RGB PNG of 8 bits a channel, with id = R + 256 G + 65536 B; "
            f"got {_COLOR_NAMES[mask.color_type]} PNG of {mask.depth} bits",
            'write the ids of "segments_info" so; a map of classes or of instances, as '
            "grey and palette PNGs mostly are, is no panoptic mask",
        )
    return mask


def decode_mask(content: bytes, mask: Png) -> np.ndarray:
    """Decodes a PNG that `check_mask` lets pass: its colours, [H, W, 3] uint8.

    Raises:
      ImageFault: its pixels cannot be decoded.
    """
    size, mode = (mask.height, mask.width), _IDS_COLORS[mask.color_type]
    try:
        colors = kornia_rs.io.decode_image_png_u8(content, size, mode)
    except Exception as error:  # It raises no other kind.
        raise ImageFault(DAMAGED, str(error).rstrip(".")) from error
    return np.ascontiguousarray(colors[..., :3])


def write_ids(path: Location, ids: np.ndarray) -> None:
    """Writes [H, W] segment ids as a COCO panoptic PNG."""
    planes = [ids & 0xFF, ids >> 8 & 0xFF, ids >> 16 & 0xFF]
    colors = np.stack(planes, axis=-1).astype(np.uint8)
    with open_file(path, "wb") as file:
        file.write(encode_png(colors, compression=3))


def segment_index(ids: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
    """Finds the segment of each id, which is unsigned and of any shape.

    Returns:
      Unsigned, in the shape of `ids`: 0 for unknown ids, 1 for void, else 2 + index in
      `segments`, the last where several have the id.
    """
    places = {
        segment.id: place
        for place, segment in enumerate(segments, start=2)
        if 0 <= segment.id <= MAX_SEGMENT_ID
    }
    kind = np.uint16 if len(segments) + 2 <= 2**16 else np.uint32
    # Fresh zeros cost nothing until they are touched, and few of them are.
    table = np.zeros(MAX_SEGMENT_ID + 1, kind)
    table[0] = 1
    table[list(places)] = list(places.values())
    return table.take(ids)


def label_values(
    segments: Sequence[Segment], categories: Sequence[Category], *, keep_crowd: bool
) -> list[int]:
    """The label, class * 256 + instance, of each segment of an image.

    Classes are 1, 2, ... in the order of the categories. Stuff has instance 0; things
    are numbered 1, 2, ... in each class in the order of the segments, those without
    pixels (area 0) left out. Crowd is void, or with `keep_crowd` its class with
    instance 0.
    """
    # The check of the json refuses more classes or instances than labels hold.
    classes = {category.id: index for index, category in enumerate(categories)}
    counts = [0] * len(categories)
    values = []
    for segment in segments:
        index, instance = classes[segment.category_id], 0
        if categories[index].is_thing and not segment.is_crowd and segment.area != 0:
            instance = counts[index] = counts[index] + 1
        void = segment.is_crowd and not keep_crowd
        values.append(0 if void else (index + 1) * LABEL_DIVISOR + instance)
    return values
