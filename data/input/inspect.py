"""What is in TFRecords: counts, classes, pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from cmt.data.input.contact_sheet import draw_cell, write_sheet
from cmt.data.input.pipeline import Split, open_split, split_name
from cmt.data.panoptic.annotations import LABEL_DIVISOR
from cmt.data.panoptic.categories import Category
from cmt.data.records.index import index_records
from cmt.data.records.reader import example_reader, why_damaged
from cmt.errors import InputError
from cmt.io import storage
from cmt.io.progress import track
from cmt.outputs import Targets

SHEET_IMAGES = 24
_THING_AREAS = (32**2, 96**2)  # where COCO's medium and large things begin


class ClassCount(NamedTuple):
    """How often a class occurs.

    Attributes:
      category: the class.
      images: images with it.
      instances: things of it; for stuff the same as `images`.
      pixels: pixels of it, those of crowd with instance 0 included.
    """

    category: Category
    images: int
    instances: int
    pixels: int


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What is in the shards of one split.

    Attributes:
      split: its name.
      folder: of the shards.
      shards: number of files read.
      images: number of records.
      pixels: of all images.
      void_pixels: of these, those without a class.
      most_masks: masks of the image that has the most.
      masks_per_image: images with 0, 1, 2, ... masks.
      heights: smallest, median and largest, in pixels.
      widths: likewise.
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
        content = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "classes"
        }
        content["classes"] = [
            {
                "id": count.category.id,
                "name": count.category.name,
                "isthing": int(count.category.is_thing),
                "images": count.images,
                "instances": count.instances,
                "pixels": count.pixels,
            }
            for count in self.classes
        ]
        return content


def find_sources(patterns: Sequence[str], annotations: str = "") -> list[Split]:
    """The shards that folders, patterns or paths name, by folder and split.

    Args:
      patterns: folders, patterns or shard files, local or with a scheme.
      annotations: COCO panoptic json with the classes of shards without manifest.

    Raises:
      InputError: nothing fits, or shards and manifest do not belong together.
    """
    groups: dict[tuple[str, str], set[str]] = {}
    for pattern in patterns:
        wanted = pattern
        if storage.is_folder(pattern):
            wanted = storage.join(pattern, "*.tfrecord")
        # Of what a pattern such as val* fits, the manifest and indices are no shards.
        found = [f for f in storage.find_files(wanted) if f.endswith(".tfrecord")]
        if not found:
            raise InputError(
                f"{pattern}: no TFRecord file; give shards that `cmt data convert` "
                "wrote, their folder, or a pattern"
            )
        for file in found:
            group = storage.split(file)[0], split_name(file)
            groups.setdefault(group, set()).add(file)
    return [
        open_split(sorted(files), annotations=annotations)
        for _, files in sorted(groups.items())
    ]


def inspect(source: Split, *, picture: Path | str | None = None) -> Inspection:
    """Counts what is in shards and checks them against their checksums.

    Args:
      source: the shards.
      picture: PNG to write, the first images with their segments drawn over them;
        None for none.

    Raises:
      InputError: a shard is not what the manifest says, or a record is damaged.
    """
    _check_digests(source)
    categories = source.manifest.categories
    tally = _Tally(categories)
    cells = []
    for image, labels in track(
        _examples(source), description="inspect", total=source.num_images
    ):
        tally.add(labels)
        if picture is not None and len(cells) < SHEET_IMAGES:
            cells.append(
                draw_cell(image, *np.divmod(labels, LABEL_DIVISOR), categories)
            )
    if picture is not None:
        write_sheet(picture, cells)
    return tally.inspection(source)


def draw_batches(
    batches: Iterable[tuple[tf.Tensor, Targets]],
    categories: Sequence[Category],
    path: Path | str,
) -> None:
    """Writes a sheet of what the network sees, with the targets drawn over it.

    Args:
      batches: of the training pipeline, at least one; the first images are drawn.
      categories: the classes.
      path: of the PNG.
    """
    cells = []
    for images, targets in batches:
        parts = (images, targets.semantic, targets.mask_ids)
        for image, classes, segments in zip(*(p.numpy() for p in parts), strict=True):
            cells.append(draw_cell(image, classes, segments, categories))
        if len(cells) >= SHEET_IMAGES:
            break
    write_sheet(path, cells[:SHEET_IMAGES])


class _Tally:
    """Counts label maps."""

    def __init__(self, categories: Sequence[Category]):
        self._categories = categories
        self._is_thing = np.array([False, *(c.is_thing for c in categories)])
        # Of void and each class: images, instances, pixels.
        self._counts = np.zeros((len(categories) + 1, 3), np.int64)
        self._masks: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._thing_sizes = np.zeros(3, np.int64)

    def add(self, labels: np.ndarray) -> None:
        """Adds [H, W] labels of an image."""
        values, areas = np.unique(labels, return_counts=True)
        classes = values // LABEL_DIVISOR
        is_instance = self._is_thing[classes] & (values % LABEL_DIVISOR > 0)
        present = np.unique(classes)
        stuff = present[(present > 0) & ~self._is_thing[present]]
        self._counts[present, 0] += 1
        self._counts[stuff, 1] += 1
        np.add.at(self._counts[:, 1], classes[is_instance], 1)
        np.add.at(self._counts[:, 2], classes, areas)
        sizes = np.searchsorted(_THING_AREAS, areas[is_instance], side="right")
        self._thing_sizes += np.bincount(sizes, minlength=3)
        self._masks.append(int(is_instance.sum()) + len(stuff))
        self._sizes.append(labels.shape)

    def inspection(self, source: Split) -> Inspection:
        """What was counted in some shards."""
        return Inspection(
            split=source.manifest.split,
            folder=storage.split(source.files[0])[0],
            shards=len(source.files),
            images=len(self._masks),
            pixels=int(self._counts[:, 2].sum()),
            void_pixels=int(self._counts[0, 2]),
            most_masks=max(self._masks),
            masks_per_image=np.bincount(self._masks).tolist(),
            heights=_spread([height for height, _ in self._sizes]),
            widths=_spread([width for _, width in self._sizes]),
            thing_sizes=tuple(self._thing_sizes.tolist()),
            classes=[
                ClassCount(category, *self._counts[index + 1].tolist())
                for index, category in enumerate(self._categories)
            ],
        )


def _spread(values: Sequence[int]) -> tuple[int, int, int]:
    return min(values), int(np.median(values)), max(values)


def _check_digests(source: Split) -> None:
    expected = {shard.name: shard.sha256 for shard in source.manifest.shards}
    for file in source.files:
        digest = expected[storage.split(file)[1]]
        # Made from annotations, a manifest knows no checksums.
        if digest and digest != storage.sha256(file):
            raise InputError(
                f"{file}: its SHA-256 differs from the manifest's; it was changed or "
                "damaged: convert again with --resume"
            )


def _examples(source: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Image and labels of every record."""
    remedy = "convert the split again with --resume"
    index = index_records(source.files, remedy=remedy)
    num_classes = len(source.manifest.categories)
    numbers = tf.data.Dataset.range(index.num_records)
    read = example_reader(index, num_classes=num_classes)
    examples = numbers.map(read, tf.data.AUTOTUNE).as_numpy_iterator()
    num_read = 0
    try:
        for example in examples:
            yield example.image, example.labels
            num_read += 1
    except tf.errors.OpError as error:
        for record in range(num_read, index.num_records):
            if reason := why_damaged(index, record, num_classes):
                raise InputError(
                    f"{index.describe(record)}: {reason}; convert the split again"
                ) from error
        raise
