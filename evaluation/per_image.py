"""The counts of single images as a CSV file, for people and for comparisons."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import ImageId
from cmt.errors import InputError
from cmt.io.files import atomic_write
from cmt.io.storage import Location, read_bytes

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

    @property
    def qualities(self) -> np.ndarray:
        """[K, 3], PQ, SQ and RQ of each class, in percent."""
        iou_sum, tp, fp, fn = self.counts.T
        size = tp + 0.5 * fp + 0.5 * fn
        sq = np.divide(iou_sum, tp, out=np.zeros_like(tp), where=tp > 0)
        return 100 * np.stack([iou_sum / size, sq, tp / size], axis=-1)


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
        qualities = image.qualities.tolist()
        means = np.mean(qualities, axis=0).tolist() if qualities else ["", "", ""]
        writer.writerow([*named, ALL, "", *means, *_sums(image.counts.sum(axis=0))])
        for row, counts, quality in zip(
            image.rows, image.counts, qualities, strict=True
        ):
            category = (categories[row].id, int(categories[row].is_thing))
            writer.writerow([*named, *category, *quality, *_sums(counts)])
    with atomic_write(path) as file:
        file.write(text.getvalue().encode("utf-8"))


def _sums(counts: np.ndarray) -> list[float | int]:
    iou_sum, *numbers = counts.tolist()
    return [iou_sum, *map(int, numbers)]


class ImageTable(NamedTuple):
    """What `write_images` wrote, less what follows from the sums.

    Attributes:
      is_thing: by category id.
      images: by image id: IoU sum, TP, FP and FN by category id. Ids are text.
    """

    is_thing: dict[str, bool]
    images: dict[str, dict[str, list[float]]]

    def counts(self, images: Iterable[str], categories: Sequence[str]) -> np.ndarray:
        """Counts [I, C, 4] of these images and classes; 0 for what does not occur."""
        none = [0.0] * len(_SUMS)
        rows = [
            [self.images[image].get(category, none) for category in categories]
            for image in images
        ]
        return np.array(rows).reshape([len(rows), len(categories), len(_SUMS)])


def read_images(path: Location) -> ImageTable:
    """Reads what `write_images` wrote.

    Raises:
      InputError: the file is missing or of another kind.
    """
    table = ImageTable({}, {})
    try:
        text = read_bytes(path).decode("utf-8")
        for line in csv.DictReader(io.StringIO(text)):
            of_image = table.images.setdefault(line["image_id"], {})
            category = line["category_id"]
            if category != ALL:
                of_image[category] = [float(line[key]) for key in _SUMS]
                table.is_thing[category] = bool(int(line["isthing"]))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file; evaluate again with `cmt eval`, which writes it"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not the scores of images as `cmt eval` writes them ({error!r}); "
            "evaluate again"
        ) from error
    return table
