"""The segments of a panoptic map drawn over its image."""

from __future__ import annotations

import colorsys
import functools
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from cmt.io.terminal import printable
from cmt.labels import CATEGORY_DIVISOR, count_values

Color = tuple[int, int, int]


class Class(Protocol):
    """What a picture shows of a class."""

    id: int
    name: str
    color: Color


GOLDEN_RATIO = 0.618034
_OPACITY = 0.55
# Names are placed on a map of about so many pixels a side.
_COARSE_SIDE_PIXELS = 200
# Distance of two RGB colours from which on they are told apart at a glance.
_FAR = 80
_CONTOUR: Color = (255, 255, 255)
# Pictures are enlarged by a whole factor until a side has this many pixels, so that
# names are legible on small images.
_LEAST_SIDE_PIXELS = 480
_SMALLEST_FONT_PIXELS = 10
_LARGEST_FONT_PIXELS = 28
# Of a name that is escaped: two letters of most alphabets, or an emoji.
_ESCAPED_LETTERS = 12


def segment_colors(
    panoptic: np.ndarray, categories: Sequence[Class]
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
    for number in count_values(panoptic)[0].tolist():
        if number == 0:
            continue
        category_color = base.get(number // CATEGORY_DIVISOR, (128, 128, 128))
        color = _most_distinct(_variations(category_color), taken)
        colors[number] = color
        taken.add(color)
    return colors


@functools.lru_cache
def _variations(color: Color, number: int = 64) -> tuple[Color, ...]:
    """Returns the colour, then others that differ more and more, dark and light."""
    colors = [color]
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in color))
    for index in range(1, number):
        spread = 0.04 + 0.002 * index
        turn = spread * (2 * (index * GOLDEN_RATIO % 1.0) - 1)
        red, green, blue = colorsys.hsv_to_rgb(
            (hue + turn) % 1.0,
            (max(saturation, 0.4), 0.95, 0.5)[index % 3],
            (1.0, 0.5, max(value, 0.6), 0.75)[index % 4],
        )
        colors.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colors)


def _most_distinct(candidates: Sequence[Color], taken: set[Color]) -> Color:
    """Returns the first if it is far from all taken ones, else the farthest."""

    def distance(color: Color) -> float:
        return min(math.dist(color, other) for other in taken)

    if distance(candidates[0]) >= _FAR:
        return candidates[0]
    return max(candidates, key=distance)


def draw_overlay(
    image: np.ndarray,
    panoptic: np.ndarray,
    categories: Sequence[Class],
    *,
    names: bool = True,
    enlarge: bool = True,
    colors: Mapping[int, Color] | None = None,
) -> np.ndarray:
    """Draws segments over an image: colours, contours, class names.

    Args:
      image: [H, W, 3] uint8.
      panoptic: [H, W] int, category_id * 1000 + instance; void (0) is left as it is.
      categories: the classes.
      names: write class names inside the segments.
      enlarge: enlarge small images by a whole factor first.
      colors: of the segments and others; None for those of `segment_colors`.

    Returns:
      [kH, kW, 3] uint8, k = 1 without `enlarge`.
    """
    factor = enlargement(image.shape[:2]) if enlarge else 1
    height, width = image.shape[:2]
    size = width * factor, height * factor
    colors = segment_colors(panoptic, categories) if colors is None else colors
    # Each segment's place in a list of colours, of which the first is for void.
    numbers = np.array([0, *sorted(colors)])
    places = np.searchsorted(numbers, panoptic)
    palette = np.array([(0, 0, 0), *(colors[n] for n in sorted(colors))], np.uint8)
    picture, painted = Image.fromarray(image), Image.fromarray(palette[places])
    is_segment = Image.fromarray(np.uint8(255) * (places > 0))
    picture.paste(Image.blend(picture, painted, _OPACITY), mask=is_segment)
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    picture.paste(_CONTOUR, mask=Image.fromarray(contours(panoptic, factor)))
    if names:
        _write_names(picture, panoptic, {item.id: item.name for item in categories})
    return np.asarray(picture)


def contours(labels: np.ndarray, factor: int = 1) -> np.ndarray:
    """Finds pixels whose right or lower neighbour is another segment.

    Args:
      labels: [H, W] integers.
      factor: whole, by which the map is enlarged first.

    Returns:
      [kH, kW] bool, k the factor.
    """
    edge = np.zeros([side * factor for side in labels.shape], bool)
    last = factor - 1  # Of the pixels that one becomes.
    below, beside = labels[:-1] != labels[1:], labels[:, :-1] != labels[:, 1:]
    edge[last:-factor:factor] = below.repeat(factor, axis=1)
    edge[:, last:-factor:factor] |= beside.repeat(factor, axis=0)
    return edge


