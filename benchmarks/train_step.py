"""Time and memory of the training step of any config, as `cmt train` makes it.

    python benchmarks/train_step.py [--config coco/max_deeplab_s_relu_641] [--batch 1]
        [--set PATH=VALUE ...] [--rounds 5] [--memory]

On made-up images, on the devices of the config. Prints the median time of a step and
the most memory that the process had; for MaX-DeepLab-S at 641, batch 1, also as ratios
to DeepLab2's step (losses, matcher, Adam, recomputation): its time was taken on another
machine and is scaled by this one's rates, each round with those of its moment. Its
blocks are recomputed as there with

    --set model.recompute.bottleneck_blocks=true --set model.recompute.axial_blocks=true

With --memory instead: how much the memory rises in a step, see `peak_memory.py`.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import peak_memory
from host_overhead import build
from model_speed import PEER_RATES, rates, seconds
from tiny_step import made_up_dataset

from cmt.config import load_experiment

PEER = ("coco/max_deeplab_s_relu_641", "coco/max_deeplab_s_gelu_641")
PEER_STEP, PEER_GIGABYTES = 7.7, 5.64  # The faster end of its range.
# Assumed: half the time goes into products and convolutions, half into what reads and
# writes memory, as in axial attention.
SHARES = {"convolution": 0.25, "product": 0.25, "copy": 0.5}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=PEER[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    if options.memory and not peak_memory.RETURN_MEMORY.items() <= os.environ.items():
        environment = os.environ | peak_memory.RETURN_MEMORY
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    experiment = load_experiment(options.config, options.set)
    experiment.trainer.global_batch_size = options.batch
    trainer = build(experiment)
    step = trainer.make_train_function()
    batches = iter(made_up_dataset(experiment, options.batch, 2))

    def update() -> None:
        step(batches)
        trainer.step.numpy()

    first = seconds(update)
    if options.memory:
        print(f"memory rises by {peak_memory.rise_mib(update):.0f} MiB in a step")
        return
    update()
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
    measure = rates() if options.config in PEER and options.batch == 1 else {}
    times, ratios, found = [], [], []
    for _ in range(options.rounds):
        found.append({name: rate() for name, rate in measure.items()})
        times.append(seconds(update))
        if measure:
            scale = sum(SHARES[k] * PEER_RATES[k] / r for k, r in found[-1].items())
            ratios.append(times[-1] / (PEER_STEP * scale))
    middle = statistics.median(times)
    print(
        f"step {middle:.3f} s ({min(times):.3f} to {max(times):.3f}), first {first:.0f}"
    )
    print(f"process {peak:.2f} GB")
    if measure:
        shown = {k: statistics.median(f[k] for f in found) for k in measure}
        print("to DeepLab2's: step", f"{statistics.median(ratios):.2f}", end=" ")
        print(f"({min(ratios):.2f} to {max(ratios):.2f}), ", end="")
        print(f"memory {peak / PEER_GIGABYTES:.2f}")
        print("GFLOP/s, GB/s here:", {k: round(v, 1) for k, v in shown.items()})


if __name__ == "__main__":
    main()
