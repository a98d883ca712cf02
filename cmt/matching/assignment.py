"""The least-cost assignment of rows to columns, solved inside the TensorFlow graph.

Rows join one after the other. A new row looks for the shortest alternating path to a
free column: along it, every row that had a column moves on to another one. Paths are
measured in reduced costs (cost minus the column's price), which the prices keep from
becoming negative, so that Dijkstra's search finds the path. The prices of the columns
it went through then change by how much nearer than the free one they were; that keeps
the assignment of the rows so far optimal. Rows have prices too, but a row's is known
from its column's (the reduced cost of a chosen pair is zero), so none is stored.

R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and sparse
linear assignment problems", Computing 38 (1987), the augmentation step; D. F. Crouse,
"On implementing 2D rectangular assignment algorithms", IEEE TAES 52 (2016), Sec. II,
for more columns than rows. SciPy's `linear_sum_assignment` is the same method.

Here every image of the batch is in a search of its own and one loop advances all of
them: it either scans one row in each, or takes over the paths that were found.

A sum of float32 costs may not be a float32: prices that grow to 1e6 would swallow
differences of 0.01. Distances and prices are therefore pairs of float32 (`_Pair`), 48
bits together. T. J. Dekker, "A floating-point technique for extending the available
precision", Numerische Mathematik 18 (1971).
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

# Costs are multiplied by this, or the low halves of small pairs would be denormal,
# which accelerators round to zero. Costs up to 1e15 are still far from overflow.
_SCALE = 2.0**64
# The distance of a column that no row has reached; greater than any scaled path.
_FAR = 2.0**126
_LAST = 2**31 - 1


class _Pair(NamedTuple):
    """The number high + low, where low is at most half a unit of high's last place."""

    high: tf.Tensor
    low: tf.Tensor


def _pair(high: tf.Tensor) -> _Pair:
    return _Pair(high, tf.zeros_like(high))


def _add(a: _Pair, b: _Pair) -> _Pair:
    high = a.high + b.high
    of_b = high - a.high
    low = (a.high - (high - of_b)) + (b.high - of_b) + (a.low + b.low)
    total = high + low
    return _Pair(total, low - (total - high))


def _subtract(a: _Pair, b: _Pair) -> _Pair:
    return _add(a, _Pair(-b.high, -b.low))


def _less(a: _Pair, b: _Pair) -> tf.Tensor:
    return (a.high < b.high) | ((a.high == b.high) & (a.low < b.low))


def _where(condition: tf.Tensor, a: _Pair, b: _Pair) -> _Pair:
    return _Pair(*(tf.where(condition, x, y) for x, y in zip(a, b, strict=True)))


def _by_column(a: _Pair) -> _Pair:
    return _Pair(a.high[:, tf.newaxis], a.low[:, tf.newaxis])


def _order(values: tf.Tensor) -> tf.Tensor:
    """Integers in the order of the floats; their minimum is faster and knows no NaN."""
    bits = tf.bitcast(values, tf.int32)
    return bits ^ (tf.bitwise.right_shift(bits, 31) & _LAST)


class _State(NamedTuple):
    """Where the search of each image stands; R rows, C columns.

    Attributes:
      row: [B] int32, the row to scan next; R where the image is done.
      column: [B] int32, the column that led to `row`, or after a path was found the
        free column at its end; -1 where `row` is the new row.
      distance: [B] pair, length of the path to `column`.
      offset: [B] pair, length of the path to `row`, less the price of `row`.
      found: [B] bool, a path to a free column was found and is not taken over yet.
      new_row: [B] int32, the row that looks for a column; R where the image is done.
      waiting: [B, R] bool, rows that have no column yet, the new one included.
      shortest: [B, C] pair, length of the shortest path known to each column.
      previous: [B, C] int32, the column before this one on that path, -1 at its start.
      is_open: [B, C] bool, columns that the search has not gone through.
      prices: [B, C] pair; zero at columns that are free.
      row_of: [B, C] int32, row of each column, -1 where it is free.
      column_of: [B, R] int32, column of each row, -1 where it has none.
    """

    row: tf.Tensor
    column: tf.Tensor
    distance: _Pair
    offset: _Pair
    found: tf.Tensor
    new_row: tf.Tensor
    waiting: tf.Tensor
    shortest: _Pair
    previous: tf.Tensor
    is_open: tf.Tensor
    prices: _Pair
    row_of: tf.Tensor
    column_of: tf.Tensor