def enlargement(size: tuple[int, int]) -> int:
    """Returns the whole factor that makes an image of [H, W] pixels large enough."""
    return max(1, math.ceil(_LEAST_SIDE_PIXELS / max(size)))


def _write_names(
    picture: Image.Image, labels: np.ndarray, names: Mapping[int, str]
) -> None:
    """Writes each segment's name around its innermost pixel, large segments first.

    `labels` may be smaller than the picture by a whole factor.

    A name that would cover one already written is left out; a name in letters that
    pictures have not is replaced, see `drawn_name`.
    """
    factor = picture.height / labels.shape[0]
    step = max(1, max(labels.shape) // _COARSE_SIDE_PIXELS)
    numbers, areas = count_values(labels)
    boxes: list[tuple[int, int, int, int]] = []
    for number in numbers[np.argsort(-areas, kind="stable")].tolist():
        if number == 0:
            continue
        mask, scale = labels[::step, ::step] == number, step * factor
        if not mask.any():
            mask, scale = labels == number, factor
        row, column, depth = (scale * value for value in _innermost(mask))
        class_id = number // CATEGORY_DIVISOR
        name = drawn_name(class_id, names.get(class_id, "?"))
        size = min(max(depth * 0.7, _SMALLEST_FONT_PIXELS), _LARGEST_FONT_PIXELS)
        written = _written(name, round(size))
        # Of what is too long, the end is lost and not the beginning.
        left = max(
            min(round(column - written.width / 2), picture.width - written.width), 0
        )
        top = max(
            min(round(row - written.height / 2), picture.height - written.height), 0
        )
        box = (left, top, left + written.width, top + written.height)
        if any(_overlap(box, other) for other in boxes):
            continue
        boxes.append(box)
        picture.paste(written, box[:2], mask=written)


@functools.lru_cache(maxsize=1024)
def _written(name: str, size: int) -> Image.Image:
    """A name in white with a black outline, on nothing."""
    font = font_of(size)
    left, top, right, bottom = font.getbbox(name, stroke_width=1)
    picture = Image.new("RGBA", (math.ceil(right - left), math.ceil(bottom - top)))
    white, black = (255, 255, 255, 255), (0, 0, 0, 255)
    outline = {"stroke_width": 1, "stroke_fill": black}
    ImageDraw.Draw(picture).text((-left, -top), name, white, font, **outline)
    return picture


def load_libraries() -> None:
    """Imports what overlays need, so that it may happen beside other work."""
    _innermost(np.ones([1, 1], bool))
    _letters()


def _innermost(mask: np.ndarray) -> tuple[float, float, float]:
    """The place farthest from a mask's edge: middle of a pixel, and its distance."""
    from scipy import ndimage

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    distance = ndimage.distance_transform_edt(np.pad(window, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(np.argmax(distance), distance.shape)
    return row + rows[0] + 0.5, column + columns[0] + 0.5, float(distance.max())


def _overlap(box: Sequence[int], other: Sequence[int]) -> bool:
    return (
        box[0] < other[2]
        and other[0] < box[2]
        and box[1] < other[3]
        and other[1] < box[3]
    )


def _font_file() -> str:
    """The one font of matplotlib and of all our pictures.

    It has Latin, Greek, Cyrillic, Hebrew and Arabic letters. One with Chinese, Japanese
    and Korean ones is as large as all of this package.
    """
    import matplotlib

    return f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"


@functools.lru_cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Returns a font of that height in pixels."""
    return ImageFont.truetype(_font_file(), size)


@functools.lru_cache
def _letters() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_font_file()).get_charmap())


def drawn_name(class_id: int, name: str) -> str:
    """The name of a class, or what stands for one that pictures cannot show.

    That is its id and how the name begins, as a log in ASCII has it: 17 \\u732b.
    """
    if can_write(name):
        return name
    return f"{class_id} {printable(name, 'ascii')[:_ESCAPED_LETTERS]}"


@functools.lru_cache
def can_write(text: str) -> bool:
    """Whether pictures can show a text: all its letters, in the order of reading."""
    if not {ord(letter) for letter in text} <= _letters():
        return False
    is_leftward = any(unicodedata.bidirectional(c) in ("R", "AL") for c in text)
    return features.check("raqm") or not is_leftward
