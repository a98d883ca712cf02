"""How fast this machine decodes images, beside the one of a peer's figures.

    python benchmarks/calibration.py

A peer that cannot be run here was timed on another machine, which decoded 641 to 712
JPEG and 331 to 346 PNG images of 640 x 480 a second with Pillow on one core. The same
is measured here, as there: medians of 9 runs of 20 images, by the clock, in a process
that has run products, convolutions and copies before. What such a process has done to
its memory changes the figures by a factor of two, so they come from a fresh one.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

# Images a second on the peer's machine, the middle of the range of its medians.
PEER_RATES = {"jpeg": 676.0, "png": 338.0}

_RUNS, _IMAGES = 9, 20


def decoding_rates() -> dict[str, float]:
    """JPEG and PNG images of 640 x 480 that are decoded a second here."""
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def decoding_speed(rates: dict[str, float]) -> float:
    """How fast this machine decodes, the peer's being 1: the geometric mean of both.

    Args:
      rates: as from `decoding_rates`.
    """
    return statistics.geometric_mean(
        [rates[kind] / rate for kind, rate in PEER_RATES.items()]
    )


def _measure() -> dict[str, float]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    rng = np.random.default_rng(0)
    matrix = tf.constant(rng.standard_normal((1024, 1024), np.float32))
    pixels = tf.constant(rng.standard_normal((1, 81, 81, 256), np.float32))
    kernel = tf.constant(rng.standard_normal((3, 3, 256, 256), np.float32))
    product = tf.function(lambda: tf.matmul(matrix, matrix))
    convolution = tf.function(lambda: tf.nn.conv2d(pixels, kernel, 1, "SAME"))
    source = np.ones(32_000_000, np.float32)
    copy = np.empty_like(source)
    for work in (product, convolution, lambda: np.copyto(copy, source)):
        _seconds(work)

    coarse = rng.integers(0, 255, (48, 64, 3), np.uint8)
    files = {kind: io.BytesIO() for kind in PEER_RATES}
    photo = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
    photo.save(files["jpeg"], "JPEG", quality=90)
    label = Image.fromarray(np.kron(coarse, np.ones((10, 10, 1), np.uint8)))
    label.save(files["png"], "PNG")

    def decode(file: io.BytesIO) -> list[np.ndarray]:
        return [
            np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
            for _ in range(_IMAGES)
        ]

    return {
        kind: _IMAGES / _seconds(lambda file=file: decode(file))
        for kind, file in files.items()
    }


def _seconds(work: Callable[[], object]) -> float:
    """Median time of a call, after two that do not count."""
    times = []
    for _ in range(_RUNS + 2):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


if __name__ == "__main__":
    print(json.dumps(_measure()))
