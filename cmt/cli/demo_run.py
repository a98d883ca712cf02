"""The whole path on generated scenes, by the same commands a user types."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import Message

from cmt import run_files
from cmt.config import load_experiment
from cmt.data.input.open import Data
from cmt.data.panoptic.masks import read_ids
from cmt.data.panoptic.predictions import MASKS_FOLDER
from cmt.errors import InputError, WorkError
from cmt.evaluation.curves import plot_learning_curve
from cmt.evaluation.evaluate import METRICS_FILE, PREDICTIONS_FOLDER
from cmt.evaluation.pictures import attention_sheet, clustering_sheet, rows_of
from cmt.io.files import atomic_write
from cmt.pictures.sheet import save_picture
from cmt.serving.factory import load_predictor

CONFIG = "scenes/tiny"
# With all the rest 11 to 14 minutes of two slow cores.
STEPS = 2300
TRIAL_STEPS = 60
TRIAL_LOG_STEPS = 20
_DRAWN_IMAGES = 6
_ATTENTION_IMAGES = 3


class DemoSummary(NamedTuple):
    """The results of a demo.

    Attributes:
      folder: of everything it made.
      metrics: of the evaluation, as in metrics.json.
      steps: training steps.
      seconds: for all commands.
      served_images: images whose served map was compared with the evaluator's.
    """

    folder: Path
    metrics: dict[str, Any]
    steps: int
    seconds: float
    served_images: int


class Commands:
    """Runs `cmt` commands in processes of their own and remembers them.

    Args:
      script: file that gets each command as a line before it runs.
    """

    def __init__(self, script: Path):
        self.script = script
        self.lines: list[str] = []

    def run(self, *arguments: str | Path, remember: bool = True) -> None:
        """Runs `cmt ARGUMENTS`.

        Raises:
          WorkError: the command ended with another exit code than 0; it has printed
            the reason.
        """
        line, words = self._begin(arguments, remember=remember)
        print(f"\n$ {line}", flush=True)
        _check(line, subprocess.run(words).returncode)

    def run_both(
        self, first: Sequence[str | Path], second: Sequence[str | Path]
    ) -> None:
        """Runs two commands at once; what the second prints follows the first.

        Raises:
          WorkError: as by `run`.
        """
        line, words = self._begin(first)
        other_line, other_words = self._begin(second)
        with tempfile.TemporaryFile() as output:
            kept = {"stdout": output, "stderr": subprocess.STDOUT}
            with subprocess.Popen(other_words, **kept) as other:
                print(f"\n$ {line}", flush=True)
                code = subprocess.run(words).returncode
            output.seek(0)
            printed = output.read().decode(errors="replace")
            print(f"\n$ {other_line}\n{printed}", end="", flush=True)
        _check(line, code)
        _check(other_line, other.returncode)

    def _begin(
        self, arguments: Sequence[str | Path], *, remember: bool = True
    ) -> tuple[str, list[str]]:
        """The command as a line, which the script gets, and the words to run."""
        words = [str(argument) for argument in arguments]
        line = shlex.join(["cmt", *words])
        if remember:
            self.lines.append(line)
            with atomic_write(self.script, "w") as file:
                file.write("\n".join(["#!/bin/sh -e", *self.lines]) + "\n")
        return line, [sys.executable, "-m", "cmt", *words]


def _check(line: str, code: int) -> None:
    if code != 0:
        raise WorkError(f"`{line}` ended with exit code {code}; see above")


def run_demo(
    output: Path | str,
    *,
    minutes: float | None = None,
    train: int = 4000,
    val: int = 200,
    seed: int = 0,
) -> DemoSummary:
    """Makes scenes, converts them, trains, evaluates, exports, predicts and draws.

    Args:
      output: folder of everything, new or empty.
      minutes: of training; a short trial measures how many steps that is, at most
        those of the config. None for STEPS.
      train: images to train on.
      val: images to evaluate on.
      seed: of the scenes and of training.

    Raises:
      InputError: `output` holds something, or a number is out of range.
      WorkError: a command failed, or the served maps are not the evaluator's.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(
            f"{output}: already there and not empty; remove it or give another --output"
        )
    if minutes is not None and not minutes > 0:
        raise InputError(f"minutes must be above 0; got {minutes}")
    start = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    commands = Commands(output / "commands.sh")
    _make_data(commands, output, train, val, seed)
    settings = _settings(output, seed)
    steps = STEPS
    if minutes is not None:
        steps = _affordable_steps(commands, output, settings, minutes)
    run, evaluation = output / "run", output / "evaluation"
    commands.run(
        "train", CONFIG, "--output", run, *settings, "--set", f"trainer.steps={steps}"
    )
    config = run / run_files.CONFIG_FILE
    model = output / "model" / "cmt_tiny"
    trained = config, "--checkpoint", run, "--output"
    served = output / "served"
    images = output / "scenes" / "images" / "val"
    # Most of what each does takes one core.
    with ThreadPoolExecutor(1) as beside:
        drawn = beside.submit(
            draw_clustering,
            load_experiment(config),
            run,
            clustering=output / "pictures.png",
            attention=output / "attention.png",
        )
        commands.run_both(("eval", *trained, evaluation), ("export", *trained, model))
        commands.run("predict", model, images, "--output", served)
        drawn.result()
    compared = compare_maps(
        evaluation / PREDICTIONS_FOLDER / MASKS_FOLDER, served / MASKS_FOLDER
    )
    plot_learning_curve(run / run_files.METRICS_FILE, output / "learning_curve.png")
    metrics = json.loads((evaluation / METRICS_FILE).read_text("utf-8"))
    summary = DemoSummary(output, metrics, steps, time.monotonic() - start, compared)
    with atomic_write(output / "summary.json", "w") as file:
        json.dump(summary._replace(folder=str(output))._asdict(), file, indent=2)
    return summary


