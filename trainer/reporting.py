"""Writes the numbers of a log step: to the console, metrics.jsonl and TensorBoard."""

from __future__ import annotations

import datetime
import errno
import json
import math
import os
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from cmt.errors import tensorflow_reason
from cmt.io.terminal import console
from cmt.run_files import EVALUATION_FOLDER, EVALUATION_PICTURE, LOGS_FOLDER
from cmt.trainer.finite_guard import GRADIENT_NORM, TOTAL

MEMORY = "memory_gigabytes"


class LogRecord(NamedTuple):
    """The numbers of a log step.

    Attributes:
      step: updates so far.
      losses: means since the last log step: each term, the total, the gradient norm.
      learning_rate: of the next update, without the backbone's multiplier.
      validation: losses and scores, where there was an evaluation at this step.
      images_per_second: over all replicas, since the last log step; without the first
        step of a process, which builds the graph, and None where that is all.
      input_share: of that time, how much the devices waited for a batch, from 0 to 1;
        None where it is not known.
      state: further numbers of this moment: the backbone's learning rate, norms of
        weights, gigabytes of memory.
    """

    step: int
    losses: dict[str, float]
    learning_rate: float
    validation: dict[str, float]
    images_per_second: float | None = None
    input_share: float | None = None
    state: Mapping[str, float] = MappingProxyType({})


class Report(Protocol):
    """One place the numbers go to."""

    def step(self, step: int) -> None:
        """The callback calls it after each step."""

    def pause(self) -> None:
        """The callback calls it before something else writes to the console."""

    def log(self, record: LogRecord) -> None:
        """The callback calls it at log steps."""

    def close(self) -> None:
        """The callback calls it at the end, also after an error."""


class MetricsFile:
    """metrics.jsonl: a line of JSON a log step, appended; null is not finite."""

    def __init__(self, path: Path):
        """Opens the file to append to it."""
        # Without a buffer, a line that does not fit on the disk is not tried again.
        self._file = path.open("ab", buffering=0)
        self._path = path

    def step(self, step: int) -> None:
        """Writes nothing."""

    def pause(self) -> None:
        """Is not on the console."""

    def log(self, record: LogRecord) -> None:
        line = {
            "step": record.step,
            **record.losses,
            **rates(record),
            **{f"validation/{k}": v for k, v in record.validation.items()},
        }
        # JSON knows no NaN and no infinity.
        known = {k: v if math.isfinite(v) else None for k, v in line.items()}
        data = (json.dumps(known, allow_nan=False) + "\n").encode("utf-8")
        end = self._path.stat().st_size
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        except OSError:
            self._file.truncate(end)  # Half a line would spoil the next one.
            raise

    def close(self) -> None:
        self._file.close()


class ScalarLogs:
    """TensorBoard event files in a folder: numbers, pictures and text."""

    def __init__(self, folder: Path):
        """Takes the folder; files are made when there is something to write."""
        self._writer = tf.summary.create_file_writer(str(folder))

    def write(
        self,
        step: int,
        values: Mapping[str, float],
        *,
        picture: Path | None = None,
        config_text: str = "",
    ) -> None:
        """Writes numbers, a PNG file if it is there, and the text of a config.

        Raises:
          OSError: they cannot be written.
        """
        try:
            with self._writer.as_default(step):
                for name, value in values.items():
                    tf.summary.scalar(name, value)
                if picture is not None and picture.exists():
                    image = tf.io.decode_png(picture.read_bytes(), channels=3)
                    tf.summary.image("clustering", image[tf.newaxis])
                if config_text:  # Four spaces are Markdown's sign of code.
                    tf.summary.text("config", textwrap.indent(config_text, "    "))
            self._writer.flush()
        except tf.errors.OpError as error:
            raise OSError(f"TensorBoard logs: {tensorflow_reason(error)}") from error

    def close(self) -> None:
        self._writer.close()


