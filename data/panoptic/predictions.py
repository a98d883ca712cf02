"""Predictions as COCO panoptic files: a json of segments beside PNGs of ids.

See https://cocodataset.org/#format-data, "Panoptic Segmentation". The id of a
predicted segment is category id * 1000 + instance.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import MAX_CATEGORY_ID, MAX_SEGMENT_ID
from cmt.data.panoptic.masks import write_ids
from cmt.errors import InputError
from cmt.io.files import atomic_directory, atomic_write
from cmt.labels import CATEGORY_DIVISOR

PREDICTIONS_FILE = "panoptic.json"
MASKS_FOLDER = "panoptic"


def check_category_ids(categories: Sequence[Category]) -> None:
    """Checks that the segments of all categories fit in a PNG colour.

    Raises:
      InputError: a category id is too large or not above 0.
    """
    for category in categories:
        if not 1 <= category.id <= MAX_CATEGORY_ID:
            raise InputError(
                f"the id of category '{category.name}' must be from 1 to "
                f"{MAX_CATEGORY_ID}, because panoptic maps hold category_id * "
                f"{CATEGORY_DIVISOR} + instance in the three bytes of a colour and 0 "
                f"is void; got {category.id}; renumber it and convert again"
            )


def panoptic_ids(
    classes: np.ndarray, instances: np.ndarray, categories: Sequence[Category]
) -> np.ndarray:
    """Makes the ids that a prediction gives its segments.

    Args:
      classes: [H, W] integers, contiguous class 1 to C, 0 where void.
      instances: [H, W] integers, 0 to 999; not read where void.
      categories: the classes.

    Returns:
      [H, W] int32, category id * 1000 + instance, 0 where void.
    """
    ids = np.array([0, *(category.id for category in categories)])
    numbered = ids[classes] * CATEGORY_DIVISOR + instances
    return np.where(classes > 0, numbered, 0).astype(np.int32)


def count_values(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts values as `np.unique` does, faster where neighbours are often equal.

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
        self._json = directory / PREDICTIONS_FILE
        self._categories = list(categories)
        self._category_ids = {category.id for category in categories}
        self._images: dict[int | str, dict[str, Any]] = {}
        self._annotations: list[dict[str, Any]] = []
        self._names: set[str] = set()
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(_removed_on_failure(directory))
        self._folder = self._stack.enter_context(
            atomic_directory(directory / MASKS_FOLDER, overwrite=True)
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
            if value > MAX_SEGMENT_ID:
                raise InputError(
                    f"{file_name}: segment {value} of category {category_id} does not "
                    f"fit in a PNG colour, at most {MAX_SEGMENT_ID}; the data set's "
                    f"category ids must stay below {MAX_CATEGORY_ID}"
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
    """Removes `folder` and folders above it that the block made, if it raises."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        raise


def _bounding_box(mask: np.ndarray) -> list[int]:
    """Returns [x, y, width, height] in pixels of a mask [H, W] that is not empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
