"""The assignment in the graph: optimal on costs made to mislead it, and fit for XLA."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import linear_sum_assignment

from cmt.matching.assignment import assign_in_graph

_LARGE = 1e6


@pytest.fixture(scope="module")
def compiled():
    return tf.function(assign_in_graph, jit_compile=True)


def _uniform(rng, shape):
    return rng.uniform(size=shape)


def _negative(rng, shape):
    return -rng.uniform(0.0, _LARGE, shape)


def _training_like(rng, shape):
    """Minus dice times class probability: few pairs that fit, the rest near zero."""
    return -rng.beta(0.3, 4.0, shape) * rng.beta(0.2, 5.0, shape)


def _few_values(rng, shape):
    return rng.integers(-1, 3, shape)


def _integers(rng, shape):
    return rng.integers(-(2**20) + 1, 2**20, shape)


def _all_equal(rng, shape):
    return np.broadcast_to(rng.integers(-9, 9, (shape[0], 1, 1)), shape)


def _products(rng, shape):
    """i * j, where each row has to try all columns before it; as large as allowed."""
    rows, columns = np.arange(shape[1]), np.arange(shape[2])
    most = max(rows[-1] * columns[-1], 1)
    factor = rng.integers(1, (2**20 - 1) // most + 1, (shape[0], 1, 1))
    return factor * np.outer(rows, columns) * rng.choice([-1, 1], (shape[0], 1, 1))


def _equal_rows(rng, shape):
    kinds = rng.integers(0, 1 + shape[1] // 3, shape[:2])
    return np.take_along_axis(rng.normal(size=shape), kinds[:, :, np.newaxis], axis=1)


def _equal_columns(rng, shape):
    kinds = rng.integers(0, 1 + shape[2] // 3, (shape[0], 1, shape[2]))
    return np.take_along_axis(rng.normal(size=shape), kinds, axis=2) * _LARGE / 8


def _many_magnitudes(rng, shape):
    return 10.0 ** rng.uniform(-12.0, 6.0, shape)


def _many_magnitudes_and_signs(rng, shape):
    return 10.0 ** rng.uniform(-12.0, 6.0, shape) * rng.choice([-1.0, 1.0], shape)


def _tiny(rng, shape):
    return 1e-30 * 10.0 ** rng.uniform(-5.0, 0.0, shape)


def _tiny_beside_large(rng, shape):
    return np.where(rng.uniform(size=shape) < 0.7, _LARGE, rng.uniform(size=shape))


def _large_with_tiny_differences(rng, shape):
    return _LARGE - 0.0625 * rng.integers(0, 4, shape)


def _sums(rng, shape):
    """Row part plus column part: every assignment of a square one costs the same."""
    rows = rng.integers(-(2**19), 2**19, (shape[0], shape[1], 1))
    return rows + rng.integers(0, 2**19, (shape[0], 1, shape[2]))


def _sums_and_noise(rng, shape):
    rows = rng.uniform(-_LARGE / 2, _LARGE / 2, (shape[0], shape[1], 1))
    columns = rng.uniform(0.0, _LARGE / 2, (shape[0], 1, shape[2]))
    return (rows + columns) * 0.99 + 10.0 * rng.uniform(size=shape)


def _large_prices_tiny_costs(rng, shape):
    """Prices up to 1e6 while the pairs to choose from cost 0.01 and differ in that.

    Rows and columns come in twos, each two on a level of their own. Elsewhere the cost
    is the difference of the levels, and 1 more, so that no way around pays.
    """
    count = min(shape[1:])
    twos = np.arange(count) // 2
    level = rng.integers(-(2**18), 2**18, (shape[0], count))[:, twos]
    costs = np.full(shape, _LARGE)
    best = level[:, :, np.newaxis] - level[:, np.newaxis, :] + 1.0
    tiny = 0.01 * rng.uniform(1.0, 2.0, best.shape)
    costs[:, :count, :count] = np.where(twos[:, np.newaxis] == twos, tiny, best)
    return rng.permutation(rng.permutation(costs, axis=1), axis=2)


def _large_prices_least_costs(rng, shape):
    """The same, so small that the low bits of a price would be denormal."""
    return 2.0**-118 * _large_prices_tiny_costs(rng, shape)


def _blocks(rng, shape):
    rows, columns = (rng.integers(0, 3, (shape[0], size)) for size in shape[1:])
    same = rows[:, :, np.newaxis] == columns[:, np.newaxis, :]
    return np.where(same, rng.uniform(size=shape), 1e3 + rng.uniform(size=shape))


def _one_unit_apart(rng, shape):
    """Neighbouring float32 numbers of a random magnitude."""
    base = np.float32(10.0) ** rng.integers(-6, 6, (shape[0], 1, 1))
    return base * (1.0 + 2.0**-23 * rng.integers(0, 8, shape))


_FAMILIES = (
    _uniform,
    _negative,
    _training_like,
    _few_values,
    _integers,
    _all_equal,
    _products,
    _equal_rows,
    _equal_columns,
    _many_magnitudes,
    _many_magnitudes_and_signs,
    _tiny,
    _tiny_beside_large,
    _large_with_tiny_differences,
    _sums,
    _sums_and_noise,
    _large_prices_tiny_costs,
    _large_prices_least_costs,
    _blocks,
    _one_unit_apart,
)
_OF_INTEGERS = (_few_values, _integers, _all_equal, _products, _sums)

_SHAPES = ((1, 1), (1, 7), (3, 5), (5, 3), (8, 8), (9, 27), (24, 24))
_LARGE_SHAPES = ((20, 60), (40, 32), (64, 64), (12, 128), (128, 128))


def _check(costs: np.ndarray, real: np.ndarray, columns: np.ndarray, *, exact: bool):
    """Fails where an assignment is not one to one, incomplete, or not optimal."""
    assert columns.dtype == np.int32
    assert columns.shape == real.shape
    for cost, is_real, chosen in zip(costs, real, columns, strict=True):
        cost = cost.astype(np.float64)
        rows = np.flatnonzero(chosen >= 0)
        assert is_real[rows].all()
        assert len(set(chosen[rows])) == len(rows)
        assert len(rows) == min(is_real.sum(), cost.shape[1])
        best = cost[is_real][linear_sum_assignment(cost[is_real])]
        excess = cost[rows, chosen[rows]].sum() - best.sum()
        assert abs(excess) <= (0.0 if exact else 1e-5 * np.abs(best).sum())


def _check_family(compiled, make, shape: tuple[int, int], count: int) -> int:
    """Checks `count` matrices of a family, a part of them with padded rows."""
    rng = np.random.default_rng([_FAMILIES.index(make), count, *shape])
    costs = make(rng, (count, *shape)).astype(np.float32)
    assert np.abs(costs).max() <= max(_LARGE, 2**20 - 1)
    share = rng.choice([0.5, 0.9, 1.0], (count, 1))
    real = rng.uniform(size=(count, shape[0])) < share
    columns = compiled(tf.constant(costs), tf.constant(real)).numpy()
    _check(costs, real, columns, exact=make in _OF_INTEGERS)
    return count


@pytest.mark.parametrize("make", _FAMILIES)
def test_optimal(compiled, make):
    for shape in _SHAPES:
        _check_family(compiled, make, shape, 8)


@pytest.mark.slow
def test_optimal_20000_times(compiled):
    count = sum(
        _check_family(compiled, make, shape, 16 if shape == (128, 128) else 100)
        for shape, make in itertools.product(_SHAPES + _LARGE_SHAPES, _FAMILIES)
    )
    assert count >= 20_000


@pytest.mark.parametrize(
    "case",
    [
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
    ],
)
def test_totals_of_the_reference(compiled, shared, case):
    with np.load(shared / "golden" / "matching" / "matching.npz") as file:
        costs = file[f"{case}/cost"]
        if case.startswith("masked_rows"):
            expected = file[f"{case}/optimal_total_real_rows_only"]
            num_real = file[f"{case}/num_real_rows"]
        else:
            expected = file[f"{case}/optimal_total"]
            num_real = np.full(len(costs), costs.shape[1])
    real = np.arange(costs.shape[1]) < num_real[:, np.newaxis]
    columns = compiled(tf.constant(costs), tf.constant(real)).numpy()
    _check(costs, real, columns, exact="integer" in case)
    chosen = np.take_along_axis(costs, np.maximum(columns, 0)[:, :, np.newaxis], 2)
    totals = np.where(columns >= 0, chosen[:, :, 0], 0.0).sum(axis=1, dtype=np.float64)
    np.testing.assert_allclose(totals, expected, rtol=1e-5)


def test_by_hand(compiled):
    costs = tf.constant([[[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]]])
    # Of the six, 1 + 2 + 2 is the least; without the first row it is 0 + 2.
    every = tf.constant([[True, True, True]])
    assert compiled(costs, every).numpy().tolist() == [[1, 0, 2]]
    last = tf.constant([[False, True, True]])
    assert compiled(costs, last).numpy().tolist() == [[-1, 1, 2]]


def test_more_rows_than_columns_by_hand(compiled):
    costs = tf.constant([[[5.0], [-1.0], [3.0]]] * 3)
    real = tf.constant([[True, True, True], [True, False, True], [False] * 3])
    columns = compiled(costs, real).numpy().tolist()
    assert columns == [[-1, 0, -1], [-1, -1, 0], [-1, -1, -1]]


def test_rows_without_a_finite_cost_do_not_disturb_the_search(compiled):
    """Such a row finds every column out of reach, whatever led there before."""
    rng = np.random.default_rng(4)
    costs = _products(rng, (64, 12, 12)).astype(np.float32)
    costs += rng.integers(0, 9, costs.shape)
    wrong = rng.uniform(size=(64, 12)) < 0.3
    costs[wrong] = np.nan
    columns = compiled(tf.constant(costs), tf.ones([64, 12], tf.bool)).numpy()
    assert (np.sort(columns, axis=1) == np.arange(12)).all()


def test_rows_that_are_not_real_are_not_looked_at(compiled):
    rng = np.random.default_rng(1)
    costs = rng.normal(size=[5, 7, 6]).astype(np.float32)
    real = rng.uniform(size=[5, 7]) < 0.6
    real[0], real[1] = True, False
    expected = compiled(tf.constant(costs), tf.constant(real)).numpy()
    for value in (np.nan, np.inf, -np.inf):
        costs[~real] = value
        columns = compiled(tf.constant(costs), tf.constant(real)).numpy()
        np.testing.assert_array_equal(columns, expected)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (7, 7)])
def test_costs_that_are_not_finite_end(compiled, shape):
    rng = np.random.default_rng(2)
    costs = rng.normal(size=(12, *shape))
    wrong = rng.choice([np.nan, np.inf, -np.inf, 3e38, -3e38], costs.shape)
    share = np.linspace(0.0, 1.0, 12)[:, np.newaxis, np.newaxis]
    costs = np.where(rng.uniform(size=costs.shape) < share, wrong, costs)
    costs = costs.astype(np.float32)
    real = np.ones(costs.shape[:2], bool)
    columns = compiled(tf.constant(costs), tf.constant(real)).numpy()
    for chosen in columns:
        taken = chosen[chosen >= 0]
        assert len(set(taken)) == len(taken) == min(shape)
        assert taken.max() < shape[1]
    _check(costs[:1], real[:1], columns[:1], exact=False)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_nothing_to_assign(compiled, shape):
    columns = compiled(tf.zeros([2, *shape]), tf.ones([2, shape[0]], tf.bool))
    assert columns.shape == [2, shape[0]]
    assert (columns.numpy() == -1).all()


@pytest.mark.parametrize("shape", [(3, 4), (4, 3)])
def test_without_xla_and_with_any_batch(shape):
    rng = np.random.default_rng(3)
    costs = rng.normal(size=(3, *shape)).astype(np.float32)
    real = np.array([[True] * 4, [True, False, True, False], [False] * 4])
    real = real[:, : shape[0]]
    specs = [
        tf.TensorSpec([None, *shape], tf.float32),
        tf.TensorSpec([None, shape[0]], tf.bool),
    ]
    in_graph = tf.function(assign_in_graph, input_signature=specs)
    compiled = tf.function(assign_in_graph, input_signature=specs, jit_compile=True)
    for function in (assign_in_graph, in_graph, compiled):
        columns = function(tf.constant(costs), tf.constant(real)).numpy()
        _check(costs, real, columns, exact=False)


def test_no_gradient_through_the_choice():
    @tf.function(jit_compile=True)
    def chosen_and_gradient(costs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(costs)
            columns = assign_in_graph(costs, tf.ones([2, 3], tf.bool))
            chosen = tf.reduce_sum(tf.one_hot(columns, 4) * costs)
        return columns, tape.gradient(chosen, costs)

    costs = tf.random.stateless_normal([2, 3, 4], seed=(0, 1))
    columns, gradient = chosen_and_gradient(costs)
    np.testing.assert_array_equal(gradient, tf.one_hot(columns, 4))


def test_shape_that_is_not_fixed_is_named():
    specs = [tf.TensorSpec([2, None, 5]), tf.TensorSpec([2, None], tf.bool)]
    with pytest.raises(ValueError, match=r"fixed G and N.*\(2, None, 5\)"):
        tf.function(assign_in_graph).get_concrete_function(*specs)


@pytest.mark.parametrize("shape", [(12, 128), (40, 32)])
def test_compiles_without_host_dynamic_shapes_and_64_bits(compiled, shape):
    specs = [tf.TensorSpec([8, *shape]), tf.TensorSpec([8, shape[0]], tf.bool)]
    hlo = compiled.experimental_get_compiler_ir(*specs)(stage="hlo")
    assert "while(" in hlo
    for refused in ("f64[", "s64[", "custom-call", "outfeed", "infeed", "send("):
        assert refused not in hlo
    assert not re.search(r"\[[^\]]*<=", hlo)
