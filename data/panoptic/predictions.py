"""Predictions as COCO panoptic files: a json of segments beside PNGs of ids.

See https://cocodataset.org/#format-data, "Panoptic Segmentation". The id of a
predicted segment is category id * 1000 + instance.
"""

from __future__ import annotations

import contextlib
import json
import operator
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import MAX_CATEGORY_ID, MAX_SEGMENT_ID, ImageId
from cmt.data.panoptic.masks import write_ids
from cmt.errors import InputError
from cmt.io.files import atomic_directory, atomic_write
from cmt.labels import CATEGORY_DIVISOR, count_values

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
    """Makes the ids of a prediction's segments, category id * 1000 + instance.

    Args:
      classes: [H, W] integers, contiguous class 1 to C, 0 where void.
      instances: [H, W] integers, 0 to 999; not read where void.

    Returns:
      [H, W] int32, 0 where void.
    """
    ids = np.array([0, *(category.id for category in categories)])
    numbered = ids[classes] * CATEGORY_DIVISOR + instances
    return np.where(classes > 0, numbered, 0).astype(np.int32)


def segment_scores(segment_ids: np.ndarray, scores: np.ndarray) -> dict[int, float]:
    """The score of each segment of an image, as a predictor returns them.

    Args:
      segment_ids: [N] integers, padded with 0.
      scores: [N] floats.
    """
    pairs = zip(segment_ids.tolist(), scores.tolist(), strict=True)
    return {number: score for number, score in pairs if number}


@contextlib.contextmanager
def write_predictions(
    directory: Path | str, categories: Sequence[Category]
) -> Iterator[PredictionWriter]:
    """Yields a writer of `panoptic.json` and `panoptic/*.png` below a directory.

    PNGs are written as images come, to a temporary folder; the end of the block gives
    both their names and replaces earlier ones. If the block raises, nothing is left
    behind and what was there stays.

    Raises:
      OSError: the disk is full or the folder cannot be written to.
    """
    directory = Path(directory)
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        with (
            atomic_write(directory / PREDICTIONS_FILE, "w") as file,
            atomic_directory(directory / MASKS_FOLDER, overwrite=True) as folder,
        ):
            writer = PredictionWriter(folder, categories)
            yield writer
            json.dump(writer.content, file)
            file.flush()  # A full disk must be noticed before the folder is replaced.
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        raise


class PredictionWriter:
    """Writes PNGs to a folder, and keeps what the json says of them."""

    def __init__(self, folder: Path, categories: Sequence[Category]):
        self._folder = folder
        self._categories = categories
        self._category_ids = {category.id for category in categories}
        self._lock = threading.Lock()
        self._image_ids: set[ImageId] = set()
        self._png_names: set[str] = set()
        self._written: list[tuple[int, dict[str, Any], dict[str, Any]]] = []

    @property
    def content(self) -> dict[str, list[dict[str, Any]]]:
        """What belongs in the json."""
        entries = sorted(self._written, key=operator.itemgetter(0))
        return {
            "images": [image for _, image, _ in entries],
            "annotations": [annotation for _, _, annotation in entries],
            "categories": [category.to_json() for category in self._categories],
        }

    def add(
        self,
        image_id: ImageId,
        file_name: str,
        panoptic: np.ndarray,
        scores: Mapping[int, float] | None = None,
        *,
        place: int = 0,
    ) -> None:
        """Writes one image; threads may do so at the same time.

        Args:
          image_id: the data set's own id, once only.
          file_name: of the image; the PNG takes its stem.
          panoptic: [H, W] int32, category id * 1000 + instance, 0 is void.
          scores: how sure the segment of each value is, 0 to 1; mask AP needs them.
            None: nothing is known.
          place: of the image in the json; those of one place are in the order of calls.

        Raises:
          InputError: the image came before, or a value has no category or no colour.
        """
        segments = self._segments(panoptic, file_name, scores)
        with self._lock:
            if image_id in self._image_ids:
                raise InputError(f"image {image_id} ({file_name}) is predicted twice")
            self._image_ids.add(image_id)
            png = self._png_name(Path(file_name).stem)
            self._png_names.add(png)
        write_ids(self._folder / png, panoptic)
        height, width = panoptic.shape
        image = {"id": image_id, "file_name": file_name}
        image |= {"width": width, "height": height}
        annotation = {"image_id": image_id, "file_name": png, "segments_info": segments}
        self._written.append((place, image, annotation))

    def _png_name(self, stem: str) -> str:
        name, copies = f"{stem}.png", 1
        while name in self._png_names:
            copies += 1
            name = f"{stem}-{copies}.png"
        return name

    def _segments(
        self,
        panoptic: np.ndarray,
        file_name: str,
        scores: Mapping[int, float] | None,
    ) -> list[dict[str, Any]]:
        segments = []
        for value, area in zip(*count_values(panoptic), strict=True):
            if value == 0:
                continue
            category_id = int(value) // CATEGORY_DIVISOR
            place = f"{file_name}: segment {value}"
            if category_id not in self._category_ids:
                raise InputError(
                    f"{place} has category {category_id}, which is not in the list of "
                    "categories; the value of a segment is category id * "
                    f"{CATEGORY_DIVISOR} + instance"
                )
            if value > MAX_SEGMENT_ID:
                raise InputError(
                    f"{place} of category {category_id} does not fit in a PNG colour, "
                    f"at most {MAX_SEGMENT_ID}; the data set's category ids must stay "
                    f"below {MAX_CATEGORY_ID}"
                )
            segment = {"id": int(value), "category_id": category_id, "area": int(area)}
            box = _bounding_box(panoptic == value)
            segment |= {"bbox": box, "iscrowd": 0}
            if scores is not None:
                segment["score"] = round(scores[int(value)], 6)
            segments.append(segment)
        return segments


def _bounding_box(mask: np.ndarray) -> list[int]:
    """Returns [x, y, width, height] in pixels of a mask [H, W] that is not empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
