"""How sure a panoptic quality is: intervals by bootstrap over images.

A resample draws as many images as there are, with replacement, and computes PQ of
their summed counts; an interval lies between percentiles of the resampled values
(Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
LEVEL = 95
# Resamples that are drawn together: memory stays small with many images.
_TOGETHER = 25


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
    by_class, occurs = _class_qualities(counts)
    return by_class.sum(-1) / np.maximum(occurs.sum(-1), 1)


def _class_qualities(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PQ in percent, 0 where a class does not occur, and whether it does: [..., C]."""
    iou, tp, fp, fn = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    size = tp + 0.5 * fp + 0.5 * fn
    occurs = size > 0
    quality = np.divide(100 * iou, size, out=np.zeros_like(size), where=occurs)
    return quality, occurs


class ClassCounts(NamedTuple):
    """What is counted of a class.

    Attributes:
      images: [N] int, places of the images that have something of it.
      counts: [N, 4], its IoU sum, TP, FP and FN in each of them.
    """

    images: np.ndarray
    counts: np.ndarray


def quality_intervals(
    classes: Sequence[ClassCounts],
    num_images: int,
    groups: Mapping[str, np.ndarray],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Intervals, [low, high], of the PQ of groups of classes, in percent.

    Resamples in which no class of a group occurs say nothing of it.

    Args:
      classes: C classes.
      num_images: how many there are.
      groups: by name [C] bool, the classes of a group.
      resamples: how many.
      seed: of the drawing.
    """
    members = np.stack([*groups.values()], axis=-1).astype(np.float64)  # [C, G]
    drawn = []
    for times in _draws(num_images, np.random.default_rng(seed), resamples):
        sums = np.empty([len(times), len(classes), 4])
        for row, (images, counts) in enumerate(classes):
            sums[:, row] = times[:, images] @ counts
        qualities, occurs = _class_qualities(sums)
        number = occurs @ members
        means = qualities @ members / np.maximum(number, 1)
        drawn.append(np.where(number > 0, means, np.nan))
    intervals = {}
    for name, values in zip(groups, np.concatenate(drawn).T, strict=True):
        known = values[~np.isnan(values)]
        intervals[name] = _interval(known if known.size else np.zeros(1))
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
    qualities = []
    for times in _draws(a.shape[1], rng, resamples):
        sums = [np.tensordot(times, counts, axes=1) for counts in (*a, *b)]
        qualities.append(np.stack([panoptic_quality(of_run) for of_run in sums], 1))
    quality = np.concatenate(qualities)  # [R, 2 S]
    seeds = rng.integers(num_seeds, size=[resamples, num_seeds])  # [R, S]
    by_seed = quality[:, num_seeds:] - quality[:, :num_seeds]
    drawn = np.take_along_axis(by_seed, seeds, axis=1).mean(axis=1)
    whole = panoptic_quality(b.sum(axis=1)) - panoptic_quality(a.sum(axis=1))
    return Difference(float(whole.mean()), *_interval(drawn))


def _draws(
    num_images: int, rng: np.random.Generator, resamples: int
) -> Iterator[np.ndarray]:
    """How often each image is drawn: [r, I], of a few resamples after the other."""
    share = np.full(num_images, 1 / num_images)
    for first in range(0, resamples, _TOGETHER):
        size = min(_TOGETHER, resamples - first)
        yield rng.multinomial(num_images, share, size=size).astype(np.float64)


def _interval(values: np.ndarray) -> list[float]:
    """The middle LEVEL percent of values."""
    tail = (100 - LEVEL) / 2
    return np.percentile(values, [tail, 100 - tail]).tolist()
