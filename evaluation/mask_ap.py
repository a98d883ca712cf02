"""Average precision of the things among panoptic segments, by pycocotools.

The instances are the segments of things, in ground truth and prediction, as in
DeepLab2's metric: masks that do not overlap, so that values lie below those of
detectors. What two segments share is counted once for all metrics, and pycocotools
gets these numbers in place of masks.
"""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from cmt.data.panoptic.categories import Category
from cmt.evaluation.overlap import Instances

_MAX_DETECTIONS = 100  # of a class in an image
_SIZES = ("small", "medium", "large")  # below 32 x 32 pixels, below 96 x 96, others


def mask_ap(
    images: Sequence[Instances], categories: Sequence[Category]
) -> dict[str, Any]:
    """Computes COCO's average precision.

    Args:
      images: things of each image.
      categories: of the data set.

    Returns:
      In percent, None where the ground truth has no such thing: "ap" (IoU 0.5 to
      0.95), "ap50", "ap75", "ap_small", "ap_medium", "ap_large" (by area in the ground
      truth); "per_class": ap of each category id, as a string, that it has.
    """
    rows = [row for row, category in enumerate(categories) if category.is_thing]
    evaluation = _CountedEvaluation(images, rows)
    with contextlib.redirect_stdout(io.StringIO()):  # It tells how long it takes.
        evaluation.evaluate()
        evaluation.accumulate()
    # [T, R, K, A, M]: threshold of IoU, recall, class, size, most detections.
    precision = evaluation.eval["precision"][..., -1]
    thresholds = evaluation.params.iouThrs
    of_class = {
        str(categories[row].id): _mean(precision[:, :, index, 0])
        for index, row in enumerate(rows)
    }
    return {
        "ap": _mean(precision[..., 0]),
        "ap50": _mean(precision[np.isclose(thresholds, 0.5), ..., 0]),
        "ap75": _mean(precision[np.isclose(thresholds, 0.75), ..., 0]),
        **{
            f"ap_{size}": _mean(precision[..., index])
            for index, size in enumerate(_SIZES, start=1)
        },
        "per_class": {name: ap for name, ap in of_class.items() if ap is not None},
    }


def _mean(precision: np.ndarray) -> float | None:
    """The mean of what is known, in percent; pycocotools has -1 for the rest."""
    known = precision[precision > -1]
    return 100 * float(known.mean()) if known.size else None


class _CountedEvaluation(COCOeval):
    """COCO's evaluation of instances whose shared pixels are counted already."""

    def __init__(self, images: Sequence[Instances], rows: Sequence[int]):
        super().__init__(iouType="segm")
        self._images = images
        self.params.imgIds = list(range(len(images)))
        self.params.catIds = list(rows)
        self.params.maxDets = [_MAX_DETECTIONS]

    def _prepare(self) -> None:
        """Lists the instances by image and class, as the parent class does."""
        self._gts, self._dts = defaultdict(list), defaultdict(list)
        for number, image in enumerate(self._images):
            truth = zip(image.gt_class, image.gt_area, image.gt_crowd, strict=True)
            for index, (row, area, crowd) in enumerate(truth):
                entry = {"id": index + 1, "area": area, "iscrowd": crowd}
                self._gts[number, row].append({**entry, "ignore": crowd})
            found = zip(
                image.pred_class, image.pred_area, image.pred_score, strict=True
            )
            for index, (row, area, score) in enumerate(found):
                entry = {"id": index + 1, "area": area, "score": score}
                self._dts[number, row].append(entry)

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray | list:  # noqa: N802, N803
        """[D, G] of the detections, best score first, that count."""
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        if not truth or not found:
            return []
        found = sorted(found, key=lambda entry: -entry["score"])[:_MAX_DETECTIONS]
        columns = [entry["id"] - 1 for entry in truth]
        rows = [entry["id"] - 1 for entry in found]
        image = self._images[imgId]
        shared = image.shared[np.ix_(columns, rows)].T
        area = image.pred_area[rows][:, np.newaxis]
        # Of a crowd any part may be found.
        union = area + np.where(image.gt_crowd[columns], 0, image.gt_area[columns])
        return shared / (union - np.where(image.gt_crowd[columns], 0, shared))
