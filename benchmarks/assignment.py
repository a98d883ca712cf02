"""Claim: the assignment in the graph costs a small multiple of SciPy's on the host.

    python benchmarks/assignment.py [--repeats 50] [--batch 8] [--ratios-only]

Per case the median time of one batch: `assign_in_graph` compiled by XLA, the call from
Python and the way back included, and SciPy's `linear_sum_assignment` called image by
image on the real rows. The two take turns, so that what else the machine does meets
both. `host op` is SciPy behind `tf.numpy_function`, as a graph that is not compiled
has it: a tenth of a graph with ten of them. Every result is checked against SciPy's
total first. Costs are drawn from seed 0. Compare ratios, not milliseconds, across
machines and days.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from scipy.optimize import linear_sum_assignment

from cmt.matching.assignment import assign_in_graph

_CENTERS = 128
_HOST_OPS = 10


class Case(NamedTuple):
    """Costs [B, G, N] float32, their real rows [B, G], and what may be taken for them.

    Attributes:
      name: printed.
      costs: [B, G, N] float32.
      real: [B, G] bool.
      max_milliseconds: for a batch of 8.
      max_ratio: to SciPy's time; None where there is no such limit.
    """

    name: str
    costs: np.ndarray
    real: np.ndarray
    max_milliseconds: float
    max_ratio: float | None


def cases(batch: int) -> list[Case]:
    """The cases of the claim, drawn from seed 0."""
    rng = np.random.default_rng(0)
    square = [batch, _CENTERS, _CENTERS]
    every = np.ones(square[:2], bool)
    twelve = np.broadcast_to(np.arange(_CENTERS) < 12, square[:2])
    # Minus dice times class probability: few centers fit a mask, the rest hardly.
    similar = rng.beta(0.3, 4.0, square) * rng.beta(0.2, 5.0, square)
    similar = -similar.astype(np.float32)
    uniform = rng.uniform(size=square).astype(np.float32)
    ranks = np.arange(_CENTERS, dtype=np.float32)
    products = np.broadcast_to(np.outer(ranks, ranks), square)
    return [
        Case("training-like, 12 rows", similar[:, :12], every[:, :12], 1.5, 8.0),
        Case("the same, 116 padded rows", similar, twelve, 1.5, 8.0),
        Case("uniform 128 x 128", uniform, every, 50.0, None),
        Case("i * j 128 x 128", products, every, 150.0, None),
        Case("all equal 128 x 128", np.zeros(square, np.float32), every, 50.0, None),
    ]


def assign_by_scipy(costs: np.ndarray, real: np.ndarray) -> np.ndarray:
    """SciPy on the real rows, image by image.

    Args:
      costs: [B, G, N] float32.
      real: [B, G] bool.

    Returns:
      [B, G] int32, column of each row, -1 where it has none.
    """
    columns = np.full(real.shape, -1, np.int32)
    for image in range(len(costs)):
        rows = np.flatnonzero(real[image])
        chosen_rows, chosen_columns = linear_sum_assignment(costs[image, rows])
        columns[image, rows[chosen_rows]] = chosen_columns
    return columns


def medians(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median milliseconds of functions that take turns, after one call each."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(repeats + 1):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if turn > 0:
                taken.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(taken) for taken in times]


def totals(costs: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sum of the chosen costs of each image, [B] float64."""
    chosen = np.take_along_axis(costs, np.maximum(columns, 0)[:, :, np.newaxis], axis=2)
    return np.where(columns >= 0, chosen[:, :, 0], 0.0).sum(axis=1, dtype=np.float64)


def measure(case: Case, repeats: int) -> tuple[float, float, float]:
    """Median milliseconds in the graph, of SciPy, and of SciPy as a host op."""
    compiled = tf.function(assign_in_graph, jit_compile=True)

    @tf.function
    def host_ops(costs: tf.Tensor, real: tf.Tensor) -> list[tf.Tensor]:
        arguments = [assign_by_scipy, [costs, real], tf.int32]
        return [tf.numpy_function(*arguments) for _ in range(_HOST_OPS)]

    costs, real = tf.constant(case.costs), tf.constant(case.real)
    best = totals(case.costs, assign_by_scipy(case.costs, case.real))
    found = totals(case.costs, compiled(costs, real).numpy())
    np.testing.assert_allclose(found, best, rtol=1e-5)
    in_graph, scipy, ops = medians(
        [
            lambda: compiled(costs, real).numpy(),
            lambda: assign_by_scipy(case.costs, case.real),
            lambda: host_ops(costs, real)[-1].numpy(),
        ],
        repeats,
    )
    return in_graph, scipy, ops / _HOST_OPS


def main() -> None:
    """Prints one line per case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--ratios-only", action="store_true", help="print case and ratio, no times"
    )
    args = parser.parse_args()
    if not args.ratios_only:
        print(
            f"seed 0, batch {args.batch}, medians of {args.repeats},"
            f" {os.cpu_count()} CPU cores, TensorFlow {tf.__version__}"
        )
    for case in cases(args.batch):
        in_graph, scipy, op = measure(case, args.repeats)
        line = f"{case.name:26} in graph {in_graph / scipy:6.2f} x SciPy"
        if not args.ratios_only:
            limit = f"{case.max_milliseconds:g} ms for a batch of 8"
            if case.max_ratio is not None:
                limit += f" and {case.max_ratio:g} x"
            line += (
                f" ({in_graph:.3f} ms and {scipy:.3f} ms; at most {limit});"
                f" host op {op / scipy:.2f} x"
            )
        print(line, flush=True)


if __name__ == "__main__":
    main()
