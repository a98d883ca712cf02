"""Trainings that are killed again and again end with the bits of one that was not."""

from __future__ import annotations

import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cmt.config import load_experiment, to_text
from cmt.data.scenes.generate import generate_scenes
from cmt.trainer.checkpoint import checkpoint_steps
from cmt.weights.files import Contents
from tests.data.conversions import convert

pytestmark = pytest.mark.check
_EVERY = 5
_PREEMPTED = 75


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> list[str]:
    """A config that draws at every place where training does."""
    folder = tmp_path_factory.mktemp("killed")
    generate_scenes(folder, train=12, val=2, size=65, seed=8, workers=1)
    for split in ("train", "val"):
        convert(
            images=folder / "images" / split,
            annotations=folder / "annotations" / f"panoptic_{split}.json",
            masks=folder / "annotations" / f"panoptic_{split}",
            output=folder / "out",
            split=split,
            workers=1,
        )
    return [
        *(f"model.backbone.stage{stage}_blocks=1" for stage in (2, 3, 4)),
        *(f"model.decoder.stage{stage}_layers=1" for stage in (4, 5)),
        "model.backbone.drop_path_rate=0.3",
        "model.auxiliary_semantic.dropout_rate=0.3",
        "loss.contrastive_pixels=20",
        "data.augmentation.copy_paste.probability=0.5",
        "data.crop_height_pixels=33",
        "data.crop_width_pixels=33",
        f'data.train.tfrecords="{folder}/out/train-*.tfrecord"',
        f'data.validation.tfrecords="{folder}/out/val-*.tfrecord"',
        "trainer.strategy.deterministic_ops=true",
        "trainer.global_batch_size=2",
        "trainer.learning_rate.warmup_steps=2",
        "trainer.log_every_steps=1",
        "trainer.keep_checkpoints=2",
        f"trainer.checkpoint_every_steps={_EVERY}",
        f"trainer.evaluate_every_steps={_EVERY * 3}",
    ]


class Run:
    """A command that trains, in processes of its own."""

    def __init__(self, settings, folder, *, steps: int, real: bool):
        self.config = folder.with_name(f"{folder.name}.textproto")
        settings = [*settings, f"trainer.steps={steps}"]
        self.config.write_text(to_text(load_experiment("scenes/tiny", settings)))
        self.folder, self.steps, self.is_real = folder, steps, real

    def start(self) -> subprocess.Popen:
        program = "cmt" if self.is_real else "tests.trainer.small_run"
        words = [program, "train", self.config, "--output", self.folder]
        return subprocess.Popen(
            [sys.executable, "-m", *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=pathlib.Path(__file__).parents[2],
        )

    def finish(self) -> dict[str, np.ndarray]:
        """Runs to the end; returns all values of the last checkpoint."""
        process = self.start()
        message = process.communicate()[1].decode()
        assert process.returncode == 0, message
        contents = Contents(str(self.folder / "checkpoints" / f"step-{self.steps}"))
        keys = [key for key in contents.shapes if not key.startswith("_CHECKPOINTABLE")]
        return {key: contents.value(key) for key in keys}

    def saved(self) -> int:
        """The step of the newest checkpoint."""
        return max(checkpoint_steps(self.folder), default=0)

    def logged(self) -> list[int]:
        """The steps of complete lines of metrics.jsonl."""
        path = self.folder / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        lines = text.splitlines(keepends=True)
        return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


@pytest.mark.parametrize(
    ("kills", "steps", "real"),
    [
        pytest.param(2, 20, True, marks=pytest.mark.slow),
        (2, 40, False),
        pytest.param(20, 300, False, marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_moment(settings, tmp_path, kills, steps, real):
    """In a step, while a checkpoint is written, in an evaluation or at the start."""
    whole = Run(settings, tmp_path / "whole", steps=steps, real=real)
    expected = whole.finish()
    run = Run(settings, tmp_path / "killed", steps=steps, real=real)
    chance = random.Random(kills)
    for goal in sorted(chance.choices(range(0, steps - _EVERY, _EVERY), k=kills)):
        # Where it is reached already, the run is killed at its start.
        goal = min(max(goal, run.saved() + chance.choice((0, _EVERY))), steps - _EVERY)
        process = run.start()
        while run.saved() < goal:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 1 if real else 0.2))
        process.kill()
        message = process.communicate()[1].decode()
        assert process.returncode in (0, -signal.SIGKILL), message
        # Nothing but the last interval is lost.
        assert run.saved() >= max(run.logged(), default=0) - _EVERY
    found = run.finish()
    assert found.keys() == expected.keys() and len(found) > 10
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    assert run.logged() == list(range(1, steps + 1))
    assert checkpoint_steps(run.folder) == checkpoint_steps(whole.folder)


def test_told_to_stop_it_writes_a_checkpoint_and_says_so(settings, tmp_path):
    """By a scheduler, which starts it again, and by Ctrl-C."""
    run = Run(settings, tmp_path / "stopped", steps=2000, real=False)
    for number, code in ((signal.SIGTERM, _PREEMPTED), (signal.SIGINT, 130)):
        process = run.start()
        begun = max(run.logged(), default=0)
        while process.poll() is None and max(run.logged(), default=0) <= begun:
            time.sleep(0.01)
        process.send_signal(number)
        message = process.communicate()[1].decode()
        assert process.returncode == code, message
        assert run.saved() in (run.logged()[-1], run.logged()[-1] + 1)
        assert f"stopped by {number.name} at step {run.saved()}" in message
