"""Maps of a coarse grid over an image: smooth, as heat, as coloured clusters."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from PIL import Image

from cmt.pictures.overlay import contours

_HEAT = colormaps["inferno"]
_OPACITY = 0.85
_OUTLINE = (90, 220, 255)


def resample(
    values: np.ndarray,
    size: tuple[int, int],
    *,
    valid_share: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """Resizes a map bilinearly; corners stay corners, as in the network.

    Args:
      values: [h, w, ...] float.
      size: height and width of the result.
      valid_share: (height, width) in (0, 1]; what of the map, from the upper left
        corner on, is shown.

    Returns:
      [*size, ...] float32.
    """
    rows, columns = (
        _interpolation(old, new, share)
        for old, new, share in zip(values.shape, size, valid_share, strict=False)
    )
    tall = np.tensordot(rows, values.astype(np.float32), axes=(1, 0))
    return np.moveaxis(np.tensordot(columns, tall, axes=(1, 1)), 0, 1)


def _interpolation(old: int, new: int, share: float) -> np.ndarray:
    """[new, old] float32: the weights of the old pixels of an axis in the new ones."""
    places = np.linspace(0, (old - 1) * share, new)
    distances = np.abs(places[:, np.newaxis] - np.arange(old))
    return np.maximum(1 - distances, 0).astype(np.float32)


def draw_heat(
    image: np.ndarray, weights: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """Draws weights over an image that is dark where they are small.

    Args:
      image: [H, W, 3] uint8.
      weights: [H, W] float, 0 or more; the largest is drawn brightest.
      mask: [H, W] bool, which is outlined.

    Returns:
      [H, W, 3] uint8.
    """
    strength = weights / max(float(weights.max()), 1e-30)
    gray = image.mean(-1, keepdims=True) * 0.45
    opacity = 0.9 * np.sqrt(strength)[..., np.newaxis]
    heat = 255 * _HEAT(0.15 + 0.85 * strength)[..., :3]
    picture = ((1 - opacity) * gray + opacity * heat).round().astype(np.uint8)
    return picture if mask is None else outline(picture, mask)


def draw_assignment(
    image: np.ndarray, assignment: np.ndarray, colors: np.ndarray
) -> np.ndarray:
    """Gives each pixel the colour of its best center, the paler the less sure it is.

    Args:
      image: [*, *, 3] uint8, whose pale shadow is behind the colours; all there is to
        see where all centers are equal.
      assignment: [H, W, N] float, of sum 1 over N.
      colors: [N, 3] uint8.

    Returns:
      [H, W, 3] uint8.
    """
    height, width, num_centers = assignment.shape
    shadow = np.asarray(Image.fromarray(image).resize((width, height)).convert("L"))
    shadow = 255 - 0.45 * (255.0 - shadow[..., np.newaxis])
    least = 1 / max(num_centers, 2)
    sureness = (assignment.max(-1, keepdims=True) - least) / (1 - least)
    opacity = _OPACITY * sureness.clip(0, 1)
    picture = (1 - opacity) * shadow + opacity * colors[assignment.argmax(-1)]
    return picture.round().astype(np.uint8)


def outline(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draws the edge of a mask [H, W] bool over a picture [H, W, 3] uint8."""
    edge = contours(mask)
    edge[1:] |= edge[:-1]  # Two pixels wide, or it is lost on a sheet.
    edge[:, 1:] |= edge[:, :-1]
    return np.where(edge[..., np.newaxis], np.array(_OUTLINE, np.uint8), picture)
