"""Time of network and attention against DeepLab2's, scaled to this machine.

    python benchmarks/model_speed.py [--rounds 7] [--build coco/CONFIG ...]

Prints, as ratios (below 1 is faster than DeepLab2):
  forward    MaX-DeepLab-S, 641x641, batch 1, without the semantic branch (which the
             exported network has not);
  attention  axial attention over height and width, 81x81, 512 channels (stage 4), in
             training, forward and backward to inputs and variables.

DeepLab2 cannot be run beside it: its times were taken with TensorFlow 2.15.1 on two
cores of another machine, whose rates of convolutions and of matrix products were taken
too. A round times both rates here, next to the work; the peer's time is scaled by the
work's multiply-adds, each kind at its rate. Ratios are medians over the rounds.
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

import tensorflow as tf

import cmt
from cmt.config import load_experiment
from cmt.layers import AxialAttention2D, Style

# Of the peer's machine: middle of the range of its medians, GFLOP/s.
PEER_CONVOLUTION, PEER_MATMUL = 408.0, 168.0
# Peer's seconds, the faster end of its range, and the share of the multiply-adds that
# are convolutions there. It projects to query, key and value, 29% of the forward
# pass, by matrix products.
PEER_FORWARD, FORWARD_CONVOLUTIONS = 1.33, 0.61
PEER_ATTENTION, ATTENTION_CONVOLUTIONS = 0.63, 0.0


def seconds(function: Callable[[], tf.Tensor], repeats: int = 1) -> float:
    """Median time of a call, result fetched."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function().numpy()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def rates() -> tuple[Callable[[], tf.Tensor], Callable[[], tf.Tensor], float, float]:
    """Convolution and matrix product, and the GFLOP of each."""
    a = tf.random.stateless_normal([1024, 1024], [0, 0])
    x = tf.random.stateless_normal([1, 81, 81, 256], [0, 1])
    kernel = tf.random.stateless_normal([3, 3, 256, 256], [0, 2])
    convolution = tf.function(lambda: tf.nn.conv2d(x, kernel, 1, "SAME"))
    product = tf.function(lambda: tf.matmul(a, a))
    return convolution, product, 2 * 81**2 * 9 * 256**2 / 1e9, 2 * 1024**3 / 1e9


def forward() -> Callable[[], tf.Tensor]:
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

    return lambda: call()[0]


def attention() -> Callable[[], tf.Tensor]:
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

    return lambda: call()[0]


def compare(
    name: str, work: Callable[[], tf.Tensor], peer: float, share: float, rounds: int
) -> None:
    """Prints the ratio of our time to the peer's on this machine."""
    convolution, product, convolution_flop, product_flop = rates()
    for function in (work, work, convolution, product):
        seconds(function)
    ratios, times, scales = [], [], []
    for _ in range(rounds):
        conv_rate = convolution_flop / seconds(convolution, 5)
        matmul_rate = product_flop / seconds(product, 15)
        times.append(seconds(work))
        scales.append(
            (share / conv_rate + (1 - share) / matmul_rate)
            / (share / PEER_CONVOLUTION + (1 - share) / PEER_MATMUL)
        )
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
        ATTENTION_CONVOLUTIONS,
        options.rounds,
    )
    compare("forward", forward(), PEER_FORWARD, FORWARD_CONVOLUTIONS, options.rounds)


if __name__ == "__main__":
    main()
