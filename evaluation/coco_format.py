"""COCO panoptic files as the evaluation reads and writes them.

A json of segments beside PNGs whose colours are segment ids; see
https://cocodataset.org/#format-data, "Panoptic Segmentation". Unlike ground truth,
predictions need no list of images, no categories and no areas.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from cmt.data.panoptic.categories import Category

# Those who import them from here know them by these names.
from cmt.data.panoptic.json import CATEGORY_DIVISOR, MAX_CATEGORY_ID, load_json
from cmt.data.panoptic.json import MAX_SEGMENT_ID as MAX_ID
from cmt.data.panoptic.masks import write_ids
from cmt.errors import InputError
from cmt.io.files import atomic_directory, atomic_write
from cmt.io.storage import Location


def count_values(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Like `np.unique(values, return_counts=True)`, faster where runs are long.

    Args:
      values: integers of any shape, in which neighbours are often equal.

    Returns:
      The values that occur, ascending, and int64 how often.
    """
    flat = values.reshape(-1)
    if not flat.size:
        return flat, np.zeros(0, np.int64)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size)
    unique, run_of = np.unique(flat[starts], return_inverse=True)
    counts = np.zeros(unique.size, np.int64)
    np.add.at(counts, run_of, lengths)
    return unique, counts


class PanopticAnnotation(NamedTuple):
    """The segments of one image.

    Attributes:
      image_id: the data set's own id of the image.
      file_name: of the PNG, in the folder of masks.
      segments: as in the json: id, category_id, and in ground truth area, iscrowd.
    """

    image_id: int | str
    file_name: str
    segments: list[dict[str, Any]]


class PanopticFile(NamedTuple):
    """A COCO panoptic json.

    Attributes:
      categories: in the order of the file; empty where it has none (predictions).
      annotations: by image id, in the order of the file.
    """

    categories: list[Category]
    annotations: dict[int | str, PanopticAnnotation]


def read_panoptic_json(path: Location) -> PanopticFile:
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
    return PanopticFile(categories, annotations)


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
    """Turns the errors of reading an entry into one line."""
    try:
        yield
    except KeyError as error:
        raise InputError(f"{path}: {what} lacks {error}; add it") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: {what} has the wrong form: {error}") from None


class PredictionWriter:
    """Writes `panoptic.json` and `panoptic/*.png`; use it in a `with` block.

    PNGs are written as images come, to a temporary folder; `close`, or the end of the
    block, gives both their names and replaces earlier ones. If the block raises,
    nothing is left behind and what was there stays.
    """

    def __init__(self, directory: Path | str, categories: Sequence[Category]) -> None:
        """Starts writing.

        Args:
          directory: where the two appear; made if missing.
          categories: of the data set; written to the json.

        Raises:
          OSError: the folder cannot be written to.
        """
        directory = Path(directory)
        self._json = directory / "panoptic.json"
        self._categories = list(categories)
        self._category_ids = {category.id for category in categories}
        self._images: dict[int | str, dict[str, Any]] = {}
        self._annotations: list[dict[str, Any]] = []
        self._names: set[str] = set()
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(_removed_on_failure(directory))
        self._folder = self._stack.enter_context(
            atomic_directory(directory / "panoptic", overwrite=True)
        )

    def add(self, image_id: int | str, file_name: str, panoptic: np.ndarray) -> None:
        """Writes one image.

        Args:
          image_id: the data set's own id, once only.
          file_name: of the image; the PNG takes its stem.
          panoptic: [H, W] int32, category id * 1000 + instance, 0 is void.

        Raises:
          InputError: the image came before, a category is not in the list, or a value
            does not fit in the PNG.
        """
        if image_id in self._images:
            raise InputError(f"image {image_id} ({file_name}) is predicted twice")
        height, width = panoptic.shape
        png = self._png_name(Path(file_name).stem)
        segments = self._segments(panoptic, file_name)
        write_ids(self._folder / png, panoptic)
        self._names.add(png)
        self._images[image_id] = {
            "id": image_id,
            "file_name": file_name,
            "width": width,
            "height": height,
        }
        self._annotations.append(
            {"image_id": image_id, "file_name": png, "segments_info": segments}
        )

    def close(self) -> None:
        """Gives the json and the folder their names, or leaves nothing behind.

        Raises:
          OSError: the disk is full or the folder cannot be written to.
        """
        content = {
            "images": list(self._images.values()),
            "annotations": self._annotations,
            "categories": [category.to_json() for category in self._categories],
        }
        with self._stack, atomic_write(self._json, "w") as file:
            json.dump(content, file)
            file.flush()
            self._stack.close()

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is None:
            self.close()
        else:
            self._stack.__exit__(error_type, error, traceback)

    def _png_name(self, stem: str) -> str:
        name, copies = f"{stem}.png", 1
        while name in self._names:
            copies += 1
            name = f"{stem}-{copies}.png"
        return name

    def _segments(self, panoptic: np.ndarray, file_name: str) -> list[dict[str, Any]]:
        segments = []
        for value, area in zip(*count_values(panoptic), strict=True):
            if value == 0:
                continue
            category_id = int(value) // CATEGORY_DIVISOR
            if category_id not in self._category_ids:
                raise InputError(
                    f"{file_name}: segment {value} has category {category_id}, which "
                    f"is not in the list of categories; the value of a segment is "
                    f"category id * {CATEGORY_DIVISOR} + instance"
                )
            if value > MAX_ID:
                raise InputError(
                    f"{file_name}: segment {value} of category {category_id} does not "
                    f"fit in a PNG colour, at most {MAX_ID}; the data set's category "
                    f"ids must stay below {MAX_CATEGORY_ID}"
                )
            segments.append(
                {
                    "id": int(value),
                    "category_id": category_id,
                    "area": int(area),
                    "bbox": _bounding_box(panoptic == value),
                    "iscrowd": 0,
                }
            )
        return segments


@contextlib.contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    """If the block raises, removes what it made of `folder` and those above it."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        raise


def _bounding_box(mask: np.ndarray) -> list[int]:
    """[x, y, width, height] in pixels of a mask [H, W] that is not empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
