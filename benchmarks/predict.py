"""Claim: `cmt predict` segments 200 scenes at several times an earlier commit's rate.

    python benchmarks/predict.py MODEL IMAGES --base OTHER/.venv/bin/python
        [--count 200] [--rounds 3] [--formats overlay,coco]

MODEL is a folder of `cmt export` that both can read, IMAGES a folder of images, such as
`cmt data scenes` writes. OTHER is a checkout of the earlier commit with its environment
(`git worktree add OTHER ec2c760`, then `make .venv/installed` there). Both commands run
in turns, in processes of their own, on the same files and cores. Printed as json, of
medians over the rounds: images/s with the start of the program and without (from the
first overlay to the end), CPU seconds, seconds to the first overlay, and the ratios.
Where other work runs beside, only CPU seconds tell something. The panoptic PNGs of both
are compared and pixels that differ are counted: 0 at the first commit of this script.
Since JPEGs are decoded as Pillow does, bit for bit, a few segments change places.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def run(
    python: str, model: Path, files: list[Path], output: Path, formats: str
) -> dict[str, float]:
    """Predicts; returns seconds, CPU seconds and seconds to the first overlay."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen(
        [python, "-m", "cmt", "predict", model, *files, "--output", output]
        + ["--format", formats],
        # Outside the checkouts, or `python` would import the one it stands in.
        cwd=tempfile.gettempdir(),
        stdout=subprocess.DEVNULL,
    )
    first = None
    while process.poll() is None:
        if first is None and any((output / "overlays").glob("[!.]*")):
            first = time.perf_counter() - start
        time.sleep(0.01)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{python} ended with code {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    started = (len(files) - 1) / (seconds - first)
    return {
        "images_per_second": len(files) / seconds,
        "images_per_second_once_started": started,
        "cpu_seconds": used,
        "seconds_to_first": first,
    }


def pixels_that_differ(here: Path, there: Path) -> int:
    """Compares the panoptic PNGs of two outputs."""
    count = 0
    for path in sorted((here / "panoptic").iterdir()):
        ours, theirs = (
            np.asarray(Image.open(folder / "panoptic" / path.name))
            for folder in (here, there)
        )
        count += int((ours != theirs).any(-1).sum())
    return count


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--base", required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", default="overlay,coco")
    given = parser.parse_args()
    files = [path.resolve() for path in sorted(given.images.iterdir())][: given.count]
    model = given.model.resolve()
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        outputs = {}
        for number in range(given.rounds):
            figures = {}
            for who, python in (("base", given.base), ("here", sys.executable)):
                outputs[who] = Path(name, f"{who}{number}")
                figures[who] = run(python, model, files, outputs[who], given.formats)
            rounds.append(figures)
        differ = pixels_that_differ(outputs["here"], outputs["base"])
    medians = {
        who: {
            key: statistics.median(figures[who][key] for figures in rounds)
            for key in rounds[0][who]
        }
        for who in ("base", "here")
    }
    ratios = {
        key: statistics.median(f["here"][key] / f["base"][key] for f in rounds)
        for key in medians["here"]
    }
    told = {
        "images": len(files),
        "rounds": given.rounds,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        **medians,
        "here_to_base": ratios,
        "pixels_that_differ": differ,
    }
    print(json.dumps(json.loads(json.dumps(told), parse_float=_rounded), indent=1))


def _rounded(text: str) -> float:
    return round(float(text), 2)


if __name__ == "__main__":
    main()
