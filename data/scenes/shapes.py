"""Signed distances to the shapes of the scenes: negative inside, in pixels.

Each function takes coordinates u (right) and v (down) about the centre, already
turned, and the radius of the circle around the shape, all in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def disc(u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """The whole circle."""
    return np.hypot(u, v) - radius


def square(u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """A square with its corners on the circle."""
    return np.maximum(np.abs(u), np.abs(v)) - radius * 0.7071


def triangle(u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """An equilateral triangle with its corners on the circle."""
    sides = 0.866 * np.abs(u) + 0.5 * v
    return np.maximum(sides, -v) - radius * 0.5


def ring(u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """A ring with a hole of 0.42 of the radius."""
    return np.abs(np.hypot(u, v) - 0.71 * radius) - 0.29 * radius


def cross(u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """Two bars at a right angle, a third as wide as long."""
    u, v = np.abs(u), np.abs(v)
    long, wide = 0.95 * radius, 0.32 * radius
    return np.minimum(np.maximum(u - long, v - wide), np.maximum(v - long, u - wide))


def star(u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """Five points; the notches between them reach 0.42 of the way in."""
    sector = np.pi / 5
    angle = np.abs((np.arctan2(v, u) + sector) % (2 * sector) - sector)
    distance = np.hypot(u, v)
    notch_x = 0.42 * radius * np.cos(sector)
    notch_y = 0.42 * radius * np.sin(sector)
    # The edge runs from the point (radius, 0) to the notch.
    normal_x, normal_y = notch_y, radius - notch_x
    length = np.hypot(normal_x, normal_y)
    along = distance * (normal_x * np.cos(angle) + normal_y * np.sin(angle))
    return (along - radius * normal_x) / length


SHAPES: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "disc": disc,
    "square": square,
    "triangle": triangle,
    "ring": ring,
    "cross": cross,
    "star": star,
}
