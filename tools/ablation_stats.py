"""Panoptic quality and paired differences from the counts of single images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
LEVEL = 95


class Difference(NamedTuple):
    """A difference of PQ in percent, and its interval of LEVEL percent."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval does."""
        return self.low > 0 or self.high < 0


def panoptic_quality(counts: np.ndarray) -> np.ndarray:
    """PQ in percent, the mean over the classes that occur; 0 where none does.

    Args:
      counts: [..., C, 4], sums over images of IoU, TP, FP and FN of each class.
    """
    iou, tp, fp, fn = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    size = tp + 0.5 * fp + 0.5 * fn
    occurs = size > 0
    by_class = np.divide(iou, size, out=np.zeros_like(size), where=occurs)
    return 100 * by_class.sum(-1) / np.maximum(occurs.sum(-1), 1)


def paired_difference(
    a: np.ndarray, b: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """PQ of b minus PQ of a, a mean over seeds, with an interval by bootstrap.

    A resample draws images with replacement, the same ones for a and b and all seeds,
    and seeds with replacement, the same ones for a and b. The interval lies between
    percentiles of the resampled differences.

    Args:
      a, b: [S, I, C, 4], counts of I images after training with S seeds; both have the
        same seeds and images, in the same order.
      resamples: how many.
      seed: of the drawing.
    """
    num_seeds, num_images = a.shape[:2]
    rng = np.random.default_rng(seed)
    share = np.full(num_images, 1 / num_images)
    times = rng.multinomial(num_images, share, size=resamples)  # [R, I]
    seeds = rng.integers(num_seeds, size=[resamples, num_seeds])  # [R, S]
    quality_a, quality_b = (
        panoptic_quality(np.einsum("ri,sick->rsck", times, x, optimize=True))
        for x in (a, b)
    )
    drawn = np.take_along_axis(quality_b - quality_a, seeds, axis=1).mean(axis=1)
    whole = panoptic_quality(b.sum(axis=1)) - panoptic_quality(a.sum(axis=1))
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Difference(float(whole.mean()), float(low), float(high))


def mean_and_spread(values: np.ndarray) -> tuple[float, float | None]:
    """Mean, and standard deviation (n - 1); None in place of that of one value."""
    values = np.asarray(values, np.float64)
    return values.mean(), values.std(ddof=1) if values.size > 1 else None
