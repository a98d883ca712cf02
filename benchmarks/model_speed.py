"""Time of network and attention against DeepLab2's, scaled to this machine.

    python benchmarks/model_speed.py [--rounds 7] [--build coco/CONFIG ...]

Prints, as ratios (below 1 is faster than DeepLab2):
  forward    MaX-DeepLab-S, 641x641, batch 1, without the semantic branch (which the
             exported network has not);
  attention  axial attention over height and width, 81x81, 512 channels (stage 4), in
             training, forward and backward to inputs and variables.

DeepLab2 cannot be run beside it: its times were taken with TensorFlow 2.15.1 on two
cores of another machine, whose rates of convolutions, matrix products and copies were
taken too. A round times these rates here, next to the work; the peer's time is scaled
by them, each by its share in that time. Ratios are medians over the rounds.
With --build: seconds to build the networks of these configs, without a peer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf

import cmt
from cmt.config import load_experiment
from cmt.layers import AxialAttention2D, Style

# Rates of the peer's machine, the middle of the range of its medians.
PEER_RATES = {"convolution": 408.0, "product": 168.0, "copy": 32.0}  # GFLOP/s, GB/s
# Peer's seconds, the faster end of its range, and what they went into. Forward: 29% of
# the multiply-adds project to query, key and value, and 10% are other matrix products;
# at the rates above these take 61% of the time. Attention: norms and gathers, which
# read and write memory, were measured to take half of it.
PEER_FORWARD = 1.33
FORWARD_SHARES = {"convolution": 0.39, "product": 0.61}
PEER_ATTENTION = 0.63
ATTENTION_SHARES = {"product": 0.5, "copy": 0.5}


def seconds(function: Callable[[], object], repeats: int = 1) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def rates() -> dict[str, Callable[[], float]]:
    """What measures each rate of this machine, GFLOP/s or GB/s."""
    a = tf.random.stateless_normal([1024, 1024], [0, 0])
    x = tf.random.stateless_normal([1, 81, 81, 256], [0, 1])
    kernel = tf.random.stateless_normal([3, 3, 256, 256], [0, 2])
    convolution = tf.function(lambda: tf.nn.conv2d(x, kernel, 1, "SAME"))
    product = tf.function(lambda: tf.matmul(a, a))
    source = np.ones(32_000_000, np.float32)
    target = np.empty_like(source)

    def copy() -> np.ndarray:
        np.copyto(target, source)
        return target

    def rate(function: Callable, work: float, repeats: int) -> Callable[[], float]:
        seconds(function)
        return lambda: work / seconds(function, repeats)

    return {
        "convolution": rate(
            lambda: convolution().numpy(), 2 * 81**2 * 9 * 256**2 / 1e9, 5
        ),
        "product": rate(lambda: product().numpy(), 2 * 1024**3 / 1e9, 15),
        "copy": rate(copy, 2 * source.nbytes / 1e9, 3),
    }


def forward() -> Callable[[], object]:
    """MaX-DeepLab-S in inference."""
    settings = load_experiment("coco/max_deeplab_s_relu_641").model
    settings.auxiliary_semantic.enabled = False
    model = cmt.build_model(settings)
    images = 255 * tf.random.stateless_uniform([1, 641, 641, 3], [0, 3])
    model.build(images.shape)

    @tf.function(autograph=False)
    def call():
        predictions = model(images, training=False)
        return predictions.mask_logits, predictions.class_logits

    return lambda: call()[0].numpy()


def attention() -> Callable[[], object]:
    """Axial attention, forward and backward."""
    layer = AxialAttention2D(256, 512, 8, style=Style("relu"))
    inputs = tf.random.stateless_normal([1, 81, 81, 512], [0, 4])
    layer(inputs)

    @tf.function(autograph=False)
    def call():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = tf.reduce_sum(layer(inputs, training=True) ** 2)
        return tape.gradient(total, [inputs, *layer.trainable_variables])

    return lambda: call()[0].numpy()


def compare(
    name: str,
    work: Callable[[], object],
    peer: float,
    shares: dict[str, float],
    rounds: int,
) -> None:
    """Prints the ratio of our time to the peer's on this machine."""
    measure = rates()
    for _ in range(2):
        seconds(work)
    ratios, times, scales = [], [], []
    for _ in range(rounds):
        scales.append(
            sum(share * PEER_RATES[k] / measure[k]() for k, share in shares.items())
        )
        times.append(seconds(work))
        ratios.append(times[-1] / (peer * scales[-1]))
    print(
        f"{name:10} ratio {statistics.median(ratios):.2f}"
        f" (rounds {min(ratios):.2f} to {max(ratios):.2f});"
        f" here {statistics.median(times):.3f} s, peer {peer:.2f} s there,"
        f" scale {statistics.median(scales):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--build", nargs="*", default=[], metavar="CONFIG")
    options = parser.parse_args()
    for name in options.build:
        crop = load_experiment(name).data
        start = time.perf_counter()
        model = cmt.build_model(name)
        model.build((None, crop.crop_height_pixels, crop.crop_width_pixels, 3))
        print(f"build      {name}: {time.perf_counter() - start:.1f} s")
    compare(
        "attention",
        attention(),
        PEER_ATTENTION,
        ATTENTION_SHARES,
        options.rounds,
    )
    compare("forward", forward(), PEER_FORWARD, FORWARD_SHARES, options.rounds)


if __name__ == "__main__":
    main()
