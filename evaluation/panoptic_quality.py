"""Panoptic quality, with the rules of the official COCO evaluation, in NumPy.

Kirillov et al., "Panoptic Segmentation", CVPR 2019, and the rules for void and crowd
of the COCO panoptic task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cmt.data.panoptic.categories import Category
from cmt.evaluation.overlap import Overlap, PanopticMap, measure_overlap, shorten

_MIN_IOU = 0.5  # exclusive; makes the match of a segment unique
_MAX_IGNORED_SHARE = 0.5  # a false positive lies in void or crowd by at most this


class Matches(NamedTuple):
    """Which segments of an image are found: M matches, G of the truth, P predicted.

    Attributes:
      gt: [M] int, the matched segments of the ground truth.
      pred: [M] int, the predicted segment of each.
      iou: [M] float64, of each pair.
      is_missed: [G] bool, the false negatives.
      is_false: [P] bool, the false positives.
      gt_area: [G] float64, pixels.
      pred_area: [P] float64, pixels.
    """

    gt: np.ndarray
    pred: np.ndarray
    iou: np.ndarray
    is_missed: np.ndarray
    is_false: np.ndarray
    gt_area: np.ndarray
    pred_area: np.ndarray


def count_image(
    gt: PanopticMap, pred: PanopticMap, rows: Mapping[int, int]
) -> np.ndarray:
    """Counts IoU sum, TP, FP and FN of each category in one image.

    Args:
      gt: ground truth.
      pred: prediction.
      rows: from `category_rows`.

    Returns:
      [C, 4] float64.

    Raises:
      InputError: see `shorten` and `measure_overlap`.
    """
    overlap = measure_overlap(*shorten(gt, pred), rows)
    return count_matches(
        match_segments(overlap), overlap.gt_class, overlap.pred_class, len(rows)
    )


def match_segments(overlap: Overlap, *, areas_of_pixels: bool = False) -> Matches:
    """Matches the segments of an image.

    Args:
      overlap: of the image.
      areas_of_pixels: count the areas of the ground truth. Otherwise they are those of
        its json where it has them, as in the official evaluation.
    """
    gt_class, pred_class = overlap.gt_class, overlap.pred_class
    is_crowd = overlap.is_crowd
    gt_area = overlap.pixels[1:].sum(axis=1)
    if not areas_of_pixels:
        given = [segment.area for segment in overlap.gt_segments]
        known = [row for row, area in enumerate(given) if area is not None]
        gt_area[known] = [given[row] for row in known]
    void_overlap, shared = overlap.pixels[0, 1:], overlap.pixels[1:, 1:]
    # The areas of predictions are counted again; those in the json are ignored.
    pred_area = void_overlap + shared.sum(axis=0)

    union = pred_area + gt_area[:, np.newaxis] - shared - void_overlap
    # A union that is none comes of an area below the number of pixels.
    meets = (shared > 0) & (union > 0)
    iou = np.divide(shared, union, out=np.zeros(shared.shape), where=meets)
    same_class = gt_class[:, np.newaxis] == pred_class
    matched = same_class & ~is_crowd[:, np.newaxis] & (iou > _MIN_IOU)

    ignored = void_overlap.copy()
    # Officially one crowd region of a category counts: the last of the image.
    last_crowd = {gt_class[row]: row for row in np.flatnonzero(is_crowd)}
    for segment, category in enumerate(pred_class):
        if category in last_crowd:
            ignored[segment] += shared[last_crowd[category], segment]
    is_false = ~matched.any(axis=0) & ~(ignored / pred_area > _MAX_IGNORED_SHARE)
    is_missed = ~matched.any(axis=1) & ~is_crowd
    pairs = np.nonzero(matched)
    return Matches(*pairs, iou[pairs], is_missed, is_false, gt_area, pred_area)


def count_matches(
    matches: Matches, gt_row: np.ndarray, pred_row: np.ndarray, num_rows: int
) -> np.ndarray:
    """Counts IoU sum, TP, FP and FN of each row.

    Args:
      matches: of an image.
      gt_row: [G] int, where each segment of the ground truth counts, such as its class.
      pred_row: [P] int, where each false positive counts.
      num_rows: R, how many there are.

    Returns:
      [R, 4] float64.
    """
    hits = gt_row[matches.gt]
    columns = (
        np.bincount(hits, matches.iou, num_rows),
        np.bincount(hits, minlength=num_rows),
        np.bincount(pred_row[matches.is_false], minlength=num_rows),
        np.bincount(gt_row[matches.is_missed], minlength=num_rows),
    )
    return np.stack(columns, axis=-1).astype(np.float64)


def quality(categories: Sequence[Category], counts: np.ndarray) -> dict[str, Any]:
    """Computes the scores, in percent, in the form `cmt score --json` prints.

    Args:
      categories: of the data set.
      counts: [C, 4], the sum of `count_image` over the images.

    Returns:
      "all", "things", "stuff": pq, sq, rq, the means over the n categories that
      occur in ground truth or prediction (crowd apart), and n; all 0 where n is 0.
      "per_class": by category id as a string, of those n: name, pq, sq, rq,
      iou_sum, tp, fp, fn; the last four are sums, not in percent.
    """
    scored = [
        (category, _class_scores(category, of_class))
        for category, of_class in zip(categories, counts, strict=True)
        if of_class[1:].any()
    ]
    things = [scores for category, scores in scored if category.is_thing]
    stuff = [scores for category, scores in scored if not category.is_thing]
    return {
        "all": _group_scores([scores for _, scores in scored]),
        "things": _group_scores(things),
        "stuff": _group_scores(stuff),
        "per_class": {str(category.id): scores for category, scores in scored},
    }


def _class_scores(category: Category, counts: np.ndarray) -> dict[str, Any]:
    iou_sum, tp, fp, fn = (float(count) for count in counts)
    size = tp + 0.5 * fp + 0.5 * fn
    return {
        "name": category.name,
        "pq": 100 * (iou_sum / size),
        "sq": 100 * (iou_sum / tp) if tp else 0.0,
        "rq": 100 * (tp / size),
        "iou_sum": iou_sum,
        "tp": int(tp),
        "fp": int(fp),
        "fn": int(fn),
    }


def _group_scores(classes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    n = len(classes)
    means = {
        key: sum(scores[key] for scores in classes) / n if n else 0.0
        for key in ("pq", "sq", "rq")
    }
    return {**means, "n": n}
