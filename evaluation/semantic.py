"""Mean intersection over union of classes, from the same panoptic maps.

The class of a pixel is that of its segment; crowd counts as its class. As in
semantic segmentation, pixels that are void in the ground truth do not count, and a
pixel that the prediction leaves void is missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cmt.data.panoptic.categories import Category
from cmt.evaluation.overlap import Overlap


def add_confusion(confusion: np.ndarray, overlap: Overlap) -> None:
    """Adds the pixels of an image.

    Args:
      confusion: [C + 1, C + 1], pixels by class in ground truth and prediction; the
        last row and column are void.
      overlap: of the image.
    """
    void = len(confusion) - 1
    rows = np.concatenate([[void], overlap.gt_class])
    columns = np.concatenate([[void], overlap.pred_class])
    np.add.at(confusion, (rows[:, np.newaxis], columns), overlap.pixels)


def mean_iou(confusion: np.ndarray, categories: Sequence[Category]) -> dict[str, Any]:
    """Computes the mean over the classes that occur in ground truth or prediction.

    Args:
      confusion: from `add_confusion`, summed over images.
      categories: of the data set.

    Returns:
      In percent: "miou", 0 where no class occurs, and "per_class" by category id.
    """
    counted = confusion[:-1]
    both = counted.diagonal()
    union = counted.sum(axis=1) + counted[:, :-1].sum(axis=0) - both
    per_class = {
        str(category.id): 100 * float(both[row] / union[row])
        for row, category in enumerate(categories)
        if union[row] > 0
    }
    miou = sum(per_class.values()) / max(len(per_class), 1)
    return {"miou": miou, "per_class": per_class}
