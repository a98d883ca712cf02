"""The backgrounds of the scenes: one pattern a stuff class, with varying colours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _color(rng: np.random.Generator, base: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(base, np.float32) + rng.uniform(-30, 30, 3).astype(np.float32)


def _turned(
    rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Coordinates of all pixels, turned and shifted, in units of size / 97."""
    unit = size / 97
    angle = rng.uniform(0, np.pi)
    shift = rng.uniform(0, 50, 2)
    line = (np.arange(size, dtype=np.float32) / unit).astype(np.float32)
    u = line[None, :] * np.cos(angle) + line[:, None] * np.sin(angle) + shift[0]
    v = line[:, None] * np.cos(angle) - line[None, :] * np.sin(angle) + shift[1]
    return u.astype(np.float32), v.astype(np.float32), unit


def water(rng: np.random.Generator, size: int) -> np.ndarray:
    """Soft parallel waves."""
    u, v, _ = _turned(rng, size)
    period = rng.uniform(6, 10)
    wave = np.sin(2 * np.pi * (u + np.sin(v * 0.15)) / period)
    return _color(rng, (60, 110, 170)) + 28 * wave[..., None]


def tiles(rng: np.random.Generator, size: int) -> np.ndarray:
    """A checkerboard."""
    u, v, _ = _turned(rng, size)
    side = rng.uniform(6, 10)
    odd = (np.floor(u / side) + np.floor(v / side)) % 2
    return _color(rng, (150, 120, 110)) + 40 * (odd[..., None] - 0.5)


def grass(rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise, coarse and fine."""
    coarse = rng.normal(0, 14, (size // 3 + 1, size // 3 + 1)).astype(np.float32)
    noise = coarse.repeat(3, 0).repeat(3, 1)[:size, :size]
    noise = noise + rng.normal(0, 14, (size, size)).astype(np.float32)
    return _color(rng, (90, 140, 70)) + noise[..., None]


def sand(rng: np.random.Generator, size: int) -> np.ndarray:
    """Dots on a gradient."""
    u, v, _ = _turned(rng, size)
    period = rng.uniform(7, 11)
    distance = np.hypot((u % period) - period / 2, (v % period) - period / 2)
    dots = np.clip(0.28 * period - distance + 0.5, 0, 1)
    shade = 0.25 * (u - u.mean())
    return _color(rng, (200, 180, 130)) + (shade - 60 * dots)[..., None]


TEXTURES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "water": water,
    "tiles": tiles,
    "grass": grass,
    "sand": sand,
}
