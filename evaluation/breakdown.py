"""Where quality is lost: PQ by the size of segments and by the objects of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cmt.evaluation.bootstrap import panoptic_quality
from cmt.evaluation.overlap import Overlap
from cmt.evaluation.panoptic_quality import Matches, count_matches

# A size goes from one side of a square, in pixels, to the next; the last has no end.
SIDES = (0, 16, 32, 64, 96, 192, 384)
# Things in an image, from one number to the next; the last has no end.
THINGS = (0, 1, 2, 4, 7, 11, 16)


def count_by_size(overlap: Overlap, matches: Matches, num_classes: int) -> np.ndarray:
    """Counts IoU sum, TP, FP and FN of each size and class in an image.

    A segment has the size of its area in the ground truth, a false positive that of its
    own.

    Returns:
      [S, C, 4] float64, sizes as in `SIDES`.
    """
    limits = np.square(SIDES[1:])
    places = [
        np.searchsorted(limits, areas, side="right") * num_classes + classes
        for areas, classes in (
            (matches.gt_area, overlap.gt_class),
            (matches.pred_area, overlap.pred_class),
        )
    ]
    counts = count_matches(matches, *places, len(SIDES) * num_classes)
    return counts.reshape([len(SIDES), num_classes, 4])


def quality_by_size(counts: np.ndarray) -> list[dict[str, Any]]:
    """PQ of the sizes that occur.

    Args:
      counts: [S, C, 4], from `count_by_size`, summed over images.

    Returns:
      Each "from" and "to" (side of a square of that area, in pixels; None: no end),
      "pq" in percent, the mean over the classes that occur in it, and "segments", how
      many the ground truth has.
    """
    true_segments = counts[..., 1].sum(-1) + counts[..., 3].sum(-1)
    return _rows(SIDES, counts, "segments", true_segments)


def place_by_things(counts: np.ndarray, is_thing: np.ndarray) -> int:
    """The place in `THINGS` of an image, by the things of its ground truth.

    Args:
      counts: [C, 4], IoU sum, TP, FP and FN of each class in the image; crowds are not
        among them.
      is_thing: [C] bool.
    """
    things = counts[is_thing][:, [1, 3]].sum()
    return int(np.searchsorted(THINGS[1:], things, side="right"))


def quality_by_things(counts: np.ndarray, images: np.ndarray) -> list[dict[str, Any]]:
    """PQ of images by how many things the ground truth has in them, crowds apart.

    Args:
      counts: [T, C, 4], IoU sum, TP, FP and FN of each class, summed over the images
        of each place of `THINGS`.
      images: [T], how many these are.

    Returns:
      Each "from" and "to" (things in an image; None: no end), "pq" in percent, and
      "images", how many there are.
    """
    return _rows(THINGS, counts, "images", images)


def _rows(
    starts: Sequence[int], counts: np.ndarray, of_what: str, numbers: np.ndarray
) -> list[dict[str, Any]]:
    values = zip(
        starts,
        [*starts[1:], None],
        panoptic_quality(counts).tolist(),
        numbers.tolist(),
        counts.any((1, 2)).tolist(),
        strict=True,
    )
    return [
        {"from": low, "to": high, "pq": pq, of_what: int(number)}
        for low, high, pq, number, occurs in values
        if occurs
    ]
