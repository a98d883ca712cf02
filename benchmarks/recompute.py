"""Claim: recomputation keeps a fraction of the activations, for some more time.

    python benchmarks/recompute.py [--blocks 6] [--size 41]

A stack of axial blocks of stage 4 (1024 channels) on SIZE x SIZE pixels, batch 1, in
training: forward and backward to inputs and variables under a plain tf.function. Peak
memory is read in a fresh process each (see `peak_memory.py`); times are medians of runs
that take turns, in one process.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import peak_memory
import tensorflow as tf

from cmt.layers import AxialBlock, Style


def make_step(recompute: bool, blocks: int, size: int) -> Callable[[], object]:
    """Forward and backward of the stack."""
    layers = [
        AxialBlock(256, num_heads=8, style=Style(), recompute=recompute)
        for _ in range(blocks)
    ]
    inputs = tf.random.stateless_normal([1, size, size, 1024], [0, 1])
    for layer in layers:
        layer(inputs)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            features = inputs
            for layer in layers:
                features = layer(features, training=True)
            total = tf.reduce_sum(features**2)
        variables = [v for layer in layers for v in layer.trainable_variables]
        return tape.gradient(total, [inputs, *variables])

    return step


def measured(recompute: bool, blocks: int, size: int) -> float:
    """Peak memory in MiB, from a process of its own."""
    command = [sys.executable, __file__, "--blocks", str(blocks), "--size", str(size)]
    output = subprocess.run(
        [*command, "--memory-of", "recompute" if recompute else "keep"],
        env={**os.environ, **peak_memory.RETURN_MEMORY},
        cwd=pathlib.Path(__file__).parent,
        check=True,
        capture_output=True,
        text=True,
    )
    return float(output.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--size", type=int, default=41)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", choices=["keep", "recompute"])
    options = parser.parse_args()
    sizes = options.blocks, options.size
    if options.memory_of:
        step = make_step(options.memory_of == "recompute", *sizes)
        print(peak_memory.rise_mib(step))
        return
    memory = [measured(recompute, *sizes) for recompute in (True, False)]
    steps = [make_step(recompute, *sizes) for recompute in (True, False)]
    times = [[], []]
    for _ in range(1 + options.rounds):
        for step, taken in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()[0].numpy()
            taken.append(time.perf_counter() - start)
    medians = [statistics.median(taken[1:]) for taken in times]
    for name, (one, other), unit in (
        ("peak memory", memory, "MiB"),
        ("time", medians, "s"),
    ):
        print(f"{name}: ratio {one / other:.2f} ({one:.3g} against {other:.3g} {unit})")


if __name__ == "__main__":
    main()
