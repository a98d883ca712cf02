"""How sure a panoptic quality is: intervals by bootstrap over images.

A resample draws as many images as there are, with replacement, and computes PQ of
their summed counts; an interval lies between percentiles of the resampled values
(Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
LEVEL = 95
# Resamples that are drawn together: memory stays small with many images.
_TOGETHER = 100


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


def quality_intervals(
    counts: np.ndarray,
    groups: Mapping[str, np.ndarray],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Intervals, [low, high], of the PQ of groups of classes, in percent.

    Resamples in which no class of a group occurs say nothing of it.

    Args:
      counts: [I, C, 4], IoU sum, TP, FP and FN of each class in each image.
      groups: by name [C] bool, the classes of a group.
      resamples: how many.
      seed: of the drawing.
    """
    (sums,) = _resampled_sums([counts], np.random.default_rng(seed), resamples)
    intervals = {}
    for name, members in groups.items():
        of_group = sums[:, members]
        occurs = of_group.any((1, 2))
        known = of_group[occurs] if occurs.any() else of_group
        intervals[name] = _interval(panoptic_quality(known))
    return intervals


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
    num_seeds = len(a)
    rng = np.random.default_rng(seed)
    sums = _resampled_sums([*a, *b], rng, resamples)
    seeds = rng.integers(num_seeds, size=[resamples, num_seeds])  # [R, S]
    quality = np.stack([panoptic_quality(of_seed) for of_seed in sums], axis=1)
    by_seed = quality[:, num_seeds:] - quality[:, :num_seeds]
    drawn = np.take_along_axis(by_seed, seeds, axis=1).mean(axis=1)
    whole = panoptic_quality(b.sum(axis=1)) - panoptic_quality(a.sum(axis=1))
    return Difference(float(whole.mean()), *_interval(drawn))


def _resampled_sums(
    counts: Sequence[np.ndarray], rng: np.random.Generator, resamples: int
) -> list[np.ndarray]:
    """Sums [I, C, 4] counts over drawn images, the same for all: [R, C, 4] each."""
    num_images = len(counts[0])
    share = np.full(num_images, 1 / num_images)
    sums: list[list[np.ndarray]] = [[] for _ in counts]
    for first in range(0, resamples, _TOGETHER):
        size = min(_TOGETHER, resamples - first)
        times = rng.multinomial(num_images, share, size=size).astype(np.float64)
        for parts, of_images in zip(sums, counts, strict=True):
            parts.append(np.tensordot(times, of_images, axes=1))
    return [np.concatenate(parts) for parts in sums]


def _interval(values: np.ndarray) -> list[float]:
    """The middle LEVEL percent of values."""
    tail = (100 - LEVEL) / 2
    return np.percentile(values, [tail, 100 - tail]).tolist()
