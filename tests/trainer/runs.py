"""Commands that train networks of two layers, in processes of their own."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import numpy as np

from cmt.config import load_experiment, to_text
from cmt.data.scenes.generate import generate_scenes
from cmt.trainer.checkpoint import checkpoint_steps
from cmt.weights.files import Contents
from tests.data.conversions import convert


def small_data(folder: pathlib.Path) -> list[str]:
    """Makes scenes; returns a config that draws at every place where training does."""
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
        "trainer.learning_rate.warmup_steps=2",
        "trainer.log_every_steps=1",
        "trainer.keep_checkpoints=2",
    ]


class Run:
    """A command that trains, in processes of its own."""

    def __init__(self, settings, folder, *, steps: int, real: bool = False):
        self.config = folder.with_name(f"{folder.name}.textproto")
        settings = [*settings, f"trainer.steps={steps}"]
        self.config.write_text(to_text(load_experiment("scenes/tiny", settings)))
        self.folder, self.steps, self.is_real = folder, steps, real

    def start(self, **environment: str) -> subprocess.Popen:
        """Starts it, with further variables in its environment."""
        program = "cmt" if self.is_real else "tests.trainer.small_run"
        words = [program, "train", self.config, "--output", self.folder]
        return subprocess.Popen(
            [sys.executable, "-m", *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=pathlib.Path(__file__).parents[2],
            env=os.environ | environment,
        )

    def finish(self) -> dict[str, np.ndarray]:
        """Runs to the end; returns `values`."""
        process = self.start()
        message = process.communicate()[1].decode()
        assert process.returncode == 0, message
        return self.values()

    def values(self) -> dict[str, np.ndarray]:
        """All values of the checkpoint of the last step."""
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
