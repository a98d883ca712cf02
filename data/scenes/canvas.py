"""One procedural scene: shapes on textured ground, with their panoptic labels.

Things differ by shape, not by colour; how many there are and how much they touch and
hide each other is up to the level.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cmt.data.panoptic.categories import Category
from cmt.data.scenes.levels import LEVELS, Level
from cmt.data.scenes.shapes import SHAPES
from cmt.data.scenes.textures import TEXTURES

THINGS = tuple(SHAPES)
STUFF = tuple(TEXTURES)

# Ids with a gap, as COCO's have.
CATEGORIES = (
    Category(1, "disc", True, (220, 20, 60)),
    Category(2, "square", True, (0, 82, 204)),
    Category(3, "triangle", True, (255, 179, 0)),
    Category(4, "ring", True, (142, 36, 170)),
    Category(5, "cross", True, (0, 188, 212)),
    Category(6, "star", True, (255, 112, 67)),
    Category(11, "water", False, (79, 129, 189)),
    Category(12, "tiles", False, (141, 110, 99)),
    Category(13, "grass", False, (124, 179, 66)),
    Category(14, "sand", False, (240, 220, 130)),
)
_ID = {category.name: category.id for category in CATEGORIES}

_TURN = np.pi / 10  # of a shape, in radians, either way
_CROWD_RADIUS = (0.026, 0.036)  # of a piece of it, as shares of the image's side
_MIN_STUFF_AREA = 0.03  # visible, as a share of the image


class SceneSegment(NamedTuple):
    """A segment of a scene.

    Attributes:
      value: its number in the scene's `owners`.
      category_id: of `CATEGORIES`.
      is_crowd: several objects in one segment.
    """

    value: int
    category_id: int
    is_crowd: bool


class Scene(NamedTuple):
    """An image and its segments.

    Attributes:
      image: [S, S, 3] uint8 RGB.
      owners: [S, S] int32, `value` of the segment that owns the pixel, 0 for none.
      segments: all segments with pixels.
    """

    image: np.ndarray
    owners: np.ndarray
    segments: list[SceneSegment]


def render_scene(
    rng: np.random.Generator,
    size: int,
    crowd_or_void: float,
    level: Level = LEVELS["middle"],
) -> Scene:
    """Draws a scene.

    Args:
      rng: all randomness comes from here.
      size: side of the image in pixels.
      crowd_or_void: probability that the scene has crowd or void.
      level: how its things are drawn.
    """
    canvas = _Canvas(rng, size, level)
    canvas.paint_ground()
    if rng.random() < crowd_or_void:
        if rng.random() < 0.5:
            canvas.paint_crowd()
        else:
            canvas.paint_void()
    canvas.paint_objects()
    return canvas.scene()


class _Canvas:
    """A scene while it is drawn, back to front.

    Every owner of pixels has the fewest it must keep, so that nothing is hidden but
    for a sliver: what would hide too much is not drawn.
    """

    def __init__(self, rng: np.random.Generator, size: int, level: Level):
        self.rng = rng
        self.size = size
        self.level = level
        self.image = np.zeros((size, size, 3), np.float32)
        self.owners = np.zeros((size, size), np.int32)
        # By owner; 0 is void, of which any number may be hidden.
        self.names = ["void"]
        self.is_crowd = [False]
        self.areas = [size * size]
        self.min_areas = [0]
        # Of the objects: row, column, radius.
        self.circles: list[tuple[float, float, float]] = []

    def scene(self) -> Scene:
        """What has been drawn, with a little sensor noise."""
        noise = self.rng.normal(0, 4, self.image.shape).astype(np.float32)
        image = np.clip(self.image + noise, 0, 255).astype(np.uint8)
        segments = [
            SceneSegment(value, _ID[self.names[value]], self.is_crowd[value])
            for value in range(1, len(self.names))
        ]
        return Scene(image, self.owners, segments)

    def paint_ground(self) -> None:
        """One to three stuff regions with curved borders."""
        region = np.zeros((self.size, self.size), np.int32)
        for number in range(1, self.rng.integers(1, 4)):
            cut = region.copy()
            cut[self._curve() & (region == number - 1)] = number
            if np.bincount(cut.ravel(), minlength=number + 1).min() < (0.12 * cut.size):
                break
            region = cut
        names = self.rng.choice(STUFF, 3, replace=False)
        fewest = int(_MIN_STUFF_AREA * region.size)
        for number in range(region.max() + 1):
            mask = region == number
            texture = TEXTURES[names[number]](self.rng, self.size)
            np.copyto(self.image, texture, where=mask[..., None])
            self._add_owner(str(names[number]), (slice(None),) * 2, mask, fewest)

    def _curve(self) -> np.ndarray:
        """[S, S] bool: one side of a random curve."""
        line = np.linspace(-0.5, 0.5, self.size, dtype=np.float32)
        angle, phase = self.rng.uniform(0, 2 * np.pi, 2)
        across = line[None, :] * np.cos(angle) + line[:, None] * np.sin(angle)
        along = line[:, None] * np.cos(angle) - line[None, :] * np.sin(angle)
        bend = self.rng.uniform(0, 0.08) * np.sin(
            self.rng.uniform(4, 12) * along + phase
        )
        return across + bend > self.rng.uniform(-0.25, 0.25)

    def paint_void(self) -> None:
        """One or two unlabelled areas, of a pattern no class has."""
        for _ in range(self.rng.integers(1, 3)):
            row, column = self.rng.uniform(0.1, 0.9, 2) * self.size
            radius = self.rng.uniform(0.12, 0.22) * self.size
            window, u, v = self._window(row, column, radius * 1.4)
            lobes = 1 + 0.25 * np.sin(
                self.rng.integers(2, 5) * np.arctan2(v, u) + self.rng.uniform(0, 6)
            )
            mask = np.hypot(u, v) < radius * lobes
            if self._hides_too_much(window, mask):
                continue
            speckle = self.rng.integers(0, 2, (*mask.shape, 1)) * 160.0
            color = self.rng.uniform(30, 90, 3) + speckle
            np.copyto(
                self.image[window], color, where=mask[..., None], casting="unsafe"
            )
            self._take(window, mask, 0)

    def paint_crowd(self) -> None:
        """A cluster of many small things of one class in one segment."""
        name = str(self.rng.choice(THINGS))
        unit = self.size / 97
        centre = self.rng.uniform(0.25, 0.75, 2) * self.size
        color = self.rng.uniform(20, 235, 3)
        before, image = self.owners.copy(), self.image.copy()
        whole = np.zeros(self.owners.shape, bool)
        for _ in range(self.rng.integers(14, 26)):
            row, column = centre + self.rng.normal(0, 8 * unit, 2)
            radius = self.rng.uniform(*_CROWD_RADIUS) * self.size
            shape = self._shape(name, row, column, radius)
            if shape is not None:
                window, distance = shape
                shade = color + self.rng.uniform(-25, 25, 3)
                self._blend(
                    window, distance, np.broadcast_to(shade, (*distance.shape, 3))
                )
                whole[window] |= distance < 0
        everything = (slice(None),) * 2
        if self._hides_too_much(everything, whole):
            self.owners, self.image = before, image
            return
        area = int(whole.sum())
        self._add_owner(name, everything, whole, max(area // 2, 1), is_crowd=True)

    def paint_objects(self) -> None:
        """Things, as many and of as many classes as the level has."""
        level = self.level
        wanted = self.rng.integers(*level.objects, endpoint=True)
        num_classes = self.rng.integers(*level.classes, endpoint=True)
        classes = self.rng.choice(THINGS, num_classes, replace=False)
        smallest, biggest = level.radius
        misses = 0
        while len(self.circles) < wanted:
            name = str(self.rng.choice(classes))
            # Objects get smaller the longer no place is found for them.
            largest = smallest + (biggest - smallest) * 0.85**misses
            radius = self.rng.uniform(smallest, largest) * self.size
            circle = (*self._place(radius), radius)
            if self._is_clear(*circle) and self._paint_object(name, *circle):
                self.circles.append(circle)
            else:
                misses += 1
                if misses > level.max_misses and len(self.circles) >= level.objects[0]:
                    break

    def _is_clear(self, row: float, column: float, radius: float) -> bool:
        """Tells whether the other objects are as far away as the level asks."""
        return all(
            np.hypot(row - other_row, column - other_column)
            >= self.level.min_distance * (radius + other_radius)
            for other_row, other_column, other_radius in self.circles
        )

    def _place(self, radius: float) -> tuple[float, float]:
        """Row and column of a new object: touching another one, or anywhere."""
        low, high = 0.5 * radius, self.size - 0.5 * radius
        if self.circles and self.rng.random() < self.level.attached:
            row, column, other = self.circles[self.rng.integers(len(self.circles))]
            angle = self.rng.uniform(0, 2 * np.pi)
            distance = (radius + other) * self.rng.uniform(
                *self.level.attached_distance
            )
            row += distance * np.sin(angle)
            column += distance * np.cos(angle)
            if low <= row <= high and low <= column <= high:
                return row, column
        return self.rng.uniform(low, high), self.rng.uniform(low, high)

    def _paint_object(
        self, name: str, row: float, column: float, radius: float
    ) -> bool:
        """Draws one object; False where there is no room for it."""
        shape = self._shape(name, row, column, radius)
        if shape is None:
            return False
        window, distance = shape
        mask = distance < 0
        area = int(mask.sum())
        smallest = max(int(self.level.min_area * self.size**2), 1)
        if area < smallest or self._hides_too_much(window, mask):
            return False
        ground = self.image[window][mask].mean(0)
        self._blend(window, distance, self._surface(distance, radius, ground))
        fewest = max(int(self.level.min_visible * area), smallest)
        self._add_owner(name, window, mask, fewest)
        return True

    def _surface(
        self, distance: np.ndarray, radius: float, ground: np.ndarray
    ) -> np.ndarray:
        """[h, w, 3] colours of an object: any that stands out, shaded, a dark rim."""
        for _ in range(8):
            color = self.rng.uniform(60, 250, 3)
            if np.abs(color - ground).sum() > 150:
                break
        height, width = distance.shape
        shade = np.zeros(distance.shape)
        if self.rng.integers(2):
            slope = self.rng.uniform(-1, 1, 2) * 40
            shade = np.add.outer(
                slope[0] * np.linspace(-1, 1, height),
                slope[1] * np.linspace(-1, 1, width),
            )
        # The rim keeps things of one colour apart.
        rim = np.clip(1 + (distance + self.level.rim * self.size) / 1.0, 0, 1)
        return (color + shade[..., None]) * (1 - 0.9 * rim[..., None])

    def _window(
        self, row: float, column: float, reach: float
    ) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        """The part of the image around a point; offsets (right, down) in pixels."""
        top, left = max(int(row - reach - 1), 0), max(int(column - reach - 1), 0)
        bottom = min(int(row + reach + 2), self.size)
        right = min(int(column + reach + 2), self.size)
        u = np.arange(left, right)[None, :] - column
        v = np.arange(top, bottom)[:, None] - row
        return (slice(top, bottom), slice(left, right)), u, v

    def _shape(
        self, name: str, row: float, column: float, radius: float
    ) -> tuple[tuple[slice, slice], np.ndarray] | None:
        """Window and signed distance of a shape, a little turned."""
        window, u, v = self._window(row, column, radius)
        if 0 in (u.size, v.size):
            return None
        angle = self.rng.uniform(-_TURN, _TURN)
        cosine, sine = np.cos(angle), np.sin(angle)
        turned = u * cosine + v * sine, v * cosine - u * sine
        return window, SHAPES[name](*turned, radius)

    def _blend(
        self, window: tuple[slice, slice], distance: np.ndarray, color: np.ndarray
    ) -> None:
        """Paints with smooth edges: half covered where the distance is 0."""
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        self.image[window] += (cover * (color - self.image[window])).astype(np.float32)

    def _hides_too_much(self, window: tuple[slice, slice], mask: np.ndarray) -> bool:
        lost = np.bincount(self.owners[window][mask], minlength=len(self.names))
        left = np.subtract(self.areas, lost)
        return bool(np.any((left < self.min_areas) & (lost > 0)))

    def _add_owner(
        self,
        name: str,
        window: tuple[slice, slice],
        mask: np.ndarray,
        min_area: int,
        *,
        is_crowd: bool = False,
    ) -> None:
        self.names.append(name)
        self.is_crowd.append(is_crowd)
        self.areas.append(0)
        self.min_areas.append(min_area)
        self._take(window, mask, len(self.names) - 1)

    def _take(self, window: tuple[slice, slice], mask: np.ndarray, owner: int) -> None:
        """Gives the pixels of the mask to an owner."""
        lost = np.bincount(self.owners[window][mask], minlength=len(self.names))
        for value in np.flatnonzero(lost):
            self.areas[value] -= int(lost[value])
        self.areas[owner] += int(lost.sum())
        self.owners[window][mask] = owner
