"""Claim: a batch made in parts needs the memory of a part, and little for gradients.

    python benchmarks/accumulation.py [--config scenes/tiny] [--batch 16] [--parts 4 16]

By how much resident memory rises in a training step on made-up images (see
`peak_memory.py`), for a batch made in parts and for a batch as large as a part; each in
a fresh process.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import host_overhead
import peak_memory
from tiny_step import made_up_dataset

from cmt.config import load_experiment


def print_rise(config: str, batch: int, parts: int) -> None:
    """MiB by which memory rises in a step."""
    changes = {"accumulation_steps": parts, "global_batch_size": batch}
    overrides = [f"trainer.{name}={value}" for name, value in changes.items()]
    experiment = load_experiment(config, overrides)
    trainer = host_overhead.build(experiment)
    dataset = made_up_dataset(experiment, batch, count=2)
    batches = iter(trainer.distribute_strategy.experimental_distribute_dataset(dataset))
    step = trainer.make_train_function()
    print(peak_memory.rise_mib(lambda: step(batches)), flush=True)


def rise(config: str, batch: int, parts: int) -> float:
    """The same, from a process of its own."""
    words = ["--config", config, "--batch", str(batch), "--rise-of", str(parts)]
    output = subprocess.run(
        [sys.executable, __file__, *words],
        env={**os.environ, **peak_memory.RETURN_MEMORY},
        cwd=pathlib.Path(__file__).parent,
        check=True,
        capture_output=True,
        text=True,
    )
    return float(output.stdout.splitlines()[-1])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="scenes/tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--parts", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rise-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rise_of:
        print_rise(options.config, options.batch, options.rise_of)
        return
    whole = rise(options.config, options.batch, 1)
    print(f"{options.batch} images at once: {whole:.0f} MiB")
    for parts in options.parts:
        of_part = options.batch // parts
        made, alone = (
            rise(options.config, batch, of_batch)
            for batch, of_batch in ((options.batch, parts), (of_part, 1))
        )
        print(
            f"{parts} parts of {of_part}: {made:.0f} MiB, {made / whole:.2f} of all at "
            f"once; a batch of {of_part} alone: {alone:.0f} MiB"
        )


if __name__ == "__main__":
    main()
