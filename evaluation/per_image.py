"""The counts of single images as a CSV file, for people and for comparisons."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import ImageId
from cmt.io.files import atomic_write
from cmt.io.storage import Location

# The category of the lines that stand for a whole image.
ALL = "all"
_SUMS = ("iou_sum", "tp", "fp", "fn")
FIELDS = ("image_id", "file_name", "category_id", "isthing", "pq", "sq", "rq", *_SUMS)


class ImageCounts(NamedTuple):
    """What is counted in an image.

    Attributes:
      image_id: of the ground truth.
      file_name: of the image; "" where the ground truth does not name it.
      rows: [K] int, places of the classes that occur in the list of categories.
      counts: [K, 4], their IoU sum, TP, FP and FN.
    """

    image_id: ImageId
    file_name: str
    rows: np.ndarray
    counts: np.ndarray


def write_images(
    path: Location, categories: Sequence[Category], images: Iterable[ImageCounts]
) -> None:
    """Writes a line for each image, category "all", then one for each class in it.

    PQ, SQ and RQ are in percent, those of an image means over the classes that occur
    in it, and empty where none does.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for image in images:
        named = (image.image_id, image.file_name)
        qualities = [_qualities(counts) for counts in image.counts]
        means = np.mean(qualities, axis=0).tolist() if qualities else ["", "", ""]
        writer.writerow([*named, ALL, "", *means, *_sums(image.counts.sum(axis=0))])
        for row, counts, quality in zip(
            image.rows, image.counts, qualities, strict=True
        ):
            category = (categories[row].id, int(categories[row].is_thing))
            writer.writerow([*named, *category, *quality, *_sums(counts)])
    with atomic_write(path) as file:
        file.write(text.getvalue().encode("utf-8"))


def _qualities(counts: np.ndarray) -> list[float]:
    """PQ, SQ and RQ of one class, in percent."""
    iou_sum, tp, fp, fn = counts.tolist()
    size = tp + 0.5 * fp + 0.5 * fn
    return [100 * iou_sum / size, 100 * iou_sum / tp if tp else 0.0, 100 * tp / size]


def _sums(counts: np.ndarray) -> list[float | int]:
    iou_sum, *numbers = counts.tolist()
    return [iou_sum, *map(int, numbers)]