class TensorBoardLogs:
    """TensorBoard event files, one folder for training, one for validation."""

    def __init__(self, run_dir: Path, *, config_text: str):
        """Takes a run directory; files are made when there is something to write.

        Args:
          run_dir: gets the files; the pictures of its evaluations go into them.
          config_text: is shown beside the numbers.
        """
        self._train = ScalarLogs(run_dir / LOGS_FOLDER / "train")
        self._validation = ScalarLogs(run_dir / LOGS_FOLDER / "validation")
        self._pictures = run_dir / EVALUATION_FOLDER
        self._config = config_text

    def step(self, step: int) -> None:
        """Writes nothing."""

    def pause(self) -> None:
        """Is not on the console."""

    def log(self, record: LogRecord) -> None:
        values = record.losses | rates(record)
        self._train.write(record.step, values, config_text=self._config)
        self._config = ""
        if record.validation:
            picture = self._pictures / str(record.step) / EVALUATION_PICTURE
            self._validation.write(record.step, record.validation, picture=picture)

    def close(self) -> None:
        self._train.close()
        self._validation.close()


class LogLines:
    """Plain lines on standard error, for logs."""

    def __init__(self, *, steps: int, global_batch_size: int):
        """Takes the last step and the images in a step, for the time left."""
        self._steps = steps
        self._global_batch_size = global_batch_size

    def step(self, step: int) -> None:
        """Writes nothing."""

    def pause(self) -> None:
        """Lines are in nobody's way."""

    def log(self, record: LogRecord) -> None:
        line = (
            f"step {record.step:{len(str(self._steps))}}/{self._steps}"
            f"  {losses_text(record.losses)}  lr {record.learning_rate:.2e}"
        )
        images = (self._steps - record.step) * self._global_batch_size
        if record.images_per_second:
            line += f"  {record.images_per_second:.1f} images/s"
            if record.input_share is not None:
                line += f"  input {record.input_share:.0%}"
            if MEMORY in record.state:
                line += f"  {record.state[MEMORY]:.2f} GB"
            if images > 0:
                seconds = round(images / record.images_per_second)
                line += f"  {datetime.timedelta(seconds=seconds)} left"
        print(line, file=sys.stderr, flush=True)
        if record.validation:
            print(validation_text(record), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class ProgressBar:
    """A bar on a terminal, with losses, images/s and the time left."""

    def __init__(self, *, steps: int, first_step: int):
        """Draws the bar."""
        from rich import progress

        self._bar = progress.Progress(
            progress.TextColumn("step", markup=False),
            progress.MofNCompleteColumn(),
            progress.BarColumn(bar_width=20),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.description}", markup=False),
            console=console(stderr=True),
        )
        self._task = self._bar.add_task("", total=steps, completed=first_step)
        self._bar.start()

    def step(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def pause(self) -> None:
        """Makes room for another bar; `log` shows this one again."""
        self._bar.stop()

    def log(self, record: LogRecord) -> None:
        self._bar.start()
        text = losses_text(record.losses)
        if record.images_per_second:
            text = f"{record.images_per_second:.1f} images/s  {text}"
        self._bar.update(self._task, description=text)
        if record.validation:
            self._bar.console.print(validation_text(record))

    def close(self) -> None:
        self._bar.stop()


def rates(record: LogRecord) -> dict[str, float]:
    """Returns learning rates, speed, norms and memory, those that are known."""
    known = {
        "learning_rate": record.learning_rate,
        "images_per_second": record.images_per_second,
        "input_share": record.input_share,
    }
    return {k: v for k, v in known.items() if v is not None} | dict(record.state)


def panoptic_scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns PQ of all classes, things and stuff, in percent, from `metrics.json`."""
    groups = {"pq": "all", "pq_things": "things", "pq_stuff": "stuff"}
    return {name: metrics["panoptic"][group]["pq"] for name, group in groups.items()}


def losses_text(losses: Mapping[str, float]) -> str:
    """Returns the total and the terms of the main output, for people."""
    names = [name for name in losses if "/" not in name and name != GRADIENT_NORM]
    names.sort(key=lambda name: name != TOTAL)
    shown = {name: losses[name] for name in names}
    return "  ".join(f"{name} {value:.4g}" for name, value in shown.items())


def validation_text(record: LogRecord) -> str:
    """Returns the numbers of an evaluation, for people."""
    shown = {k: v for k, v in record.validation.items() if "/" not in k}
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
    return f"validation at step {record.step}: {numbers}"
