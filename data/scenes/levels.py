"""How hard scenes are: how many things they have, how small, how close together."""

from __future__ import annotations

from typing import NamedTuple


class Level(NamedTuple):
    """How the things of a scene are drawn.

    Attributes:
      objects: fewest and most things of a scene.
      classes: fewest and most classes of its things.
      radius: of the circle around a thing, from and to, as shares of the image's side.
      rim: width of the dark line around a thing, as such a share.
      attached: probability that a thing is placed against another one, not anywhere.
      attached_distance: of the two centres then, from and to, as shares of the sum of
        the radii.
      min_distance: that no two centres come below, as such a share.
      min_visible: smallest visible share of a thing's own pixels.
      min_area: smallest visible area of a thing, as a share of the image.
      max_misses: places tried in vain before a scene is left with fewer things.
    """

    objects: tuple[int, int]
    classes: tuple[int, int]
    radius: tuple[float, float]
    rim: float
    attached: float
    attached_distance: tuple[float, float]
    min_distance: float
    min_visible: float
    min_area: float
    max_misses: int


# Published figures are of these numbers. A scene has at most 3 stuff regions and one
# crowd besides its things: 10, 14 and 22 segments.
LEVELS = {
    "easy": Level(
        objects=(2, 6),
        classes=(3, 6),
        radius=(0.12, 0.22),
        rim=0.025,
        attached=0.0,
        attached_distance=(1.0, 1.0),
        min_distance=1.05,
        min_visible=0.9,
        min_area=0.012,
        max_misses=12,
    ),
    "middle": Level(
        objects=(2, 10),
        classes=(1, 4),
        radius=(0.1, 0.21),
        rim=0.025,
        attached=0.5,
        attached_distance=(0.65, 1.0),
        min_distance=0.0,
        min_visible=0.5,
        min_area=0.008,
        max_misses=12,
    ),
    "hard": Level(
        objects=(8, 18),
        classes=(1, 2),
        radius=(0.055, 0.11),
        rim=0.0125,
        attached=0.95,
        attached_distance=(0.5, 0.8),
        min_distance=0.0,
        min_visible=0.4,
        min_area=0.0025,
        max_misses=30,
    ),
}
