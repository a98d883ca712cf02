"""`cmt train --smoke` with the real network on generated scenes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.optimizers import needs_addons

SPLITS = ("train", "val")
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


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
        pytest.param(
            (
                "trainer.strategy.kind=MIRRORED",
                "trainer.strategy.logical_cpus=2",
                "trainer.optimizer.kind=RADAM_LOOKAHEAD",
            ),
            marks=needs_addons,
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


@pytest.mark.slow
@needs_addons
def test_from_the_checkpoint_of_another_run(scenes):
    def train(output, *settings):
        settings = ("trainer.global_batch_size=2", "trainer.steps=2", *settings)
        settings = ("trainer.learning_rate.warmup_steps=0", *settings)
        options = [part for each in settings for part in ("--set", each)]
        done = _cmt(scenes, "train", "scenes/tiny", "--output", output, *options)
        assert done.returncode == 0, done.stderr
        return done.stderr

    train("source")
    shown = train(
        "target",
        'trainer.initial_checkpoint="source"',
        "trainer.learning_rate.base=1e-30",
        "trainer.strategy.kind=MIRRORED",
        "trainer.strategy.logical_cpus=2",
        "trainer.optimizer.kind=RADAM_LOOKAHEAD",
        "model.num_centers=32",
    )
    assert "100% of the backbone's" in shown
    assert "of another shape, not loaded: 1 (cluster_centers: [24, " in shown
    readers = [
        tf.train.load_checkpoint(str(scenes / run / "checkpoints" / "step-2"))
        for run in ("source", "target")
    ]
    report = json.loads((scenes / "target" / "initial_weights.json").read_text())
    trained = [k for k in report["matched"].values() if "/moving_" not in k]
    assert len(trained) > 400
    for key in trained:
        first, second = (r.get_tensor(f"{key}{_SUFFIX}") for r in readers)
        np.testing.assert_allclose(second, first, rtol=0, atol=1e-20, err_msg=key)
    slow = [k for k in readers[1].get_variable_to_shape_map() if "/slow/" in k]
    assert slow
    for key in slow:
        weight = key.split("/.OPTIMIZER_SLOT/")[0]
        values = [readers[1].get_tensor(k) for k in (key, f"{weight}{_SUFFIX}")]
        np.testing.assert_allclose(*values, rtol=0, atol=1e-20, err_msg=key)
