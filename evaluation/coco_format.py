"""COCO panoptic files as the evaluation reads them.

A json of segments beside PNGs whose colours are segment ids; see
https://cocodataset.org/#format-data, "Panoptic Segmentation". Unlike ground truth,
predictions need no list of images, no categories and no areas.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import load_json
from cmt.errors import InputError
from cmt.io.storage import Location


class PanopticAnnotation(NamedTuple):
    """The segments of one image.

    Attributes:
      image_id: the data set's own id of the image.
      file_name: name of the PNG in the folder of masks.
      segments: as in the json: id, category_id, and in ground truth area, iscrowd.
    """

    image_id: int | str
    file_name: str
    segments: list[dict[str, Any]]


class PanopticFile(NamedTuple):
    """A COCO panoptic json.

    Attributes:
      path: of the file, for messages.
      categories: in the order of the file; empty where it has none (predictions).
      annotations: by image id, in the order of the file.
    """

    path: Location
    categories: list[Category]
    annotations: dict[int | str, PanopticAnnotation]

    def only(self, image_ids: Collection[int | str]) -> PanopticFile:
        """Returns a copy that has the annotations of some images alone."""
        chosen = {i: a for i, a in self.annotations.items() if i in image_ids}
        return self._replace(annotations=chosen)


def read_panoptic_json(path: Location) -> PanopticFile:
    """Reads ground truth or predictions and checks the form.

    Raises:
      InputError: the file is missing or no json, or see `parse_panoptic_json`.
    """
    return parse_panoptic_json(path, load_json(path))


def parse_panoptic_json(path: Location, content: dict[str, Any]) -> PanopticFile:
    """Checks the form of ground truth or predictions.

    Args:
      path: of the json, for messages.
      content: of the json.

    Raises:
      InputError: it lacks a part, or has two annotations of one image.
    """
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
    annotations: dict[int | str, PanopticAnnotation] = {}
    for number, entry in enumerate(content["annotations"]):
        with _form(
            path,
            f"annotation {number} (needs image_id, file_name, segments_info, and each "
            "segment whole numbers id and category_id)",
        ):
            annotation = _annotation(entry)
        if annotation.image_id in annotations:
            raise InputError(
                f"{path}: image {annotation.image_id} has two annotations; keep one"
            )
        annotations[annotation.image_id] = annotation
    return PanopticFile(path, categories, annotations)


def _checked(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        wanted = {dict: "an object", list: "a list"}[kind]
        raise TypeError(f"{what} must be {wanted}; got {value!r}")
    return value


def _annotation(entry: Any) -> PanopticAnnotation:
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
    return PanopticAnnotation(entry["image_id"], entry["file_name"], segments)


@contextlib.contextmanager
def _form(path: Location, what: str) -> Iterator[None]:
    """Reports an error of reading an entry in one line."""
    try:
        yield
    except KeyError as error:
        raise InputError(f"{path}: {what} lacks {error}; add it") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: {what} has the wrong form: {error}") from None
