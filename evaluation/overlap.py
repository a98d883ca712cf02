"""What the segments of a ground truth and of a prediction share, in pixels.

All metrics of an evaluation are computed from these numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import Segment
from cmt.data.panoptic.masks import color_ids, segment_index
from cmt.errors import InputError


class PanopticMap(NamedTuple):
    """Ground truth or prediction of an image.

    Attributes:
      name: of the PNG, for messages.
      ids: integers 0 to 2**24 - 1, segment ids, 0 is void; [H, W], or [R] after
        `shorten`. Before it, colours that stand for them, [H, W, 3] uint8, spare time.
      segments: of each id. In ground truth, areas count as they are given; where one
        is None, the pixels are counted.
    """

    name: str
    ids: np.ndarray
    segments: Sequence[Segment]


class Overlap(NamedTuple):
    """What the segments of an image share: G of the ground truth, P predicted.

    Attributes:
      gt_segments: the segments of the ground truth.
      gt_class: [G] int64, the row of the category of each.
      pred_class: [P] int64, the same of the prediction.
      pred_score: [P] float64, how sure the prediction is; NaN where it does not say.
      pixels: [1 + G, 1 + P] float64; row and column 0 are void.
    """

    gt_segments: Sequence[Segment]
    gt_class: np.ndarray
    pred_class: np.ndarray
    pred_score: np.ndarray
    pixels: np.ndarray

    @property
    def is_crowd(self) -> np.ndarray:
        """[G] bool, the segments of several objects."""
        return np.array([segment.is_crowd for segment in self.gt_segments], bool)


class Instances(NamedTuple):
    """The things of one class in an image: G of the ground truth, P predicted.

    Attributes:
      gt_area: [G] float64, pixels.
      gt_crowd: [G] bool.
      pred_area: [P] float64, pixels.
      pred_score: [P] float64; NaN where the prediction does not say how sure it is.
      shared: [G, P] float64, pixels.
    """

    gt_area: np.ndarray
    gt_crowd: np.ndarray
    pred_area: np.ndarray
    pred_score: np.ndarray
    shared: np.ndarray


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


def shorten(
    gt: PanopticMap, pred: PanopticMap
) -> tuple[PanopticMap, PanopticMap, np.ndarray]:
    """Replaces pixels by the runs of pixels, row after row, in which neither changes.

    Args:
      gt, pred: ids are [H, W] of both, or colours of both.

    Returns:
      The maps with ids [R], one of each run, and [R] pixels of each run.

    Raises:
      InputError: the maps differ in size.
    """
    if gt.ids.shape != pred.ids.shape:
        (gt_height, gt_width), (height, width) = gt.ids.shape[:2], pred.ids.shape[:2]
        raise InputError(
            f"{pred.name}: is {width}x{height} pixels, but {gt.name} is "
            f"{gt_width}x{gt_height}; bring predictions to the size of the image"
        )
    numbers = gt.ids[0, 0].size  # of a pixel
    true, found = gt.ids.reshape(-1), pred.ids.reshape(-1)
    changes = true[numbers:] != true[:-numbers]
    changes |= found[numbers:] != found[:-numbers]
    starts = np.flatnonzero(changes) // numbers + 1
    starts = np.append(0, starts[np.diff(starts, prepend=0) > 0])
    pixels = np.diff(starts, append=true.size // numbers)
    return _at(gt, starts), _at(pred, starts), pixels


def _at(side: PanopticMap, places: np.ndarray) -> PanopticMap:
    """The map with the ids of some pixels, by their places row after row."""
    if side.ids.ndim == 2:
        return side._replace(ids=side.ids.reshape(-1)[places])
    return side._replace(ids=color_ids(side.ids.reshape(-1, 3)[places]))


def measure_overlap(
    gt: PanopticMap, pred: PanopticMap, pixels: np.ndarray, rows: Mapping[int, int]
) -> Overlap:
    """Counts the pixels that each pair of segments shares.

    Args:
      gt: ground truth, of `shorten`.
      pred: prediction, of `shorten`.
      pixels: [R], of each run.
      rows: from `category_rows`.

    Raises:
      InputError: ids of a map and of its segments differ, or a category is unknown.
    """
    gt_index, pred_index = (segment_index(m.ids, m.segments) for m in (gt, pred))
    shape = len(gt.segments) + 2, len(pred.segments) + 2
    pairs = gt_index.astype(np.int64) * shape[1] + pred_index
    shared = np.bincount(pairs, pixels, shape[0] * shape[1]).reshape(shape)
    for side, axis, index in ((gt, 1, gt_index), (pred, 0, pred_index)):
        _check_ids(side, shared.sum(axis=axis), index)
    scores = [np.nan if s.score is None else s.score for s in pred.segments]
    return Overlap(
        gt_segments=gt.segments,
        gt_class=_classes(gt, rows),
        pred_class=_classes(pred, rows),
        pred_score=np.array(scores, np.float64),
        pixels=shared[1:, 1:],
    )


def find_instances(overlap: Overlap, is_thing: np.ndarray) -> dict[int, Instances]:
    """Takes the things out of the segments.

    Args:
      overlap: of all segments.
      is_thing: [C] bool, by the row of the category.

    Returns:
      The instances of each class of things that occurs, by its row.
    """
    gt_area, pred_area = (overlap.pixels.sum(axis=axis)[1:] for axis in (1, 0))
    is_crowd = overlap.is_crowd
    found = {}
    for row in {*overlap.gt_class.tolist(), *overlap.pred_class.tolist()}:
        if is_thing[row]:
            truth = np.flatnonzero(overlap.gt_class == row)
            predicted = np.flatnonzero(overlap.pred_class == row)
            found[row] = Instances(
                gt_area=gt_area[truth],
                gt_crowd=is_crowd[truth],
                pred_area=pred_area[predicted],
                pred_score=overlap.pred_score[predicted],
                shared=overlap.pixels[np.ix_(1 + truth, 1 + predicted)],
            )
    return found


def _check_ids(side: PanopticMap, pixels: np.ndarray, index: np.ndarray) -> None:
    """Checks that a map has the ids of its segments, and 0.

    Args:
      side: the map and its segments.
      pixels: of unknown ids, of void, and of each segment.
      index: of each run, as `segment_index` has it.
    """
    listed = [0, *(segment.id for segment in side.segments)]
    twice = [number for number, times in Counter(listed).items() if times > 1]
    if twice:
        raise InputError(
            f"{side.name}: id {twice[0]} is listed twice in segments_info, or is the "
            "0 of void; each segment needs an id of its own"
        )
    if pixels[0]:
        unknown = np.unique(side.ids[index == 0])
        raise InputError(
            f"{side.name}: {unknown.size} ids of the PNG are not in the json's "
            f"segments_info, for example {unknown[0]}; list them or make them 0 (void)"
        )
    absent = [listed[place - 1] for place in np.flatnonzero(pixels[2:] == 0) + 2]
    if absent:
        raise InputError(
            f"{side.name}: {len(absent)} ids of the json's segments_info are not in "
            f"the PNG, for example {absent[0]}; remove them from the json"
        )


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