def assign_in_graph(costs: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """Matches rows to columns one to one at the least total cost, in TensorFlow ops.

    Compiles under XLA with static shapes, for any accelerator, in float32; time goes
    with the number of real rows, wherever they stand. Optimal: for integer costs below
    2^20 the total is the least one, and for all finite costs up to 1e6 it is within
    1e-5 of the sum of the chosen costs' absolute values. Of equally good assignments
    it may choose another one than SciPy. No gradient flows through it.

    A real row with a NaN or an infinity is the caller's to refuse: the search ends and
    the columns of the image are still one to one, but need not be the best.

    Args:
      costs: [B, G, N] float32, finite in real rows. Other rows are not looked at.
      real: [B, G] bool, the rows to match.

    Returns:
      [B, G] int32, column of each row; -1 where the row is not real, or where an image
      has more real rows than columns and the optimum leaves this one out.

    Raises:
      ValueError: G or N is not known when the graph is built.
    """
    num_rows, num_columns = costs.shape[1:]
    if num_rows is None or num_columns is None:
        raise ValueError(
            "costs [B, G, N] must have a fixed G and N for the assignment in the graph;"
            f" got {costs.shape}: set the shape, or assign on the host"
        )
    if num_rows == 0 or num_columns == 0:
        return tf.zeros_like(real, tf.int32) - 1
    costs = tf.stop_gradient(tf.cast(costs, tf.float32))
    if num_rows <= num_columns:
        return _solve(costs, real, tf.fill([1, num_columns], True)).column_of

    # Images with more real rows than columns swap the two. To share one loop with the
    # others they are all [B, G, G]; the rows and columns added take no part.
    missing = num_rows - num_columns
    swap = tf.reduce_sum(tf.cast(real, tf.int32), axis=1, keepdims=True) > num_columns
    as_given = tf.pad(costs, [[0, 0], [0, 0], [0, missing]])
    swapped = tf.pad(tf.transpose(costs, [0, 2, 1]), [[0, 0], [0, missing], [0, 0]])
    is_column = tf.range(num_rows) < num_columns
    state = _solve(
        tf.where(swap[:, :, tf.newaxis], swapped, as_given),
        tf.where(swap, is_column, real),
        tf.where(swap, real, is_column),
    )
    return tf.where(swap, state.row_of, state.column_of)


def _solve(costs: tf.Tensor, waiting: tf.Tensor, allowed: tf.Tensor) -> _State:
    """Gives every waiting row one of the allowed columns, of which there are enough.

    Args:
      costs: [B, R, C] float32.
      waiting: [B, R] bool.
      allowed: [B or 1, C] bool.

    Returns:
      The state after the last row.
    """
    no_row = tf.zeros_like(costs[:, 0, :], tf.int32) - 1
    no_column = tf.zeros_like(costs[:, :, 0], tf.int32) - 1
    zero = tf.zeros_like(costs[:, 0, 0])
    zeros = tf.zeros_like(costs[:, 0, :])
    state = _State(
        row=_first(waiting),
        column=no_column[:, 0],
        distance=_pair(zero),
        offset=_pair(zero),
        found=tf.zeros_like(zero, tf.bool),
        new_row=_first(waiting),
        waiting=waiting,
        shortest=_pair(zeros + _FAR),
        previous=no_row,
        is_open=allowed & (no_row < 0),
        prices=_pair(zeros),
        row_of=no_row,
        column_of=no_column,
    )

    # The scan is a branch, too, because XLA's CPU compiler leaves branches whole. Else
    # it splits arrays of this size among threads, which takes several times longer.
    def step(state: _State) -> tuple[_State]:
        take_over = tf.reduce_any(state.found)
        after = tf.cond(
            take_over, lambda: _take_over(state, allowed), lambda: _scan(state, costs)
        )
        return (after,)

    def is_any_left(state: _State) -> tf.Tensor:
        return tf.reduce_any(state.row < costs.shape[1])

    return tf.while_loop(is_any_left, step, [state])[0]


def _first(rows: tf.Tensor) -> tf.Tensor:
    """First true row of each image of rows [B, R], R where there is none."""
    num_rows = rows.shape[1]
    return tf.reduce_min(tf.where(rows, tf.range(num_rows), num_rows), axis=1)


def _at(values: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Entry [b, indices[b]] of values [B, K, ...]; the first where the index is -1.

    The same as a gather with batch_dims=1, which takes XLA longer.
    """
    size = values.shape[1]
    images = tf.range(tf.shape(values)[0])
    flat = tf.reshape(values, [-1, *values.shape[2:]])
    return tf.gather(flat, images * size + tf.clip_by_value(indices, 0, size - 1))


def _scan(state: _State, costs: tf.Tensor) -> _State:
    """Scans one row of each image and closes the nearest column that is open."""
    num_rows, num_columns = costs.shape[1:]
    row_costs = _at(costs, state.row) * _SCALE
    through_row = _subtract(
        _add(_by_column(state.offset), _pair(row_costs)), state.prices
    )
    nearer = state.is_open & _less(through_row, state.shortest)
    shortest = _where(nearer, through_row, state.shortest)
    previous = tf.where(nearer, state.column[:, tf.newaxis], state.previous)

    high = tf.where(state.is_open, _order(shortest.high), _LAST)
    is_least = state.is_open & (high == tf.reduce_min(high, axis=1, keepdims=True))
    low = tf.where(is_least, _order(shortest.low), _LAST)
    is_least &= low == tf.reduce_min(low, axis=1, keepdims=True)
    # Of equally near columns a free one ends the search.
    columns = tf.range(num_columns)
    rank = tf.where(state.row_of < 0, columns, columns + num_columns)
    rank = tf.reduce_min(tf.where(is_least, rank, 2 * num_columns), axis=1)
    column = rank % num_columns

    distance = _Pair(_at(shortest.high, column), _at(shortest.low, column))
    price = _Pair(_at(state.prices.high, column), _at(state.prices.low, column))
    row = tf.maximum(_at(state.row_of, column), 0)
    flat_costs = tf.reshape(costs, [-1, num_rows * num_columns])
    pair_cost = _at(flat_costs, row * num_columns + column) * _SCALE
    is_done = state.row == num_rows
    return state._replace(
        row=tf.where(is_done, num_rows, row),
        column=column,
        distance=distance,
        offset=_subtract(_add(distance, price), _pair(pair_cost)),
        found=~is_done & (rank < num_columns),
        shortest=shortest,
        previous=previous,
        is_open=state.is_open & (columns != column[:, tf.newaxis]),
    )


def _take_over(state: _State, allowed: tf.Tensor) -> _State:
    """Moves the rows along the paths that were found; those images take a new row."""
    found = state.found
    of_image = found[:, tf.newaxis]
    closed = of_image & allowed & ~state.is_open
    gain = _subtract(state.shortest, _by_column(state.distance))

    def is_any_left(column: tf.Tensor, *_) -> tf.Tensor:
        return tf.reduce_any(column >= 0)

    def move(
        column: tf.Tensor, row_of: tf.Tensor, column_of: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        before = _at(state.previous, column)
        row = tf.where(before < 0, state.new_row, _at(row_of, before))[:, tf.newaxis]
        is_left = (column >= 0)[:, tf.newaxis]
        here = column[:, tf.newaxis]
        row_of = tf.where(tf.range(row_of.shape[1]) == here, row, row_of)
        is_row = is_left & (tf.range(column_of.shape[1]) == row)
        return (
            tf.where(column < 0, -1, before),
            row_of,
            tf.where(is_row, here, column_of),
        )

    _, row_of, column_of = tf.while_loop(
        is_any_left,
        move,
        [tf.where(found, state.column, -1), state.row_of, state.column_of],
    )
    rows = tf.range(state.waiting.shape[1])
    is_new = rows == state.new_row[:, tf.newaxis]
    waiting = state.waiting & ~(of_image & is_new)
    new_row = tf.where(found, _first(waiting), state.new_row)
    none = _pair(tf.zeros_like(state.offset.high))
    far = _pair(tf.fill(tf.shape(state.shortest.high), _FAR))
    return state._replace(
        row=tf.where(found, new_row, state.row),
        column=tf.where(found, -1, state.column),
        offset=_where(found, none, state.offset),
        found=tf.zeros_like(found),
        new_row=new_row,
        waiting=waiting,
        shortest=_where(of_image, far, state.shortest),
        previous=tf.where(of_image, -1, state.previous),
        is_open=tf.where(of_image, allowed, state.is_open),
        prices=_where(closed, _add(state.prices, gain), state.prices),
        row_of=row_of,
        column_of=column_of,
    )
