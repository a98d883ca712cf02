"""Panoptic quality, with the rules of the official COCO evaluation, in NumPy.

Kirillov et al., "Panoptic Segmentation", CVPR 2019, and the rules for void and crowd
of the COCO panoptic task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.masks import read_ids
from cmt.errors import InputError
from cmt.evaluation.coco_format import (
    MAX_ID,
    PanopticAnnotation,
    PanopticFile,
    count_values,
    read_panoptic_json,
)
from cmt.io.parallel import num_workers
from cmt.io.progress import track
from cmt.io.storage import Location, is_folder, join

_MIN_IOU = 0.5  # exclusive; makes the match of a segment unique
_MAX_IGNORED_SHARE = 0.5  # a false positive lies in void or crowd by at most this
_IOU_SUM, _TP, _FP, _FN = range(4)

Segments = Sequence[Mapping[str, Any]]


class PanopticQuality:
    """Adds up images and gives PQ, SQ and RQ in percent."""

    def __init__(self, categories: Sequence[Category]) -> None:
        """Starts at no image.

        Args:
          categories: of the data set; others are refused.

        Raises:
          InputError: two have the same id.
        """
        self._categories = list(categories)
        self._index = {category.id: i for i, category in enumerate(categories)}
        if len(self._index) < len(self._categories):
            raise InputError(
                "the ids of categories must differ; got "
                f"{[category.id for category in categories]}"
            )
        self._counts = np.zeros([len(self._categories), 4])

    def add(
        self,
        gt_map: np.ndarray,
        gt_segments: Segments,
        pred_map: np.ndarray,
        pred_segments: Segments,
    ) -> None:
        """Adds one image.

        Args:
          gt_map: [H, W] integers 0 to 2**24 - 1, segment ids, 0 is void.
          gt_segments: of each id in `gt_map`: id, category_id, iscrowd (0 where
            missing), area in pixels (that in the map where missing).
          pred_map: [H, W] like gt_map.
          pred_segments: of each id in `pred_map`: id, category_id.

        Raises:
          InputError: maps differ in size, ids of map and segments differ, or a
            category is unknown.
        """
        for name, ids in (("ground truth", gt_map), ("prediction", pred_map)):
            if ids.size and (ids.min() < 0 or ids.max() > MAX_ID):
                raise InputError(
                    f"{name}: segment ids must be 0 to {MAX_ID}; got {ids.min()} to "
                    f"{ids.max()}"
                )
        self._counts += _count_image(
            self._index,
            _Side("ground truth", gt_map, gt_segments),
            _Side("prediction", pred_map, pred_segments),
        )

    def merge(self, other: PanopticQuality) -> None:
        """Adds the images of another accumulator with the same categories.

        Raises:
          InputError: the categories differ.
        """
        if self._index != other._index:
            raise InputError("only scores over the same categories can be added")
        self._counts += other._counts

    def result(self) -> dict[str, Any]:
        """The scores, in percent, in the form `cmt score --json` prints.

        Returns:
          "all", "things", "stuff": pq, sq, rq, the means over the n categories that
          occur in ground truth or prediction (crowd apart), and n; all 0 where n is 0.
          "per_class": by category id as a string, of those n: name, pq, sq, rq,
          iou_sum, tp, fp, fn; the last four as they are, not in percent.
        """
        scored = [
            (category, _class_scores(category, counts))
            for category, counts in zip(self._categories, self._counts, strict=True)
            if counts[_TP:].any()
        ]
        things = [scores for category, scores in scored if category.is_thing]
        stuff = [scores for category, scores in scored if not category.is_thing]
        return {
            "all": _group_scores([scores for _, scores in scored]),
            "things": _group_scores(things),
            "stuff": _group_scores(stuff),
            "per_class": {str(category.id): scores for category, scores in scored},
        }


def score_files(
    gt_json: Location,
    gt_masks: Location,
    pred_json: Location,
    pred_masks: Location,
    *,
    workers: int = 0,
) -> dict[str, Any]:
    """Scores COCO panoptic predictions; the result does not depend on `workers`.

    Paths may be local or what `tf.io.gfile` reads.

    Args:
      gt_json: ground truth, with categories.
      gt_masks: folder of its PNGs.
      pred_json: predictions; images that are not in the ground truth are left out.
      pred_masks: folder of its PNGs.
      workers: images at a time, in threads (decoding and counting release Python's
        lock); 0 for as many as there are cores.

    Returns:
      See `PanopticQuality.result`.

    Raises:
      InputError: a file is missing or damaged, an image has no prediction, or the json
        and the PNGs do not fit each other.
    """
    gt, pred = read_panoptic_json(gt_json), read_panoptic_json(pred_json)
    _check_files(gt, gt_json, pred, pred_json)
    gt_masks, pred_masks = _folder(gt_masks), _folder(pred_masks)
    quality = PanopticQuality(gt.categories)

    def count(annotation: PanopticAnnotation) -> np.ndarray:
        return _count_image(
            quality._index,
            _read_side(gt_masks, annotation),
            _read_side(pred_masks, pred.annotations[annotation.image_id]),
        )

    with ThreadPoolExecutor(num_workers(workers)) as pool:
        images = pool.map(count, gt.annotations.values())
        for counts in track(images, description="score", total=len(gt.annotations)):
            quality._counts += counts
    return quality.result()


class _Side(NamedTuple):
    """Ground truth or prediction of an image; `name` is for messages."""

    name: str
    ids: np.ndarray
    segments: Segments


def _check_files(
    gt: PanopticFile, gt_json: Location, pred: PanopticFile, pred_json: Location
) -> None:
    if not gt.categories:
        raise InputError(
            f'{gt_json}: ground truth needs a list "categories"; give the ground '
            "truth's json to --gt and the prediction's to --pred"
        )
    if not gt.annotations:
        raise InputError(f"{gt_json}: has no annotation, so there is nothing to score")
    missing = [image for image in gt.annotations if image not in pred.annotations]
    if missing:
        raise InputError(
            f"{pred_json}: {len(missing)} of {len(gt.annotations)} images of the "
            f"ground truth have no prediction, for example image {missing[0]}; predict "
            "every image (one without segments has an empty segments_info)"
        )


def _folder(path: Location) -> Location:
    if not is_folder(path):
        raise InputError(f"{path}: no such folder; give the folder of the PNGs")
    return path


def _read_side(folder: Location, annotation: PanopticAnnotation) -> _Side:
    path = join(folder, annotation.file_name)
    return _Side(path, read_ids(path), annotation.segments)


def _count_image(index: Mapping[int, int], gt: _Side, pred: _Side) -> np.ndarray:
    """IoU sum, TP, FP and FN of each category in one image.

    Args:
      index: row of each category id.
      gt: ground truth.
      pred: prediction.

    Returns:
      [C, 4] float64.
    """
    overlap, pixel_areas = _overlaps(gt, pred)
    gt_class, pred_class = _classes(gt, index), _classes(pred, index)
    is_crowd = np.array([bool(s.get("iscrowd", 0)) for s in gt.segments], bool)
    gt_area = np.array(
        [
            segment.get("area", pixels)
            for segment, pixels in zip(gt.segments, pixel_areas, strict=True)
        ],
        np.float64,
    )
    void_overlap, overlap = overlap[0, 1:], overlap[1:]
    # The areas of predictions are recounted, whatever their json says.
    pred_area = void_overlap + overlap[:, 1:].sum(axis=0)
    overlap = overlap[:, 1:]

    union = pred_area + gt_area[:, np.newaxis] - overlap - void_overlap
    iou = np.divide(overlap, union, out=np.zeros(overlap.shape), where=overlap > 0)
    same_class = gt_class[:, np.newaxis] == pred_class
    matched = same_class & ~is_crowd[:, np.newaxis] & (iou > _MIN_IOU)

    ignored = void_overlap.copy()
    # Officially one crowd region of a category counts: the last of the image.
    last_crowd = {gt_class[row]: row for row in np.flatnonzero(is_crowd)}
    for segment, category in enumerate(pred_class):
        if category in last_crowd:
            ignored[segment] += overlap[last_crowd[category], segment]
    is_false = ~matched.any(axis=0) & ~(ignored / pred_area > _MAX_IGNORED_SHARE)
    is_missed = ~matched.any(axis=1) & ~is_crowd

    counts = np.zeros([len(index), 4])
    rows, columns = np.nonzero(matched)
    np.add.at(counts[:, _IOU_SUM], gt_class[rows], iou[rows, columns])
    np.add.at(counts[:, _TP], gt_class[rows], 1)
    np.add.at(counts[:, _FP], pred_class[is_false], 1)
    np.add.at(counts[:, _FN], gt_class[is_missed], 1)
    return counts


def _overlaps(gt: _Side, pred: _Side) -> tuple[np.ndarray, np.ndarray]:
    """Pixels shared by each pair of segments.

    Returns:
      [1 + G, 1 + P] float64, row and column 0 are void; [G] float64, pixels of each
      ground-truth segment.
    """
    if gt.ids.shape != pred.ids.shape:
        (gt_height, gt_width), (height, width) = gt.ids.shape, pred.ids.shape
        raise InputError(
            f"{pred.name}: is {width}x{height} pixels, but {gt.name} is "
            f"{gt_width}x{gt_height}; bring predictions to the size of the image"
        )
    pairs, pixels = count_values(gt.ids.astype(np.int64) * (MAX_ID + 1) + pred.ids)
    overlap = np.zeros([1 + len(gt.segments), 1 + len(pred.segments)])
    rows = _positions(gt, pairs // (MAX_ID + 1))
    columns = _positions(pred, pairs % (MAX_ID + 1))
    overlap[rows, columns] = pixels
    return overlap, overlap[1:].sum(axis=1)


def _positions(side: _Side, ids: np.ndarray) -> np.ndarray:
    """Index of each id in (void, *segments); ids and segments must be the same set."""
    listed = np.array([0, *(segment["id"] for segment in side.segments)], np.int64)
    sorter = np.argsort(listed, kind="stable")
    known = listed[sorter]
    twice = known[1:][known[1:] == known[:-1]]
    if twice.size:
        raise InputError(
            f"{side.name}: id {twice[0]} is listed twice in segments_info, or is the "
            "0 of void; each segment needs an id of its own"
        )
    unknown = np.setdiff1d(ids, known)
    if unknown.size:
        raise InputError(
            f"{side.name}: {unknown.size} ids of the PNG are not in the json's "
            f"segments_info, for example {unknown[0]}; list them or make them 0 (void)"
        )
    absent = np.setdiff1d(known[known != 0], ids)
    if absent.size:
        raise InputError(
            f"{side.name}: {absent.size} ids of the json's segments_info are not in "
            f"the PNG, for example {absent[0]}; remove them from the json"
        )
    return sorter[np.searchsorted(known, ids)]


def _classes(side: _Side, index: Mapping[int, int]) -> np.ndarray:
    """[G] or [P] int64, row of each segment's category."""
    for segment in side.segments:
        if segment["category_id"] not in index:
            raise InputError(
                f"{side.name}: segment {segment['id']} has category "
                f"{segment['category_id']}, which is not in the ground truth's list of "
                "categories; use the data set's own category ids"
            )
    return np.array([index[s["category_id"]] for s in side.segments], np.int64)


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
