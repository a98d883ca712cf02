"""Average precision of the things among panoptic segments, by pycocotools.

The instances are the segments of things, in ground truth and prediction, as in
DeepLab2's metric: masks that do not overlap, so that values lie below those of
detectors. What two segments share is counted once for all metrics, and pycocotools
gets these numbers in place of masks.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval, Params

from cmt.data.panoptic.categories import Category
from cmt.evaluation.overlap import Instances

_MAX_DETECTIONS = 100  # of a class in an image
_CLASS = 0  # of a single one
_SIZES = ("small", "medium", "large")  # below 32 x 32 pixels, below 96 x 96, others


def mask_ap(
    instances: Iterable[tuple[int, Sequence[Instances]]],
    categories: Sequence[Category],
) -> dict[str, Any]:
    """Computes COCO's average precision.

    Args:
      instances: the row of a category, and those of each image that has any; in the
        order of the rows.
      categories: of the data set.

    Returns:
      In percent, None where the ground truth has no such thing: "ap" (IoU 0.5 to
      0.95), "ap50", "ap75", "ap_small", "ap_medium", "ap_large" (by area in the ground
      truth); "per_class": ap of each category id, as a string, that it has.
    """
    # One class after the other: pycocotools keeps much of each image and class.
    of_class = {row: _precision(images) for row, images in instances}
    # [K, T, R, A]: class, threshold of IoU, recall, size.
    precision = np.stack(list(of_class.values()) or [_precision([])])
    thresholds = Params().iouThrs
    means = {
        str(categories[row].id): _mean(found[..., 0]) for row, found in of_class.items()
    }
    return {
        "ap": _mean(precision[..., 0]),
        "ap50": _mean(precision[:, np.isclose(thresholds, 0.5), :, 0]),
        "ap75": _mean(precision[:, np.isclose(thresholds, 0.75), :, 0]),
        **{
            f"ap_{size}": _mean(precision[..., index])
            for index, size in enumerate(_SIZES, start=1)
        },
        "per_class": {name: ap for name, ap in means.items() if ap is not None},
    }


def _precision(images: Sequence[Instances]) -> np.ndarray:
    """Precision [T, R, A] of one class, -1 where the ground truth has none."""
    evaluation = _CountedEvaluation(images)
    with contextlib.redirect_stdout(io.StringIO()):  # It tells how long it takes.
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, :, 0]


def _mean(precision: np.ndarray) -> float | None:
    """The mean of what is known, in percent; pycocotools has -1 for the rest."""
    known = precision[precision > -1]
    return 100 * float(known.mean()) if known.size else None


class _CountedEvaluation(COCOeval):
    """COCO's evaluation of one class, whose shared pixels are counted already."""

    def __init__(self, images: Sequence[Instances]):
        super().__init__(iouType="segm")
        self._images = images
        self.params.imgIds = list(range(len(images)))
        self.params.catIds = [_CLASS]
        self.params.maxDets = [_MAX_DETECTIONS]

    def _prepare(self) -> None:
        """Lists the instances by image and class, as the parent class does."""
        for number, image in enumerate(self._images):
            truth = zip(image.gt_area, image.gt_crowd, strict=True)
            self._gts[number, _CLASS] = [
                {"id": index, "area": area, "iscrowd": crowd, "ignore": crowd}
                for index, (area, crowd) in enumerate(truth, start=1)
            ]
            found = zip(image.pred_area, image.pred_score, strict=True)
            self._dts[number, _CLASS] = [
                {"id": index, "area": area, "score": score}
                for index, (area, score) in enumerate(found, start=1)
            ]

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray | list:  # noqa: N802, N803
        """[D, G] of the detections that count, best score first."""
        image = self._images[imgId]
        if not image.shared.size:
            return []
        best = np.argsort(-image.pred_score, kind="stable")[:_MAX_DETECTIONS]
        shared = image.shared.T[best]
        # Of a crowd any part may be found.
        others = np.where(image.gt_crowd, 0, image.gt_area - shared)
        return shared / (image.pred_area[best][:, np.newaxis] + others)
