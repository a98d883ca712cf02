"""What is in TFRecords: counts, classes, pictures."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from cmt.data.categories import Category
from cmt.data.files import atomic_write
from cmt.data.pipeline import Source, find_source
from cmt.data.progress import track
from cmt.data.tfrecord import Example, decode_example
from cmt.errors import InputError

_CELL_PIXELS = 194
_COLUMNS = 6
_SHEET_IMAGES = 24


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
    """What is in one split.

    Attributes:
      split: its name.
      shards: number of files read.
      images: number of records.
      pixels: of all images.
      void_pixels: of these, those without a class.
      most_masks: masks of the image that has the most.
      classes: in the order of the manifest.
    """

    split: str
    shards: int
    images: int
    pixels: int
    void_pixels: int
    most_masks: int
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


def find_sources(patterns: Sequence[str]) -> list[Source]:
    """The splits that folders, patterns or shard files name, one source each.

    Raises:
      InputError: nothing fits, or shards and manifest do not belong together.
    """
    files: set[Path] = set()
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            path = path / "*.tfrecord"
        found = {file for file in path.parent.glob(path.name) if file.is_file()}
        if not found:
            raise InputError(
                f"{pattern}: no TFRecord file; give shards that `cmt data convert` "
                "wrote, their folder, or a pattern"
            )
        files |= found
    groups = {
        (file.parent, file.name.rpartition("-of-")[0].rpartition("-")[0])
        for file in files
    }
    return [
        find_source(str(folder / f"{split}-*.tfrecord"))
        for folder, split in sorted(groups)
    ]


def inspect(source: Source, *, output: Path | str | None = None) -> Inspection:
    """Counts what is in a split and checks the shards against their checksums.

    Args:
      source: the shards.
      output: folder for `{split}.png`, the first images with their segments drawn
        over them; None for none.

    Raises:
      InputError: a shard is not what the manifest says, or a record is damaged.
    """
    _check_digests(source)
    categories = source.manifest.categories
    counts = np.zeros((len(categories) + 1, 3), np.int64)  # images, instances, pixels
    most_masks = num_images = 0
    cells = []
    for name, image, labels in track(
        _examples(source), description="inspect", total=source.num_images
    ):
        num_images += 1
        values, areas = np.unique(labels, return_counts=True)
        if values.max() // 256 > len(categories):
            raise InputError(
                f"{source.files[0]}: image {name} has class {values.max() // 256}, but "
                f"the manifest has {len(categories)}; convert the split again"
            )
        most_masks = max(most_masks, _count(counts, values, areas, categories))
        if output is not None and len(cells) < _SHEET_IMAGES:
            cells.append(_cell(image, labels, categories))
    split = source.manifest.split
    if output is not None:
        with atomic_write(Path(output) / f"{split}.png") as file:
            _sheet(cells).save(file, "PNG")
    return Inspection(
        split=split,
        shards=len(source.files),
        images=num_images,
        pixels=int(counts[:, 2].sum()),
        void_pixels=int(counts[0, 2]),
        most_masks=most_masks,
        classes=[
            ClassCount(category, *counts[index + 1].tolist())
            for index, category in enumerate(categories)
        ],
    )


def _check_digests(source: Source) -> None:
    expected = {shard.name: shard.sha256 for shard in source.manifest.shards}
    for file in source.files:
        with Path(file).open("rb") as opened:
            digest = hashlib.sha256()
            while block := opened.read(2**20):
                digest.update(block)
        if digest.hexdigest() != expected[Path(file).name]:
            raise InputError(
                f"{file}: its SHA-256 differs from the manifest's; it was changed or "
                "damaged: convert again with --resume"
            )


def _examples(source: Source) -> Iterator[Example]:
    records = tf.data.TFRecordDataset(source.files)
    examples = records.map(decode_example, tf.data.AUTOTUNE).as_numpy_iterator()
    try:
        for name, image, labels in examples:
            yield Example(name.decode(), image, labels)
    except tf.errors.OpError as error:
        reason = error.message.splitlines()[0]
        raise InputError(
            f"{source.files[0]}: a record cannot be decoded ({reason}); convert the "
            "split again"
        ) from error


def _count(
    counts: np.ndarray,
    values: np.ndarray,
    areas: np.ndarray,
    categories: Sequence[Category],
) -> int:
    """Adds the labels of an image to the counts; returns its number of masks."""
    classes = values // 256
    is_thing = np.array([False, *(category.is_thing for category in categories)])
    is_instance = is_thing[classes] & (values % 256 > 0)
    present = np.unique(classes)
    stuff = present[(present > 0) & ~is_thing[present]]
    counts[present, 0] += 1
    counts[stuff, 1] += 1
    np.add.at(counts[:, 1], classes[is_instance], 1)
    np.add.at(counts[:, 2], classes, areas)
    return int(is_instance.sum()) + len(stuff)


def _cell(
    image: np.ndarray, labels: np.ndarray, categories: Sequence[Category]
) -> Image.Image:
    """The image above its segments, in colours of their classes with white borders."""
    colors = np.array(
        [(0, 0, 0), *(category.color for category in categories)], np.float32
    )
    # Instances of a class differ a little.
    shade = 1 - 0.12 * (labels % 256 % 4)
    paint = colors[labels // 256] * shade[..., None]
    mixed = np.where((labels > 0)[..., None], 0.4 * image + 0.6 * paint, 0.3 * image)
    border = np.zeros(labels.shape, bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    mixed[border] = 255
    height, width = labels.shape
    scale = _CELL_PIXELS / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    cell = Image.new("RGB", (_CELL_PIXELS, 2 * _CELL_PIXELS), "white")
    cell.paste(Image.fromarray(image).resize(size), (0, 0))
    cell.paste(Image.fromarray(mixed.astype(np.uint8)).resize(size), (0, _CELL_PIXELS))
    return cell


def _sheet(cells: Sequence[Image.Image]) -> Image.Image:
    gap = 6
    columns = min(_COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    width, height = cells[0].width + gap, cells[0].height + gap
    sheet = Image.new("RGB", (columns * width + gap, rows * height + gap), "white")
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet.paste(cell, (gap + column * width, gap + row * height))
    return sheet
