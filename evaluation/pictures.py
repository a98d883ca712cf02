"""Pictures of panoptic maps and of the clustering behind them.

Everything works on NumPy arrays; images are [H, W, 3] uint8 RGB.
"""

from __future__ import annotations

import colorsys
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cmt.data.panoptic.categories import Category
from cmt.evaluation.coco_format import CATEGORY_DIVISOR
from cmt.io.files import atomic_write

Color = tuple[int, int, int]

_GOLDEN_RATIO = 0.618034
_OPACITY = 0.55
# Distance of two RGB colours from which on they are told apart at a glance.
_FAR = 80
_CONTOUR: Color = (255, 255, 255)
# Pictures are enlarged by a whole factor until a side has this many pixels, so that
# names are legible on small images.
_LEAST_SIDE_PIXELS = 480
_SMALLEST_FONT_PIXELS = 10
_LARGEST_FONT_PIXELS = 28


class SheetRow(NamedTuple):
    """One image of a sheet about the clustering.

    Attributes:
      image: [H, W, 3] uint8.
      ground_truth: a picture [*, *, 3] uint8, from `draw_overlay`.
      prediction: a picture, likewise.
      assignments: for each layer [h, w] int, the center of each pixel.
      reference_points: for each layer [K, M, 2] float, (h, w) in [0, 1], of the
        confident centers.
      centers: [K] int, which centers these are.
      valid_share: (height, width) in (0, 1]: the coordinates of the last row and
        column that are image and not padding, in [0, 1] like the reference points.
    """

    image: np.ndarray
    ground_truth: np.ndarray
    prediction: np.ndarray
    assignments: Sequence[np.ndarray]
    reference_points: Sequence[np.ndarray]
    centers: np.ndarray
    valid_share: tuple[float, float] = (1.0, 1.0)


def segment_colors(
    panoptic: np.ndarray, categories: Sequence[Category]
) -> dict[int, Color]:
    """Gives each segment a colour near its class's, different from all others.

    Args:
      panoptic: [H, W] int, category_id * 1000 + instance, 0 where void.
      categories: the classes.

    Returns:
      segment id -> RGB.
    """
    base = {category.id: category.color for category in categories}
    colors: dict[int, Color] = {}
    taken: set[Color] = {(0, 0, 0), _CONTOUR}
    for number in np.unique(panoptic[panoptic != 0]).tolist():
        category_color = base.get(number // CATEGORY_DIVISOR, (128, 128, 128))
        color = _most_distinct(_variations(category_color), taken)
        colors[number] = color
        taken.add(color)
    return colors


def _variations(color: Color, number: int = 64) -> list[Color]:
    """The colour, then others of ever more different hue, in turn dark and light."""
    colors = [color]
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in color))
    for index in range(1, number):
        spread = 0.04 + 0.002 * index
        turn = spread * (2 * (index * _GOLDEN_RATIO % 1.0) - 1)
        red, green, blue = colorsys.hsv_to_rgb(
            (hue + turn) % 1.0,
            (max(saturation, 0.4), 0.95, 0.5)[index % 3],
            (1.0, 0.5, max(value, 0.6), 0.75)[index % 4],
        )
        colors.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colors


def _most_distinct(candidates: Sequence[Color], taken: set[Color]) -> Color:
    """The first if it is far from all taken, else the one that is farthest."""

    def distance(color: Color) -> float:
        return min(math.dist(color, other) for other in taken)

    if distance(candidates[0]) >= _FAR:
        return candidates[0]
    return max(candidates, key=distance)


def draw_overlay(
    image: np.ndarray,
    panoptic: np.ndarray,
    categories: Sequence[Category],
    *,
    names: bool = True,
    enlarge: bool = True,
) -> np.ndarray:
    """Draws segments over an image: colours, contours, class names.

    Args:
      image: [H, W, 3] uint8.
      panoptic: [H, W] int, category_id * 1000 + instance; void (0) is left as it is.
      categories: the classes.
      names: write class names inside the segments.
      enlarge: enlarge small images by a whole factor first.

    Returns:
      [kH, kW, 3] uint8, k = 1 without `enlarge`.
    """
    factor = _factor(image.shape[:2]) if enlarge else 1
    height, width = image.shape[:2]
    canvas = np.asarray(
        Image.fromarray(image).resize((width * factor, height * factor))
    ).astype(np.float32)
    labels = panoptic.repeat(factor, axis=0).repeat(factor, axis=1)
    for number, color in segment_colors(panoptic, categories).items():
        inside = labels == number
        canvas[inside] = (1 - _OPACITY) * canvas[inside] + _OPACITY * np.array(color)
    canvas[contours(labels)] = _CONTOUR
    picture = Image.fromarray(canvas.round().astype(np.uint8))
    if names:
        _write_names(picture, labels, {item.id: item.name for item in categories})
    return np.asarray(picture)


