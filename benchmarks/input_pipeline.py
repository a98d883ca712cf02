"""Images a second and peak memory of the training pipeline, beside DeepLab2's.

DeepLab2's pipeline (batch 8, scale 0.5 to 1.5, two cores) was measured once, on a
machine whose speed is in `calibration.py`. Its figures are scaled by that of this
machine, measured just before.

Usage: python benchmarks/input_pipeline.py "DIR/train-*.tfrecord" [--crops 641 1281]
         [--set data.augmentation.copy_paste.probability=1 ...]

Each crop runs in a process of its own, so that peak memory is its own. On a machine
that does other work too, compare the processor time: it counts only this work.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from calibration import decoding_rates, decoding_speed

BATCH = 8
ROUNDS = 5
# Images/s and peak GB of DeepLab2, by crop.
DEEPLAB2 = {641: (43.4, 3.2), 1281: (12.3, 4.9)}
CORES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tfrecords")
    parser.add_argument("--crops", type=int, nargs="+", default=[641, 1281])
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        result = measure(arguments.tfrecords, arguments.worker, arguments.overrides)
        print(json.dumps(result))
        return
    speed = decoding_speed(decoding_rates())
    print(f"this machine decodes {speed:.2f} times as fast as DeepLab2's\n")
    print("crop  images/s  CPU ms/image  peak GB  | DeepLab2 here, peak GB |  ratio")
    for crop in arguments.crops:
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(crop)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        text = f"{crop:4}  {row['images_per_second']:8.1f}"
        text += f"  {row['cpu_ms']:12.1f}  {row['peak_gb']:7.2f}"
        if crop in DEEPLAB2:
            rate, memory = DEEPLAB2[crop][0] * speed, DEEPLAB2[crop][1]
            text += f"  | {rate:13.1f}, {memory:7.1f} |  "
            text += f"{row['images_per_second'] / rate:.2f} (speed), "
            text += f"{1000 * CORES / row['cpu_ms'] / rate:.2f} (by CPU time), "
            text += f"{row['peak_gb'] / memory:.2f} (memory)"
        print(text, flush=True)


def measure(tfrecords: str, crop: int, overrides: Sequence[str]) -> dict[str, float]:
    """Runs the pipeline in this process: median of rounds after a warm-up."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    from cmt.config import parse_experiment
    from cmt.data.input.open import Data

    given = [
        f'data.train.tfrecords="{tfrecords}"',
        f"data.crop_height_pixels={crop}",
        f"data.crop_width_pixels={crop}",
    ]
    experiment = parse_experiment("", "benchmark", [*given, *overrides])
    train = Data(experiment.data).train
    dataset = train.batches(global_batch_size=BATCH, seed=0)
    batches = iter(dataset)
    steps = max(4, round(30 * (641 / crop) ** 2))
    for _ in range(steps):
        next(batches)
    rates, cpu = [], []
    for _ in range(ROUNDS):
        start, start_cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            next(batches)
        rates.append(BATCH * steps / (time.perf_counter() - start))
        cpu.append((time.process_time() - start_cpu) / (BATCH * steps))
    return {
        "images_per_second": statistics.median(rates),
        "cpu_ms": 1000 * statistics.median(cpu),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


if __name__ == "__main__":
    main()
