"""Matching: the assignment against known optima, and what masks it is given."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from cmt.matching.masks import Overlaps, assign, largest_masks, match_masks, take

_GOLDEN_CASES = (
    "uniform_16x16",
    "uniform_128x128",
    "wide_7x20",
    "tall_20x7",
    "integer_ties_12x12",
    "all_equal_6x6",
    "identity_like_8x8",
    "one_by_one",
    "masked_rows_tall_40x32",
    "masked_rows_wide_20x32",
    "large_dynamic_range_24x24",
)


def _totals(costs: np.ndarray, columns: np.ndarray) -> list[float]:
    """Total cost of each image; fails where a column is taken twice."""
    totals = []
    for cost, chosen in zip(costs, columns, strict=True):
        rows = np.flatnonzero(chosen >= 0)
        assert len(set(chosen[rows])) == len(rows)
        totals.append(cost[rows, chosen[rows]].sum(dtype=np.float64))
    return totals


@pytest.mark.parametrize("case", _GOLDEN_CASES)
def test_totals_of_the_reference(shared, case):
    with np.load(shared / "golden" / "matching" / "matching.npz") as file:
        costs = file[f"{case}/cost"]
        if case.startswith("masked_rows"):
            expected = file[f"{case}/optimal_total_real_rows_only"]
            num_real = file[f"{case}/num_real_rows"]
        else:
            expected = file[f"{case}/optimal_total"]
            num_real = np.full(len(costs), costs.shape[1])
    real = np.arange(costs.shape[1]) < num_real[:, np.newaxis]
    columns = assign(tf.constant(costs), tf.constant(real)).numpy()
    pairs = np.minimum(num_real, costs.shape[2])
    np.testing.assert_array_equal((columns >= 0).sum(axis=1), pairs)
    assert not (columns >= 0)[~real].any()
    np.testing.assert_allclose(_totals(costs, columns), expected, rtol=1e-5)


def test_assign_by_hand():
    costs = [[[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [9.0, 9.0, 9.0]]]
    real = [[True, True, False]]
    columns = assign(tf.constant(costs), tf.constant(real))
    # 3 + 0 and 1 + 2 are both 3; 4 + 0, 1 + 5 and 3 + 2 are more.
    assert columns.numpy()[0].tolist() in ([2, 1, -1], [1, 0, -1])


def test_assign_is_optimal_on_random_costs():
    rng = np.random.default_rng(0)
    costs = rng.normal(size=[7, 3, 5]).astype(np.float32)
    columns = assign(tf.constant(costs), tf.ones([7, 3], tf.bool)).numpy()
    for cost, total in zip(costs, _totals(costs, columns), strict=True):
        best = min(
            sum(cost[row, column] for row, column in enumerate(choice))
            for choice in itertools.permutations(range(5), 3)
        )
        assert total == pytest.approx(best, abs=1e-6)


def test_assign_without_real_rows_and_in_a_graph():
    graph = tf.function(assign)
    columns = graph(tf.ones([2, 3, 5]), tf.zeros([2, 3], tf.bool))
    assert columns.shape == [2, 3]
    assert columns.dtype == tf.int32
    assert (columns.numpy() == -1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_costs_that_are_not_finite_leave_columns_one_to_one(value):
    """The loss says it: nothing may raise before training can keep its state."""
    costs = np.zeros([2, 3, 5], np.float32)
    costs[1, 2, 4] = costs[1, 0] = value
    for function in (assign, tf.function(assign)):
        columns = function(tf.constant(costs), tf.ones([2, 3], tf.bool)).numpy()
        for row in columns:
            assert len(set(row)) == 3
            assert row.min() >= 0


def test_largest_masks():
    areas = tf.constant([[3.0, 0.0, 7.0, 3.0, 1.0], [0.0, 0.0, 0.0, 2.0, 0.0]])
    kept = largest_masks(areas, 2).numpy()
    assert kept.tolist() == [
        [True, False, True, False, False],
        [False, False, False, True, False],
    ]
    assert largest_masks(areas, 9).numpy().sum(axis=1).tolist() == [4, 1]


def test_take():
    values = tf.constant([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])
    found = take(values, tf.constant([[1, -1, 0], [-1, -1, 1]]), default=9)
    assert found.numpy().tolist() == [
        [[3, 4], [9, 9], [1, 2]],
        [[9, 9], [9, 9], [7, 8]],
    ]


def _match(num_centers: int):
    """Two masks of 3 and 2 pixels and one that has pixels and no class."""
    rng = np.random.default_rng(1)
    logits = tf.constant(rng.normal(size=[1, 7, num_centers]), tf.float32)
    regions = tf.one_hot([[0, 0, 0, 1, 1, 2, 4]], 5)
    return match_masks(
        Overlaps(
            tf.matmul(regions, tf.nn.softmax(logits), transpose_a=True),
            tf.reduce_sum(regions, axis=1),
        ),
        tf.constant(rng.normal(size=[1, num_centers, 4]), tf.float32),
        mask_classes=tf.constant([[2, 1, 0]]),
    )


def test_both_sides_of_a_matching_agree():
    matching = _match(5)
    centers = matching.mask_centers.numpy()[0]
    assert (centers[:2] >= 0).all()
    assert centers[2] == -1
    masks = matching.center_masks.numpy()[0]
    assert masks[centers[0]] == 0
    assert masks[centers[1]] == 1
    assert (masks >= 0).sum() == 2
    classes = matching.center_classes.numpy()[0]
    assert classes[centers[0]] == 2
    assert classes[centers[1]] == 1
    assert classes.sum() == 3
    for similarity in (matching.mask_similarity, matching.class_similarity):
        np.testing.assert_array_equal(similarity.numpy()[0] > 0, masks >= 0)


def test_the_smallest_masks_go_without_a_center():
    matching = _match(1)
    assert matching.mask_centers.numpy().tolist() == [[0, -1, -1]]
    assert matching.center_masks.numpy().tolist() == [[0]]
    assert matching.center_classes.numpy().tolist() == [[2]]
