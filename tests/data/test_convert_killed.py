"""Conversions by several processes that are killed again and again."""

from __future__ import annotations

import hashlib
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cmt.data.scenes.generate import generate_scenes
from tests.data.conversions import convert

pytestmark = pytest.mark.check
# As many images as several processes are started for, in shards of four.
_IMAGES = 48
_SHARDS = 12


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("killed")
    generate_scenes(
        folder, train=_IMAGES, val=1, size=161, seed=8, crowd_or_void=0.3, workers=1
    )
    return {
        "images": folder / "images" / "train",
        "annotations": folder / "annotations" / "panoptic_train.json",
        "masks": folder / "annotations" / "panoptic_train",
    }


def listing(folder: pathlib.Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def start(sources: dict, output: pathlib.Path) -> subprocess.Popen:
    options = [part for name, path in sources.items() for part in (f"--{name}", path)]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "cmt", "data", "convert", *options),
            *("--output", output, "--split", "train", "--resume"),
            *("--shards", str(_SHARDS), "--workers", "3"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=output.parent,
    )


def finished(output: pathlib.Path) -> set[str]:
    """The shards that a conversion under way has recorded as whole."""
    work = output / ".train.partial"
    return {path.stem for path in work.glob("*.tfrecord.json")}


def kill_at(process: subprocess.Popen, output, shards: int, delay: float) -> bool:
    """Kills it a while after so many shards are whole; False if it was faster."""
    while process.poll() is None and len(finished(output)) < shards:
        time.sleep(0.0005)
    time.sleep(delay)
    process.kill()
    message = process.communicate()[1]
    assert process.returncode in (0, -signal.SIGKILL), message.decode()
    return process.returncode != 0


def kill_often(sources: dict, output, kills: int, chance: random.Random):
    """Starts and kills; returns the times of the shards, and how often some were new.

    That is 0 if a conversion ended before it was killed.
    """
    moments = sorted(chance.choices(range(_SHARDS - 1), k=kills - 1)) + [_SHARDS - 1]
    times: dict[str, int] = {}
    progressed = 0
    for moment in moments:
        before = finished(output)
        # Later than the last time, as long as there is something left to do.
        shards = min(max(moment, len(before) + 1), _SHARDS - 1)
        if not kill_at(start(sources, output), output, shards, chance.uniform(0, 0.01)):
            return {}, 0
        progressed += finished(output) > before
        for name in finished(output):
            # Where it was killed while it moved whole shards, some are moved.
            places = (output / ".train.partial" / name, output / name)
            made = next(p for p in places if p.is_file()).stat().st_mtime_ns
            assert times.setdefault(name, made) == made
    return times, progressed


@pytest.mark.parametrize(
    ("kills", "seed"), [(3, 1), pytest.param(10, 2, marks=pytest.mark.slow)]
)
def test_killed_at_any_moment_it_goes_on_where_it_was(many, tmp_path, kills, seed):
    """Before the first shard, within shards and between them; none is made twice."""
    reference, output = tmp_path / "reference", tmp_path / "output"
    convert(**many, output=reference, split="train", shards=_SHARDS, workers=1)
    chance = random.Random(seed)
    for _ in range(10):
        times, progressed = kill_often(many, output, kills, chance)
        if progressed >= 2:
            break
        # It was faster: once more from the beginning.
        shutil.rmtree(output, ignore_errors=True)
    assert progressed >= 2
    last = start(many, output)
    message = last.communicate()[1]
    assert last.returncode == 0, message.decode()
    assert listing(output) == listing(reference)
    for name, made in times.items():
        assert (output / name).stat().st_mtime_ns == made
