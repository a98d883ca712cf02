"""Panoptic quality of maps: cases by hand and a loop over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import Segment
from cmt.evaluation.overlap import PanopticMap, category_rows
from cmt.evaluation.panoptic_quality import count_image, quality

THING = Category(7, "thing", True, (255, 0, 0))
OTHER = Category(3, "other", True, (255, 255, 0))
STUFF = Category(11, "stuff", False, (0, 0, 255))
CATEGORIES = [THING, OTHER, STUFF]


def segment(number, category, area=None, is_crowd=False) -> Segment:
    return Segment(number, category.id, area, is_crowd)


def row(*ids) -> np.ndarray:
    return np.array([ids], np.int32)


def count(gt_map, gt_segments, pred_map, pred_segments) -> np.ndarray:
    return count_image(
        PanopticMap("ground truth", gt_map, gt_segments),
        PanopticMap("prediction", pred_map, pred_segments),
        category_rows(CATEGORIES),
    )


def score(*image) -> dict:
    return quality(CATEGORIES, count(*image))


# --- by hand ------------------------------------------------------------------------


def test_a_case_by_hand():
    """IoU 3/4 for the thing; stuff missed; a false thing; half of the other in void.

    Ground truth: thing 4 pixels, stuff 3, void 3. Prediction: thing 3 of its 4
    pixels; thing 2 on one pixel of stuff and nothing else, a false positive; "other"
    on two void and one stuff pixel, more than half void, not counted.
    """
    gt_map = row(1, 1, 1, 1, 2, 2, 2, 0, 0, 0)
    pred_map = row(5, 5, 5, 0, 6, 0, 9, 9, 9, 0)
    result = score(
        gt_map,
        [segment(1, THING, area=4), segment(2, STUFF, area=3)],
        pred_map,
        [segment(5, THING), segment(6, THING), segment(9, OTHER)],
    )
    assert result["per_class"] == {
        "7": {
            "name": "thing",
            "pq": pytest.approx(100 * 0.75 / 1.5),
            "sq": pytest.approx(75.0),
            "rq": pytest.approx(100 / 1.5),
            "iou_sum": 0.75,
            "tp": 1,
            "fp": 1,
            "fn": 0,
        },
        "11": {
            "name": "stuff",
            "pq": 0.0,
            "sq": 0.0,
            "rq": 0.0,
            "iou_sum": 0.0,
            "tp": 0,
            "fp": 0,
            "fn": 1,
        },
    }
    assert result["all"] == pytest.approx(
        {"pq": 25.0, "sq": 37.5, "rq": 100 / 3, "n": 2}
    )
    assert result["things"]["n"] == 1
    assert result["stuff"] == {"pq": 0.0, "sq": 0.0, "rq": 0.0, "n": 1}


@pytest.mark.parametrize(("hits", "tp"), [(1, 0), (2, 1)])
def test_a_match_needs_more_than_half(hits, tp):
    """2 pixels against `hits` of them: IoU 1/2 is no match, 1 is."""
    pred_map = row(*[3] * hits, *[0] * (2 - hits))
    result = score(row(1, 1), [segment(1, THING)], pred_map, [segment(3, THING)])
    assert result["per_class"]["7"]["tp"] == tp


def test_void_in_the_ground_truth_is_no_part_of_the_union():
    result = score(
        row(1, 1, 0, 0, 0), [segment(1, THING)], row(4, 4, 4, 4, 4), [segment(4, THING)]
    )
    assert result["per_class"]["7"]["iou_sum"] == 1.0


def test_crowd_is_neither_missed_nor_matched():
    gt_segments = [segment(1, THING, area=2, is_crowd=True)]
    assert score(row(1, 1), gt_segments, row(0, 0), [])["all"]["n"] == 0
    found = score(row(1, 1), gt_segments, row(5, 5), [segment(5, THING)])
    assert found["all"]["n"] == 0


def test_a_segment_in_crowd_of_another_class_is_false():
    gt_segments = [segment(1, OTHER, area=2, is_crowd=True)]
    result = score(row(1, 1), gt_segments, row(5, 5), [segment(5, THING)])
    assert result["per_class"]["7"]["fp"] == 1


def test_only_the_last_crowd_of_a_class_excuses():
    gt_map = row(1, 1, 2, 2)
    crowds = [segment(i, THING, area=2, is_crowd=True) for i in (1, 2)]
    pred_map, pred_segments = row(5, 5, 6, 6), [segment(5, THING), segment(6, THING)]
    first_last = score(gt_map, crowds[::-1], pred_map, pred_segments)
    assert first_last["per_class"]["7"]["fp"] == 1
    only_first = score(gt_map, crowds, row(5, 5, 0, 0), pred_segments[:1])
    assert only_first["per_class"]["7"]["fp"] == 1
    only_last = score(gt_map, crowds, row(0, 0, 6, 6), pred_segments[1:])
    assert only_last["all"]["n"] == 0


def test_areas_of_the_ground_truth_come_from_its_json():
    gt_segments = [segment(1, THING, area=5)]
    result = score(row(1, 1, 1, 0), gt_segments, row(4, 4, 4, 0), [segment(4, THING)])
    assert result["per_class"]["7"]["iou_sum"] == pytest.approx(3 / 5)


def test_no_class_at_all_gives_zeros():
    result = score(row(0, 0), [], row(0, 0), [])
    for group in ("all", "things", "stuff"):
        assert result[group] == {"pq": 0.0, "sq": 0.0, "rq": 0.0, "n": 0}
    assert result["per_class"] == {}


# --- a loop -------------------------------------------------------------------------


def loop(counts, gt_map, gt_segments, pred_map, pred_segments) -> None:
    """Adds [IoU sum, TP, FP, FN] of each category id, pixel by pixel."""

    def pixels(segment_map, number):
        return {p for p, value in enumerate(segment_map.flat) if value == number}

    void = pixels(gt_map, 0)
    gt_matched, pred_matched = set(), set()
    for gt in gt_segments:
        for pred in pred_segments:
            g, p = pixels(gt_map, gt.id), pixels(pred_map, pred.id)
            iou = len(g & p) / len((g | p) - (p & void))
            same = gt.category_id == pred.category_id
            if same and not gt.is_crowd and iou > 0.5:
                counts[gt.category_id] += [iou, 1, 0, 0]
                gt_matched.add(gt.id)
                pred_matched.add(pred.id)
    for gt in gt_segments:
        if gt.id not in gt_matched and not gt.is_crowd:
            counts[gt.category_id] += [0, 0, 0, 1]
    for pred in pred_segments:
        p, ignored = pixels(pred_map, pred.id), set(void)
        crowds = [
            gt
            for gt in gt_segments
            if gt.is_crowd and gt.category_id == pred.category_id
        ]
        if crowds:
            ignored |= pixels(gt_map, crowds[-1].id)
        if pred.id not in pred_matched and len(p & ignored) / len(p) <= 0.5:
            counts[pred.category_id] += [0, 0, 1, 0]


def random_image(rng, height, width) -> tuple:
    """Stripes of segments with ids up to 2**24 - 1, and the same ones disturbed."""
    ids = rng.choice(2**24 - 1, 7, replace=False) + 1
    gt_map = np.sort(rng.integers(0, 8, [height, width]), axis=1)
    pred_map = np.where(rng.random(gt_map.shape) < 0.3, np.roll(gt_map, 1, 1), gt_map)
    table = np.array([0, *ids])
    kinds = [CATEGORIES[k] for k in rng.integers(0, 3, 7)]
    sides = []
    for segment_map, is_gt in ((gt_map, True), (pred_map, False)):
        segments = [
            segment(int(ids[k]), kinds[k], is_crowd=bool(is_gt and k % 3 == 0))
            for k in rng.permutation(7)
            if (segment_map == k + 1).any()
        ]
        if not is_gt:
            other = CATEGORIES[rng.integers(3)].id
            segments[0] = segments[0]._replace(category_id=other)
        areas = [int((table[segment_map] == entry.id).sum()) for entry in segments]
        segments = [
            entry._replace(area=area)
            for entry, area in zip(segments, areas, strict=True)
        ]
        sides += [table[segment_map], segments]
    return tuple(sides)


def test_counts_equal_a_loop():
    rng = np.random.default_rng(1)
    found = np.zeros([3, 4])
    counts = {category.id: np.zeros(4) for category in CATEGORIES}
    for _ in range(13):
        image = random_image(rng, 5, 23)
        found += count(*image)
        loop(counts, *image)
    per_class = quality(CATEGORIES, found)["per_class"]
    for category in CATEGORIES:
        ours = per_class[str(category.id)]
        got = [ours[key] for key in ("iou_sum", "tp", "fp", "fn")]
        np.testing.assert_allclose(got, counts[category.id], atol=1e-12)
    assert (sum(counts.values()) > 0).all()
