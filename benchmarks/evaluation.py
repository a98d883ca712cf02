"""Claim: `cmt eval` takes 200 scenes at 3 times the images/s of an earlier commit.

    python benchmarks/evaluation.py SCENES --base OTHER/.venv/bin/python [--rounds 3]
        [--size 193]

SCENES is a folder of `cmt data scenes` such as demo/scenes, whose validation split each
side converts; size is that of the images in pixels (97 in the demo of ec2c760).
OTHER is a checkout of the earlier commit with its environment (`git worktree add OTHER
ec2c760`, then `make .venv/installed` there). Each side evaluates its own `scenes/tiny`
at this size after one step of training, with all centers live and no segment too
small, so that merging, writing and scoring have the most to do. In turns, in processes
of their own. Printed: medians of images/s, as metrics.json has them (predicting and
writing, with a network that is built), and of the CPU seconds of the whole command.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS = (
    "trainer.steps=1",
    "trainer.global_batch_size=1",
    "trainer.learning_rate.warmup_steps=0",
    "evaluation.thing_confidence=0",
    "evaluation.stuff_confidence=0",
    "evaluation.pixel_confidence=0",
    "evaluation.free_share=0",
    "evaluation.min_thing_area_pixels=0",
    "evaluation.min_stuff_area_pixels=0",
)


def call(python: str, *words: str) -> float:
    """Runs a command of a checkout; returns its CPU seconds."""
    process = subprocess.Popen(
        [python, "-m", "cmt", *words],
        # Outside the checkouts, or `python` would import the one it stands in.
        cwd=tempfile.gettempdir(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(errors.decode()[-2000:])
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--base", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=193)
    options = parser.parse_args()
    scenes = options.scenes.resolve()
    source = ["--images", f"{scenes}/images/val"]
    source += ["--annotations", f"{scenes}/annotations/panoptic_val.json"]
    source += ["--masks", f"{scenes}/annotations/panoptic_val", "--split", "val"]
    sides = {"this": sys.executable, "base": options.base}
    rates, seconds = ({name: [] for name in sides} for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: Path(folder, name) for name in sides}
        for name, python in sides.items():
            data = Path(folder, f"{name}-data")
            call(python, "data", "convert", *source, "--output", str(data))
            changes = [
                f'data.{part}.tfrecords="{data}/val-*.tfrecord"'
                for part in ("train", "validation")
            ]
            for side in ("height", "width"):
                changes.append(f"data.crop_{side}_pixels={options.size}")
            words = [word for one in (*SETTINGS, *changes) for word in ("--set", one)]
            call(python, "train", "scenes/tiny", "--output", str(runs[name]), *words)
        for _ in range(options.rounds):
            for name, python in sides.items():
                run, output = runs[name], runs[name] / "evaluation"
                given = str(run / "config.textproto"), "--checkpoint", str(run)
                seconds[name].append(
                    call(python, "eval", *given, "--output", str(output))
                )
                metrics = json.loads((output / "metrics.json").read_text())
                rates[name].append(metrics["images_per_second"])
    for what, found in (("images/s", rates), ("CPU seconds", seconds)):
        for name, values in found.items():
            shown = ", ".join(f"{value:.1f}" for value in values)
            print(f"{what:11} {name}  {statistics.median(values):.1f}  ({shown})")
        ratio = statistics.median(found["this"]) / statistics.median(found["base"])
        print(f"{what:11} this to base: {ratio:.2f}")


if __name__ == "__main__":
    main()
