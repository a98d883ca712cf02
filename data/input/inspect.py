"""What is in TFRecords: counts, classes, pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from cmt.data.input.pipeline import Split
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.predictions import panoptic_ids
from cmt.errors import InputError
from cmt.io import storage
from cmt.io.progress import track
from cmt.labels import LABEL_DIVISOR
from cmt.outputs import Targets
from cmt.pictures.overlay import draw_overlay
from cmt.pictures.sheet import contact_sheet, save_picture

SHEET_IMAGES = 24
_SHEET_COLUMNS = 6
_CELL_PIXELS = 194
_THING_AREAS = (32**2, 96**2)  # where COCO's medium and large things begin


class ClassCount(NamedTuple):
    """The images with a class, its instances (stuff: images) and pixels (with crowd).

    `isthing` is 1 for things, 0 for stuff.
    """

    id: int
    name: str
    isthing: int
    images: int
    instances: int
    pixels: int


class Inspection(NamedTuple):
    """What is in the shards of one split: numbers of files, images and pixels.

    Attributes:
      void_pixels: pixels without a class.
      most_masks: masks of the image that has the most.
      masks_per_image: images with 0, 1, 2, ... masks.
      heights, widths: smallest, median and largest, in pixels.
      thing_sizes: things below 32 x 32 pixels, below 96 x 96, and the others.
      classes: in the order of the manifest.
    """

    split: str
    folder: str
    shards: int
    images: int
    pixels: int
    void_pixels: int
    most_masks: int
    masks_per_image: list[int]
    heights: tuple[int, int, int]
    widths: tuple[int, int, int]
    thing_sizes: tuple[int, int, int]
    classes: list[ClassCount]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {**self._asdict(), "classes": [one._asdict() for one in self.classes]}


def inspect(split: Split, *, picture: Path | str | None = None) -> Inspection:
    """Counts what is in shards and checks them against their checksums.

    `picture` is a PNG to write, the first images above their segments; None for none.

    Raises:
      InputError: a shard is not what the manifest says, or a record is damaged.
    """
    split = dataclasses.replace(split, options=None)  # Here no damage is skipped.
    for file, shard in zip(split.files, split.manifest.shards, strict=True):
        # Made from annotations, a manifest knows no checksums.
        if shard.sha256 and shard.sha256 != storage.sha256(file):
            raise InputError(
                f"{file}: its SHA-256 differs from the manifest's; it was changed or "
                "damaged: convert again with --resume"
            )
    is_thing = np.array([False, *split.manifest.is_thing])
    counts = np.zeros((len(is_thing), 3), np.int64)  # images, instances, pixels
    thing_sizes = np.zeros(3, np.int64)
    num_masks, sizes, drawn = [], [], []
    examples = split.examples()
    for example in track(examples, description="inspect", total=split.num_images):
        values, areas = np.unique(example.labels, return_counts=True)
        classes, instances = np.divmod(values, LABEL_DIVISOR)
        is_instance = is_thing[classes] & (instances > 0)
        present = np.unique(classes)
        stuff = present[(present > 0) & ~is_thing[present]]
        counts[present, 0] += 1
        counts[stuff, 1] += 1
        np.add.at(counts[:, 1], classes[is_instance], 1)
        np.add.at(counts[:, 2], classes, areas)
        bins = np.searchsorted(_THING_AREAS, areas[is_instance], side="right")
        thing_sizes += np.bincount(bins, minlength=3)
        num_masks.append(int(is_instance.sum()) + len(stuff))
        sizes.append(example.labels.shape)
        if picture is not None and len(drawn) < SHEET_IMAGES:
            segments = np.divmod(example.labels, LABEL_DIVISOR)
            drawn.append((example.image, *segments))
    if picture is not None:
        _write_sheet(picture, drawn, split.categories)
    heights, widths = zip(*sizes, strict=True)
    return Inspection(
        split=split.manifest.split,
        folder=storage.split(split.files[0])[0],
        shards=len(split.files),
        images=len(num_masks),
        pixels=int(counts[:, 2].sum()),
        void_pixels=int(counts[0, 2]),
        most_masks=max(num_masks),
        masks_per_image=np.bincount(num_masks).tolist(),
        heights=(min(heights), int(np.median(heights)), max(heights)),
        widths=(min(widths), int(np.median(widths)), max(widths)),
        thing_sizes=tuple(thing_sizes.tolist()),
        classes=[
            ClassCount(one.id, one.name, int(one.is_thing), *row)
            for one, row in zip(split.categories, counts[1:].tolist(), strict=True)
        ],
    )


def draw_batches(
    batches: Iterable[tuple[tf.Tensor, Targets]],
    categories: Sequence[Category],
    path: Path | str,
) -> None:
    """Writes a sheet of what the network sees, with the targets drawn over it.

    `batches` are of the training pipeline, at least one; the first images are drawn.
    """
    drawn = []
    for images, targets in batches:
        # 0 where no mask owns the pixel.
        parts = (tf.cast(images, tf.uint8), targets.semantic, targets.mask_ids + 1)
        drawn += zip(*(part.numpy() for part in parts), strict=True)
        if len(drawn) >= SHEET_IMAGES:
            break
    _write_sheet(path, drawn[:SHEET_IMAGES], categories)


def _write_sheet(
    path: Path | str,
    drawn: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    categories: Sequence[Category],
) -> None:
    """Writes rows of images, each above a row of their classes and instances."""
    pairs = []
    for image, *segments in drawn:
        panoptic = panoptic_ids(*segments, categories)
        overlay = draw_overlay(image, panoptic, categories, names=False, enlarge=False)
        pairs.append((image, overlay))
    rows = []
    for start in range(0, len(pairs), _SHEET_COLUMNS):
        rows += zip(*pairs[start : start + _SHEET_COLUMNS], strict=True)
    save_picture(path, contact_sheet(rows, cell_pixels=_CELL_PIXELS))
