"""Panoptic quality, with the rules of the official COCO evaluation, in NumPy.

Kirillov et al., "Panoptic Segmentation", CVPR 2019, and the rules for void and crowd
of the COCO panoptic task.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import (
    MAX_SEGMENT_ID,
    ImageId,
    PanopticImage,
    Segment,
    read_annotations,
)
from cmt.data.panoptic.kinds import Kind, Tally
from cmt.data.panoptic.masks import read_ids
from cmt.data.panoptic.predictions import count_values
from cmt.data.panoptic.settle import has_stuff_twice, settle
from cmt.errors import InputError
from cmt.io.parallel import num_workers
from cmt.io.progress import track
from cmt.io.storage import Location, is_folder, join

_MIN_IOU = 0.5  # exclusive; makes the match of a segment unique
_MAX_IGNORED_SHARE = 0.5  # a false positive lies in void or crowd by at most this
_IOU_SUM, _TP, _FP, _FN = range(4)


class PanopticFile(NamedTuple):
    """A COCO panoptic json.

    Attributes:
      path: of the file, for messages.
      categories: in the order of the file; empty where it has none (predictions).
      images: by image id, in the order of the annotations.
    """

    path: Location
    categories: list[Category]
    images: dict[ImageId, PanopticImage]

    @classmethod
    def read(cls, path: Location) -> PanopticFile:
        """Reads ground truth or predictions.

        Raises:
          InputError: see `read_annotations`.
        """
        categories, images = read_annotations(path)
        return cls(path, categories, {image.image_id: image for image in images})

    def only(self, image_ids: Collection[ImageId]) -> PanopticFile:
        """Returns a copy that has the annotations of some images alone."""
        chosen = {i: image for i, image in self.images.items() if i in image_ids}
        return self._replace(images=chosen)


class PanopticMap(NamedTuple):
    """Ground truth or prediction of an image.

    Attributes:
      name: of the PNG, for messages.
      ids: [H, W] integers 0 to 2**24 - 1, segment ids, 0 is void.
      segments: of each id. In ground truth, areas count as they are given; where one
        is None, the pixels are counted.
    """

    name: str
    ids: np.ndarray
    segments: Sequence[Segment]


def score_files(
    gt_json: Location,
    gt_masks: Location,
    pred_json: Location,
    pred_masks: Location,
    *,
    workers: int = 0,
) -> dict[str, Any]:
    """Scores COCO panoptic predictions; see `score`.

    Paths may be local or what `tf.io.gfile` reads.

    Args:
      gt_json: ground truth, with categories.
      gt_masks: folder of its PNGs.
      pred_json: predictions; images that are not in the ground truth are left out.
      pred_masks: folder of its PNGs.
      workers: images at a time; 0 for as many as there are cores.

    Returns:
      See `quality`.

    Raises:
      InputError: a file is missing or damaged, or see `score`.
    """
    gt, pred = PanopticFile.read(gt_json), PanopticFile.read(pred_json)
    return score(gt, gt_masks, pred, pred_masks, workers=workers)


def score(
    gt: PanopticFile,
    gt_masks: Location,
    pred: PanopticFile,
    pred_masks: Location,
    *,
    workers: int = 0,
) -> dict[str, Any]:
    """Scores predictions; the result does not depend on `workers`.

    Args:
      gt: ground truth, with categories.
      gt_masks: folder of its PNGs.
      pred: predictions; images that are not in the ground truth are left out.
      pred_masks: folder of its PNGs.
      workers: images at a time, in threads (decoding and counting release Python's
        lock); 0 for as many as there are cores.

    Returns:
      See `quality`; and "notes", a `Tally` of what the PNGs have otherwise than the
      json. Where areas of the ground truth are among them, which the official formula
      takes from the json, "with_pixel_areas" has the scores with those of the PNG.

    Raises:
      InputError: a PNG is missing or damaged, an image has no prediction, or the json
        and the PNGs do not fit each other.
    """
    _check_files(gt, pred)
    gt_masks, pred_masks = _folder(gt_masks), _folder(pred_masks)
    rows = category_rows(gt.categories)
    is_thing = {category.id: category.is_thing for category in gt.categories}
    # Officially each such segment of a prediction counts. Where the ground truth has
    # some, too, and is merged, so is the prediction: the truth is right by itself.
    merged = is_thing if has_stuff_twice(gt.images.values(), is_thing) else {}

    def count(image: PanopticImage) -> tuple[np.ndarray, np.ndarray, Tally]:
        true, notes = _read_map(gt_masks, image, is_thing)
        predicted, others = _read_map(
            pred_masks, pred.images[image.image_id], merged, areas=False
        )
        official = pixels = count_image(true, predicted, rows)
        if Kind.AREA in notes:
            pixels = count_image(_without_areas(true), predicted, rows)
        notes.join(others)
        return official, pixels, notes

    counts, of_pixels = np.zeros([2, len(rows), 4])
    notes = Tally()
    with ThreadPoolExecutor(num_workers(workers)) as pool:
        images = pool.map(count, gt.images.values())
        for of_image in track(images, description="score", total=len(gt.images)):
            counts += of_image[0]
            of_pixels += of_image[1]
            notes.join(of_image[2])
    result = {**quality(gt.categories, counts), "notes": notes}
    if Kind.AREA in notes:
        result["with_pixel_areas"] = quality(gt.categories, of_pixels)
    return result


def category_rows(categories: Sequence[Category]) -> dict[int, int]:
    """Returns the row that counts have for each category id.

    Raises:
      InputError: two categories have the same id.
    """
    rows = {category.id: row for row, category in enumerate(categories)}
    if len(rows) < len(categories):
        raise InputError(
            "the ids of categories must differ; got "
            f"{[category.id for category in categories]}"
        )
    return rows


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
        if of_class[_TP:].any()
    ]
    things = [scores for category, scores in scored if category.is_thing]
    stuff = [scores for category, scores in scored if not category.is_thing]
    return {
        "all": _group_scores([scores for _, scores in scored]),
        "things": _group_scores(things),
        "stuff": _group_scores(stuff),
        "per_class": {str(category.id): scores for category, scores in scored},
    }


def _check_files(gt: PanopticFile, pred: PanopticFile) -> None:
    if not gt.categories:
        raise InputError(
            f'{gt.path}: ground truth needs a list "categories"; give the ground '
            "truth's json to --gt and the prediction's to --pred"
        )
    if not gt.images:
        raise InputError(f"{gt.path}: has no annotation, so there is nothing to score")
    missing = [image for image in gt.images if image not in pred.images]
    if missing:
        raise InputError(
            f"{pred.path}: {len(missing)} of {len(gt.images)} images of the "
            f"ground truth have no prediction, for example image {missing[0]}; predict "
            "every image (one without segments has an empty segments_info)"
        )


def _folder(path: Location) -> Location:
    if not is_folder(path):
        raise InputError(f"{path}: no such folder; give the folder of the PNGs")
    return path


def _read_map(
    folder: Location,
    image: PanopticImage,
    is_thing: Mapping[int, bool],
    *,
    areas: bool = True,
) -> tuple[PanopticMap, Tally]:
    """Reads a PNG and settles its segments; areas of predictions do not matter."""
    path = join(folder, image.mask_name)
    found = PanopticMap(path, read_ids(path), image.segments)
    found = found if areas else _without_areas(found)
    ids, segments, notes = settle(path, found.ids, found.segments, is_thing)
    return PanopticMap(path, ids, segments), notes


def _without_areas(side: PanopticMap) -> PanopticMap:
    segments = [segment._replace(area=None) for segment in side.segments]
    return side._replace(segments=segments)


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
      InputError: the maps differ in size, ids of map and segments differ, or a
        category is unknown.
    """
    overlap, pixel_areas = _overlaps(gt, pred)
    gt_class, pred_class = _classes(gt, rows), _classes(pred, rows)
    is_crowd = np.array([segment.is_crowd for segment in gt.segments], bool)
    gt_area = np.array(
        [
            pixels if segment.area is None else segment.area
            for segment, pixels in zip(gt.segments, pixel_areas, strict=True)
        ],
        np.float64,
    )
    void_overlap, overlap = overlap[0, 1:], overlap[1:]
    # The areas of predictions are counted again; those in the json are ignored.
    pred_area = void_overlap + overlap[:, 1:].sum(axis=0)
    overlap = overlap[:, 1:]

    union = pred_area + gt_area[:, np.newaxis] - overlap - void_overlap
    # A union that is none comes of an area below the number of pixels.
    shared = (overlap > 0) & (union > 0)
    iou = np.divide(overlap, union, out=np.zeros(overlap.shape), where=shared)
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

    counts = np.zeros([len(rows), 4])
    gt_matched, _ = np.nonzero(matched)
    np.add.at(counts[:, _IOU_SUM], gt_class[gt_matched], iou[matched])
    np.add.at(counts[:, _TP], gt_class[gt_matched], 1)
    np.add.at(counts[:, _FP], pred_class[is_false], 1)
    np.add.at(counts[:, _FN], gt_class[is_missed], 1)
    return counts


