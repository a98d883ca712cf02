"""The COCO panoptic format: a json of segments, and PNG files of segment ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cmt.data.categories import Category
from cmt.errors import InputError

# Largest class and largest instance a label, class * 256 + instance, can hold.
MAX_LABEL_PART = 255
# Predictions are PNGs of category id * 1000 + instance in three bytes.
MAX_CATEGORY_ID = (2**24 - 1) // 1000


class Segment(NamedTuple):
    """An entry of "segments_info".

    Attributes:
      id: R + 256 G + 65536 B of its pixels in the PNG.
      category_id: id of its category.
      area: pixels.
      is_crowd: several objects in one segment.
    """

    id: int
    category_id: int
    area: int
    is_crowd: bool


class PanopticImage(NamedTuple):
    """An image and its annotation.

    Attributes:
      image_id: id in the json.
      file_name: of the image, below the images folder.
      mask_name: of the PNG, below the masks folder.
      height: in pixels.
      width: in pixels.
      segments: in the order of the json.
    """

    image_id: int
    file_name: str
    mask_name: str
    height: int
    width: int
    segments: list[Segment]

    @property
    def name(self) -> str:
        """The image's file name without extension, as records have it."""
        return str(PurePosixPath(self.file_name).with_suffix(""))


class PanopticAnnotations(NamedTuple):
    """A COCO panoptic json.

    Attributes:
      categories: the classes; contiguous class = index + 1.
      images: in the order of "annotations".
    """

    categories: list[Category]
    images: list[PanopticImage]


def load_json(path: Path | str) -> dict[str, Any]:
    """The json as it stands.

    Raises:
      InputError: the file is missing or not a json object.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such annotation file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not a json file: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a json object; got a list or a value")
    return content


def read_annotations(
    path: Path | str, content: dict[str, Any] | None = None
) -> PanopticAnnotations:
    """Reads a COCO panoptic json.

    Args:
      path: of the json.
      content: what `load_json` gave for it; read from `path` if None.

    Raises:
      InputError: the file is missing, or not in this format. `cmt data validate`
        says all that is wrong with it; this stops at the first.
    """
    content = load_json(path) if content is None else content
    try:
        return parse_annotations(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(
            f"{path}: not COCO panoptic annotations: {reason}; `cmt data validate` "
            "lists all problems"
        ) from error


def parse_annotations(content: dict[str, Any]) -> PanopticAnnotations:
    """The typed form of a json that follows the format.

    Raises:
      KeyError, TypeError, ValueError, AttributeError: it does not.
    """
    images = {entry["id"]: entry for entry in content["images"]}
    parsed = []
    for annotation in content["annotations"]:
        if annotation["image_id"] not in images:
            raise ValueError(f"no image has the id {annotation['image_id']}")
        entry = images[annotation["image_id"]]
        parsed.append(
            PanopticImage(
                image_id=entry["id"],
                file_name=str(entry["file_name"]),
                mask_name=str(annotation["file_name"]),
                height=int(entry["height"]),
                width=int(entry["width"]),
                segments=[
                    Segment(
                        id=int(segment["id"]),
                        category_id=int(segment["category_id"]),
                        area=int(segment["area"]),
                        is_crowd=bool(int(segment.get("iscrowd", 0))),
                    )
                    for segment in annotation["segments_info"]
                ],
            )
        )
    categories = [Category.from_json(entry) for entry in content["categories"]]
    return PanopticAnnotations(categories, parsed)


def read_ids(path: Path | str) -> np.ndarray:
    """[H, W] int32 segment ids, 0 for void, of a COCO panoptic PNG.

    Raises:
      InputError: the file is missing or not an RGB image.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "RGBA"):
                raise InputError(f"{path}: must be an RGB image; got mode {image.mode}")
            colors = np.asarray(image.convert("RGB"), np.int32)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such mask file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not an image that can be read: {error}") from error
    return colors[..., 0] | colors[..., 1] << 8 | colors[..., 2] << 16


def write_ids(path: Path | str, ids: np.ndarray) -> None:
    """Writes [H, W] segment ids as a COCO panoptic PNG."""
    planes = [ids & 0xFF, ids >> 8 & 0xFF, ids >> 16 & 0xFF]
    colors = np.stack(planes, axis=-1).astype(np.uint8)
    Image.fromarray(colors).save(path, "PNG", compress_level=3)


def segment_index(ids: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
    """[H, W] index in `segments` of each pixel, -1 for void, -2 for unknown ids."""
    known = np.array([0, *(segment.id for segment in segments)])
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known[order], ids)
    index = order[np.minimum(place, len(known) - 1)]
    return np.where(known[index] == ids, index - 1, -2)


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
            values.append(number * 256 if keep_crowd else 0)
        elif is_thing[number - 1]:
            counts[number] = counts.get(number, 0) + 1
            if counts[number] > MAX_LABEL_PART:
                raise InputError(
                    f"segment {segment.id}: at most {MAX_LABEL_PART} instances of a "
                    f"class fit in a label; class {number} has more; make some of "
                    "them crowd"
                )
            values.append(number * 256 + counts[number])
        else:
            values.append(number * 256)
    return values
