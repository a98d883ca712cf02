"""COCO panoptic files as the evaluation reads them.

A json of segments beside PNGs whose colours are segment ids; see
https://cocodataset.org/#format-data, "Panoptic Segmentation". Unlike ground truth,
predictions need no list of images, no categories and no areas.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from cmt.data.panoptic.annotations import (
    ImageId,
    PanopticAnnotations,
    PanopticImage,
    Segment,
)
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import load_json
from cmt.errors import InputError
from cmt.io.storage import Location


def read_annotations(path: Location) -> PanopticAnnotations:
    """Reads ground truth or predictions and checks the form.

    Raises:
      InputError: the file is missing, no json, lacks a part, or has two annotations
        of one image.
    """
    content = load_json(path)
    if not isinstance(content.get("annotations"), list):
        raise InputError(
            f'{path}: a COCO panoptic json is an object with a list "annotations"; '
            "give the panoptic file, not one of detections or captions"
        )
    with _form(path, '"categories" (each needs id and isthing)'):
        categories = [
            Category.from_json(_checked(entry, dict, "a category"))
            for entry in _checked(content.get("categories", []), list, "categories")
        ]
    with _form(path, '"images" (each needs id and file_name)'):
        names = {entry["id"]: entry["file_name"] for entry in content.get("images", [])}
    images: dict[ImageId, PanopticImage] = {}
    for number, entry in enumerate(content["annotations"]):
        with _form(
            path,
            f"annotation {number} (needs image_id, file_name, segments_info, and each "
            "segment whole numbers id and category_id)",
        ):
            image = _image(entry, names)
        if image.image_id in images:
            raise InputError(
                f"{path}: image {image.image_id} has two annotations; keep one"
            )
        images[image.image_id] = image
    return PanopticAnnotations(categories, list(images.values()))


def _checked(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        wanted = {dict: "an object", list: "a list"}[kind]
        raise TypeError(f"{what} must be {wanted}; got {value!r}")
    return value


def _image(entry: Any, names: dict[ImageId, str]) -> PanopticImage:
    _checked(entry, dict, "it")
    segments = _checked(entry["segments_info"], list, "segments_info")
    for segment in segments:
        _checked(segment, dict, "a segment")
        for key in ("id", "category_id"):
            if not isinstance(segment[key], int):
                raise TypeError(f"{key} is {segment[key]!r}")
        for key in ("area", "iscrowd"):
            if not isinstance(segment.get(key, 0), (int, float)):
                raise TypeError(f"{key} is {segment[key]!r}")
    if not isinstance(entry["file_name"], str):
        raise TypeError(f"file_name is {entry['file_name']!r}")
    if not isinstance(entry["image_id"], (int, str)):
        raise TypeError(f"image_id is {entry['image_id']!r}")
    return PanopticImage(
        image_id=entry["image_id"],
        file_name=names.get(entry["image_id"], ""),
        mask_name=entry["file_name"],
        height=0,
        width=0,
        segments=[
            Segment(
                id=segment["id"],
                category_id=segment["category_id"],
                area=segment.get("area"),
                is_crowd=bool(segment.get("iscrowd", 0)),
            )
            for segment in segments
        ],
    )


@contextlib.contextmanager
def _form(path: Location, what: str) -> Iterator[None]:
    """Reports an error of reading an entry in one line."""
    try:
        yield
    except KeyError as error:
        raise InputError(f"{path}: {what} lacks {error}; add it") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: {what} has the wrong form: {error}") from None