def _make_data(
    commands: Commands, output: Path, train: int, val: int, seed: int
) -> None:
    scenes = output / "scenes"
    commands.run(
        *("data", "scenes", "--output", scenes),
        *("--train", str(train), "--val", str(val), "--seed", str(seed)),
    )
    for split in ("train", "val"):
        source = (
            *("--images", scenes / "images" / split),
            *("--annotations", scenes / "annotations" / f"panoptic_{split}.json"),
            *("--masks", scenes / "annotations" / f"panoptic_{split}"),
        )
        commands.run("data", "validate", *source)
        commands.run(
            *("data", "convert", *source),
            *("--output", output / "tfrecords", "--split", split),
        )


def _settings(output: Path, seed: int) -> list[str]:
    """Returns the changes to the config: where the data is, and the seed."""
    records = output / "tfrecords"
    changes = (
        f'data.train.tfrecords="{records}/train-*.tfrecord"',
        f'data.validation.tfrecords="{records}/val-*.tfrecord"',
        f"trainer.seed={seed}",
    )
    return [word for change in changes for word in ("--set", change)]


def _affordable_steps(
    commands: Commands, output: Path, settings: Sequence[str], minutes: float
) -> int:
    """Measures the speed of training in a short trial, which is thrown away."""
    trial = output / "trial"
    commands.run(
        *("train", CONFIG, "--output", trial, *settings),
        *("--set", f"trainer.steps={TRIAL_STEPS}"),
        *("--set", "trainer.learning_rate.warmup_steps=0"),
        *("--set", f"trainer.log_every_steps={TRIAL_LOG_STEPS}"),
        remember=False,
    )
    lines = [
        json.loads(line)
        for line in (trial / run_files.METRICS_FILE).read_text("utf-8").splitlines()
    ]
    # The first steps fill caches, and the very first one has no rate.
    rates = [line["images_per_second"] for line in lines[1:]]
    experiment = load_experiment(CONFIG).trainer
    affordable = 60 * minutes * float(np.mean(rates)) / experiment.global_batch_size
    shutil.rmtree(trial)
    least = experiment.learning_rate.warmup_steps + 1
    return max(least, min(experiment.steps, int(affordable)))


def compare_maps(expected: Path, served: Path) -> int:
    """Compares the panoptic PNGs of two folders, integer by integer.

    Returns:
      How many there are.

    Raises:
      WorkError: a file is missing or a pixel differs.
    """
    names = sorted(path.name for path in expected.glob("*.png"))
    if names != sorted(path.name for path in served.glob("*.png")) or not names:
        raise WorkError(f"{served} and {expected} do not hold the same panoptic maps")
    for name in names:
        evaluated, found = read_ids(expected / name), read_ids(served / name)
        if not np.array_equal(evaluated, found):
            same_size = evaluated.shape == found.shape
            count = int(np.sum(evaluated != found)) if same_size else "all"
            raise WorkError(
                f"{name}: {count} pixels of the served map are not the evaluator's"
            )
    return len(names)


def draw_clustering(
    experiment: Message,
    checkpoint: Path | str,
    *,
    clustering: Path | str,
    attention: Path | str,
) -> None:
    """Writes two sheets of validation images.

    One shows ground truth, prediction and clustering (`clustering_sheet`), the other
    what one center of an image attends to (`attention_sheet`). Centers are confident
    where their class is at least as likely as evaluation.thing_confidence.

    Args:
      experiment: the config.
      checkpoint: a run directory, or what else `load_predictor` takes.
      clustering: the PNG file to write, of the clustering.
      attention: the PNG file to write, of the attention.

    Raises:
      InputError: the checkpoint or the TFRecords are missing or damaged.
    """
    data = Data(experiment.data)
    predictor, _ = load_predictor(experiment, data, checkpoint)
    rows = rows_of(
        predictor,
        data.validation,
        _DRAWN_IMAGES,
        confidence=experiment.evaluation.thing_confidence,
    )
    num_centers = experiment.model.num_centers
    save_picture(clustering, clustering_sheet(rows, num_centers=num_centers))
    focused = [row for row in rows if row.focus is not None]
    save_picture(attention, attention_sheet(focused[:_ATTENTION_IMAGES]))
