"""Sheets of small pictures: images, and their segments in the colours of classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cmt.data.panoptic.categories import Category
from cmt.io.files import atomic_write

_CELL_PIXELS = 194
_COLUMNS = 6
_GAP_PIXELS = 6


def draw_cell(
    image: np.ndarray,
    classes: np.ndarray,
    segments: np.ndarray,
    categories: Sequence[Category],
) -> Image.Image:
    """An image above its segments, which have white borders.

    Args:
      image: [H, W, 3], 0 to 255.
      classes: [H, W], 1 to C, 0 for void, which is drawn dark.
      segments: [H, W], a number for each segment.
      categories: the classes.
    """
    colors = [(0, 0, 0), *(category.color for category in categories)]
    # Instances of a class differ a little.
    shade = 1 - 0.12 * (segments % 4)
    paint = np.array(colors, np.float32)[classes] * shade[..., np.newaxis]
    known = (classes > 0)[..., np.newaxis]
    mixed = np.where(known, 0.4 * image + 0.6 * paint, 0.3 * image)
    border = np.zeros(classes.shape, bool)
    for part in (classes, segments):
        border[:, 1:] |= part[:, 1:] != part[:, :-1]
        border[1:] |= part[1:] != part[:-1]
    mixed[border] = 255
    height, width = classes.shape
    scale = _CELL_PIXELS / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    cell = Image.new("RGB", (_CELL_PIXELS, 2 * _CELL_PIXELS), "white")
    for number, picture in enumerate((image, mixed)):
        small = Image.fromarray(picture.astype(np.uint8)).resize(size)
        cell.paste(small, (0, number * size[1]))
    return cell


def write_sheet(path: Path | str, cells: Sequence[Image.Image]) -> None:
    """Writes cells, at least one, row by row to a PNG."""
    columns = min(_COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    width, height = cells[0].width + _GAP_PIXELS, cells[0].height + _GAP_PIXELS
    size = (columns * width + _GAP_PIXELS, rows * height + _GAP_PIXELS)
    sheet = Image.new("RGB", size, "white")
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        place = (_GAP_PIXELS + column * width, _GAP_PIXELS + row * height)
        sheet.paste(cell, place)
    with atomic_write(path) as file:
        sheet.save(file, "PNG")