def contours(labels: np.ndarray) -> np.ndarray:
    """[H, W] bool: the pixels whose right or lower neighbour is another segment."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def _factor(size: tuple[int, int]) -> int:
    return max(1, math.ceil(_LEAST_SIDE_PIXELS / max(size)))


def _write_names(
    picture: Image.Image, labels: np.ndarray, names: Mapping[int, str]
) -> None:
    """Writes each segment's name around its innermost pixel, large segments first.

    A name that would cover one already written is left out.
    """
    draw = ImageDraw.Draw(picture)
    numbers, areas = np.unique(labels[labels != 0], return_counts=True)
    boxes: list[tuple[float, float, float, float]] = []
    for number in numbers[np.argsort(-areas, kind="stable")].tolist():
        row, column, depth = _innermost(labels == number)
        name = names.get(number // CATEGORY_DIVISOR, "?")
        size = min(max(depth * 0.7, _SMALLEST_FONT_PIXELS), _LARGEST_FONT_PIXELS)
        font = _font(round(size))
        left, top, right, bottom = draw.textbbox((0, 0), name, font, stroke_width=1)
        x = min(max(column - (left + right) / 2, -left), picture.width - right)
        y = min(max(row - (top + bottom) / 2, -top), picture.height - bottom)
        box = (x + left, y + top, x + right, y + bottom)
        if any(_overlap(box, other) for other in boxes):
            continue
        boxes.append(box)
        draw.text(
            (x, y), name, (255, 255, 255), font, stroke_width=1, stroke_fill=(0, 0, 0)
        )


def _innermost(mask: np.ndarray) -> tuple[int, int, float]:
    """Row and column of the pixel farthest from the mask's edge, and how far."""
    from scipy import ndimage

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    distance = ndimage.distance_transform_edt(np.pad(window, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(np.argmax(distance), distance.shape)
    return int(row + rows[0]), int(column + columns[0]), float(distance.max())


def _overlap(box: Sequence[float], other: Sequence[float]) -> bool:
    return (
        box[0] < other[2]
        and other[0] < box[2]
        and box[1] < other[3]
        and other[1] < box[3]
    )


@functools.lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def center_colors(num_centers: int) -> np.ndarray:
    """[num_centers, 3] uint8: colours that neighbours in number do not share."""
    colors = [
        colorsys.hsv_to_rgb(
            index * _GOLDEN_RATIO % 1.0,
            (0.85, 0.55, 1.0)[index % 3],
            (1.0, 0.8, 0.6)[index // 3 % 3],
        )
        for index in range(num_centers)
    ]
    return (np.array(colors).reshape(-1, 3) * 255).round().astype(np.uint8)


def save_picture(path: Path | str, picture: np.ndarray) -> None:
    """Writes a picture as PNG, atomically."""
    with atomic_write(path) as file:
        Image.fromarray(picture).save(file, format="PNG")


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    *,
    cell_pixels: int = 240,
    gap_pixels: int = 6,
) -> np.ndarray:
    """Puts pictures in a grid under column titles.

    Args:
      rows: pictures [*, *, 3] uint8; a row may be shorter than the titles.
      titles: one a column.
      cell_pixels: a picture is scaled so that its longer side has this many pixels.
      gap_pixels: space around the pictures.

    Returns:
      [H, W, 3] uint8.
    """
    title_pixels = 24
    step = cell_pixels + gap_pixels
    sheet = Image.new(
        "RGB",
        (len(titles) * step + gap_pixels, len(rows) * step + gap_pixels + title_pixels),
        (255, 255, 255),
    )
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((column * step + gap_pixels, 4), title, (0, 0, 0), _font(15))
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            cell = _fit(picture, cell_pixels)
            x = gap_pixels + column * step + (cell_pixels - cell.width) // 2
            y = title_pixels + gap_pixels + row * step
            sheet.paste(cell, (x, y + (cell_pixels - cell.height) // 2))
    return np.asarray(sheet)


def _fit(picture: np.ndarray, side: int) -> Image.Image:
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    return Image.fromarray(picture).resize(size, smooth)


def clustering_sheet(rows: Sequence[SheetRow], *, num_centers: int) -> np.ndarray:
    """Image, ground truth, prediction, each layer's assignment, reference points.

    A pixel of an assignment has the colour of its center; the last column shows the
    last layer's reference points of the confident centers, in the same colours, with
    a ring at their mean. Columns that no row has are left out.

    Returns:
      [H, W, 3] uint8.
    """
    colors = center_colors(num_centers)
    num_layers = max((len(row.assignments) for row in rows), default=0)
    titles = ["image", "ground truth", "prediction"]
    titles += [f"layer {index + 1}" for index in range(num_layers)]
    if any(row.reference_points for row in rows):
        titles.append("reference points")
    return contact_sheet([_sheet_row(row, colors) for row in rows], titles)


def _sheet_row(row: SheetRow, colors: np.ndarray) -> list[np.ndarray]:
    pictures = [row.image, row.ground_truth, row.prediction]
    height, width = row.image.shape[:2]
    for assignment in row.assignments:
        last = (np.array(assignment.shape) - 1) * row.valid_share
        rows = np.rint(np.linspace(0, last[0], height)).astype(int)
        columns = np.rint(np.linspace(0, last[1], width)).astype(int)
        pictures.append(colors[assignment[rows][:, columns]])
    if row.reference_points:
        pictures.append(_draw_points(row, row.reference_points[-1], colors))
    return pictures


def _draw_points(row: SheetRow, points: np.ndarray, colors: np.ndarray) -> np.ndarray:
    factor = _factor(row.image.shape[:2])
    height, width = (side * factor for side in row.image.shape[:2])
    faded = Image.fromarray(row.image // 2 + 96).resize((width, height))
    draw = ImageDraw.Draw(faded)
    size = np.array([height - 1, width - 1]) / np.array(row.valid_share)
    for center, center_points in zip(row.centers.tolist(), points, strict=True):
        color = tuple(colors[center].tolist())
        for y, x in (center_points * size).tolist():
            draw.ellipse((x - 7, y - 7, x + 7, y + 7), color, (0, 0, 0))
        y, x = (center_points.mean(0) * size).tolist()
        draw.ellipse((x - 13, y - 13, x + 13, y + 13), None, color, 4)
    return np.asarray(faded)
