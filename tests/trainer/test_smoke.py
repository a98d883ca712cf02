"""`cmt train --smoke` with the real network on generated scenes."""

from __future__ import annotations

import subprocess
import sys

import pytest

SPLITS = ("train", "val")


def _cmt(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "cmt", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder with the TFRecords that scenes/tiny names."""
    folder = tmp_path_factory.mktemp("scenes")
    made = _cmt(
        folder, "data", "scenes", "--output", "made", "--train", "8", "--val", "4"
    )
    assert made.returncode == 0, made.stderr
    for split in SPLITS:
        done = _cmt(
            folder, "data", "convert", "--images", f"made/images/{split}",
            "--annotations", f"made/annotations/panoptic_{split}.json",
            "--masks", f"made/annotations/panoptic_{split}",
            "--output", "scenes/tfrecords", "--split", split, "--shards", "1",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (
            "trainer.strategy.kind=MIRRORED",
            "trainer.strategy.logical_cpus=2",
            "trainer.optimizer.kind=RADAM_LOOKAHEAD",
        ),
    ],
)
def test_smoke(scenes, overrides):
    before = sorted(scenes.iterdir())
    settings = ("trainer.global_batch_size=2", *overrides)
    options = [part for each in settings for part in ("--set", each)]
    done = _cmt(scenes, "train", "scenes/tiny", "--output", "run", "--smoke", *options)
    assert done.returncode == 0, done.stderr
    assert "smoke run passed" in done.stdout
    assert "validation at step 2" in done.stderr
    assert sorted(scenes.iterdir()) == before