def _overlaps(gt: PanopticMap, pred: PanopticMap) -> tuple[np.ndarray, np.ndarray]:
    """Counts the pixels that each pair of segments shares.

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
    pairs, pixels = count_values(
        gt.ids.astype(np.int64) * (MAX_SEGMENT_ID + 1) + pred.ids
    )
    overlap = np.zeros([1 + len(gt.segments), 1 + len(pred.segments)])
    rows = _positions(gt, pairs // (MAX_SEGMENT_ID + 1))
    columns = _positions(pred, pairs % (MAX_SEGMENT_ID + 1))
    overlap[rows, columns] = pixels
    return overlap, overlap[1:].sum(axis=1)


def _positions(side: PanopticMap, ids: np.ndarray) -> np.ndarray:
    """Finds the index of each id in (void, *segments), which must hold the same ids."""
    listed = np.array([0, *(segment.id for segment in side.segments)], np.int64)
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


def _classes(side: PanopticMap, rows: Mapping[int, int]) -> np.ndarray:
    """Returns [G] or [P] int64, the row of each segment's category."""
    for segment in side.segments:
        if segment.category_id not in rows:
            raise InputError(
                f"{side.name}: segment {segment.id} has category "
                f"{segment.category_id}, which is not in the ground truth's list of "
                "categories; use the data set's own category ids"
            )
    return np.array([rows[segment.category_id] for segment in side.segments], np.int64)


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
