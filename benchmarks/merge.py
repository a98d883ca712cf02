"""Time of both merges of masks to a panoptic map, to limits and to the predecessor.

    python benchmarks/merge.py [--rounds 9]

A batch of one image: 128 centers, 24 of them live, whose masks are Voronoi cells under
noise from seed 0; all other options are the default ones. Medians by the clock, after
two calls that do not count. Limits and the predecessor's times are those of a machine
that copied 32 GB/s (medians of 30 to 34); times are scaled by the rate of copies here,
which is measured between the rounds, because merging is mostly a matter of memory.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from cmt.factory import merge_options
from cmt.outputs import Predictions
from cmt.postprocess import merge_masks
from cmt.protos import evaluation_pb2

CENTERS, LIVE, CLASSES, THINGS = 128, 24, 133, 80
# Seconds that are allowed, and that the predecessor takes, by merge and side.
LIMITS = {
    ("MASK_WISE", 641): (0.09, 0.432),
    ("MASK_WISE", 1281): (0.33, 1.63),
    ("PIXEL_WISE", 641): (0.06, 0.083),
    ("PIXEL_WISE", 1281): (0.23, 0.321),
}
# GB/s, read and written, of the machine of the limits.
COPY_RATE = 32.0


def make_predictions(side: int) -> Predictions:
    """Masks and classes from seed 0."""
    rng = np.random.default_rng(0)
    points = (side - 1) // 4 + 1
    places = rng.random([LIVE, 2]) * points
    grid = np.stack(np.mgrid[:points, :points], axis=-1)[:, :, np.newaxis]
    distance = np.linalg.norm(grid - places, axis=-1)
    masks = rng.standard_normal([1, points, points, CENTERS]).astype(np.float32)
    masks[0, ..., :LIVE] += 12 - distance * (60 / points)
    classes = np.zeros([1, CENTERS, CLASSES + 1], np.float32)
    classes[0, LIVE:, -1] = 9
    classes[0, range(LIVE), rng.integers(0, CLASSES, LIVE)] = 9
    return Predictions(tf.constant(masks), tf.constant(classes), None, None, ())


def seconds(work: Callable[[], object]) -> float:
    """The time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    source = np.ones(32_000_000, np.float32)
    target = np.empty_like(source)
    for (merge, side), (limit, peer) in LIMITS.items():
        options = merge_options(evaluation_pb2.EvaluationConfig(merge=merge))

        @tf.function(autograph=False)
        def work(
            predictions: Predictions, side: int = side, options: dict = options
        ) -> tf.Tensor:
            is_thing = [index < THINGS for index in range(CLASSES)]
            size = (side, side)
            found = merge_masks(
                predictions, is_thing=is_thing, output_size=size, **options
            )
            return found.panoptic

        predictions = make_predictions(side)
        times, copies = [], []
        for _ in range(rounds + 2):
            copies.append(seconds(lambda: np.copyto(target, source)))
            times.append(seconds(functools.partial(work, predictions)))
        found = statistics.median(times[2:])
        rate = 2 * source.nbytes / statistics.median(copies[2:]) / 1e9
        scaled = found * rate / COPY_RATE
        segments = np.unique(work(predictions)).size
        print(
            f"{merge:10} {side:4}: {found:.3f} s here, {rate:.0f} GB/s; scaled "
            f"{scaled:.3f} s, limit {limit}, predecessor {peer} "
            f"({peer / scaled:.1f} x); {segments} values"
        )


if __name__ == "__main__":
    main()
