"""Checkpoints of a run: network, optimizers and step, and how a run continues.

Each is written in a folder of its own beside the others and then renamed, its index
last: a checkpoint that has an index is whole, whenever the process was killed. On
reading, the checksums that TensorFlow keeps of all values are compared.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from cmt.errors import InputError, WorkError, tensorflow_reason
from cmt.io.files import atomic_write, write_json
from cmt.io.storage import plain_path
from cmt.run_files import CHECKPOINTS_FOLDER
from cmt.trainer.trainer import Trainer
from cmt.weights import files
from cmt.weights.load import check_network

_NAME = "step"
_STATE_FILE = "checkpoint"  # names the latest, for TensorFlow and `find_checkpoint`
_BEST_FILE = "best.json"

_logger = logging.getLogger(__name__)


class Best(NamedTuple):
    """The best evaluation of a run so far.

    Attributes:
      step: updates made by then.
      pq: panoptic quality in percent.
    """

    step: int
    pq: float


def checkpoint_steps(run_dir: Path) -> list[int]:
    """Returns the steps of the checkpoints of a run directory, oldest first."""
    found = (run_dir / CHECKPOINTS_FOLDER).glob(f"{_NAME}-*.index")
    steps = (file.stem.removeprefix(f"{_NAME}-") for file in found)
    return sorted(int(step) for step in steps if step.isdecimal())


def checkpoint_prefix(run_dir: Path, step: int) -> str:
    """Returns the prefix of the checkpoint of a step."""
    return str(run_dir / CHECKPOINTS_FOLDER / f"{_NAME}-{step}")


class RunCheckpoints:
    """The checkpoints of a run directory, `checkpoints/step-N`.

    Attributes:
      latest: prefix of the newest one; None where there is none.
      best: the best evaluation; None before the first.
    """

    def __init__(
        self,
        run_dir: Path,
        trainer: Trainer,
        *,
        keep: int,
        writes: bool = True,
    ):
        """Finds the checkpoints; writes nothing.

        Args:
          run_dir: the run directory.
          trainer: its network, optimizers and step are saved and restored.
          keep: how many checkpoints stay: the latest ones, and besides the best one.
          writes: False for a process that leaves the run directory to another one.
        """
        self._writes = writes
        self._folder = run_dir / CHECKPOINTS_FOLDER
        self._trainer = trainer
        parts = {files.MODEL_KEY: trainer.network, files.STEP_KEY: trainer.step}
        if trainer.averaged is not None:
            parts[files.AVERAGED_KEY] = trainer.averaged
        self._checkpoint = tf.train.Checkpoint(**parts, **trainer.optimizers)
        self._keep = keep
        self._steps = checkpoint_steps(run_dir)
        self.latest = self._prefix(self._steps[-1]) if self._steps else None
        self.best = self._read_best()

    def check_folder(self) -> None:
        """Checks that the checkpoints to come can be written, and makes their folder.

        Raises:
          InputError: the disk has too little space for all that are kept, the best
            one, and one that is being written.
          OSError: the folder cannot be made or written to.
        """
        if not self._writes:
            return
        variables = [*self._trainer.network.variables, self._trainer.step]
        if self._trainer.averaged is not None:
            variables += self._trainer.averaged.variables
        for optimizer in self._trainer.optimizers.values():
            variables += optimizer.weights
        size = sum(v.shape.num_elements() * v.dtype.size for v in variables)
        count = self._keep + 2
        near = next(p for p in [self._folder, *self._folder.parents] if p.exists())
        there = sum(f.stat().st_size for f in self._folder.glob(f"{_NAME}-*"))
        free = shutil.disk_usage(near).free
        if there + free < count * size:
            raise InputError(
                f"{self._folder}: {count} checkpoints of {_gigabytes(size)} need "
                f"{_gigabytes(count * size)} (trainer.keep_checkpoints = {self._keep}, "
                "the best one, and one that is being written), and the disk has "
                f"{_gigabytes(free)} free; free some, lower trainer.keep_checkpoints, "
                "or give another --output"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._folder):
            pass
        for left in self._folder.glob(f".{_NAME}-*.partial"):
            shutil.rmtree(left, ignore_errors=True)  # Of a process that was killed.

    def restore_latest(self) -> int:
        """Restores the latest checkpoint that is whole, if there is one.

        A damaged one is reported and left as it is.

        Returns:
          The step that training continues from; 0 for a new run.

        Raises:
          InputError: none can be read, or it is of another network or optimizer.
        """
        damaged = None
        for step in reversed(self._steps.copy()):
            prefix = self._prefix(step)
            try:
                files.verify(prefix)
            except InputError as error:
                damaged = error
                self._steps.remove(step)
                _logger.warning("%s; the one before is used, if there is one", error)
                continue
            self.latest = prefix
            self._restore(prefix)
            if self.best and self.best.step > step:
                self.best = None  # It is evaluated again.
            return step
        if damaged is not None:
            raise InputError(
                f"none of the checkpoints of {self._folder} can be read; the oldest: "
                f"{damaged}; to begin anew, give another --output"
            )
        return 0

    def _restore(self, prefix: str) -> None:
        check_network(self._trainer.network, prefix)
        try:
            status = self._checkpoint.read(plain_path(prefix))
            try:
                status.assert_existing_objects_matched()
            except AssertionError:
                status.expect_partial()  # Or it lists each value at the end.
                raise
        # A ValueError is Keras's, between optimizers of its two kinds.
        except (AssertionError, ValueError) as error:
            raise InputError(
                f"checkpoint {prefix} holds the state of another optimizer; set "
                "trainer.optimizer.kind to what the run began with, or give another "
                "run directory"
            ) from error
        except tf.errors.OpError as error:
            raise files.unreadable(prefix, error) from error

    def save(self, step: int, *, removes_old: bool = True) -> str:
        """Writes a checkpoint, unless the latest is of this step; removes old ones.

        Args:
          step: the trainer's step, which the host knows without asking the device.
          removes_old: remove older checkpoints; False where this one may be no good.

        Returns:
          The prefix of the checkpoint of this step.

        Raises:
          WorkError: it cannot be written; older checkpoints stay.
        """
        prefix = self._prefix(step)
        if self.latest == prefix:
            return prefix
        if not self._writes:
            # Means over replicas are read together with the process that writes.
            with tempfile.TemporaryDirectory() as folder:
                self._checkpoint.write(str(Path(folder, _NAME)))
            self.latest = prefix
            return prefix
        partial = self._folder / f".{_NAME}-{step}.partial"
        try:
            partial.mkdir(parents=True, exist_ok=True)
            folder = Path(plain_path(self._folder), partial.name)
            self._checkpoint.write(str(folder / f"{_NAME}-{step}"))
            self._publish(partial, prefix)
            self._steps.append(step)
            self.latest = prefix
            self._tidy(removes_old)
        except (OSError, tf.errors.OpError) as error:
            reason = str(error)
            if isinstance(error, tf.errors.OpError):
                reason = tensorflow_reason(error)
            raise WorkError(
                f"checkpoint {prefix} cannot be written ({reason}); free space or "
                "change permissions, and run the same command again: it continues from "
                "the last checkpoint"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return prefix

    def offer(self, step: int, pq: float) -> None:
        """Keeps the checkpoint of an evaluated step for good where it is the best.

        Args:
          step: the trainer's step.
          pq: panoptic quality of the evaluation, in percent.

        Raises:
          WorkError: it cannot be written.
        """
        if not math.isfinite(pq) or (self.best and pq <= self.best.pq):
            return
        self.save(step)
        self.best = Best(step, pq)
        if not self._writes:
            return
        write_json(self._folder / _BEST_FILE, self.best._asdict())
        self._tidy(removes_old=True)  # The best one before may go.

    def _publish(self, partial: Path, prefix: str) -> None:
        """Gives the files of a checkpoint their names, the index last."""
        index = Path(f"{prefix}.index")
        index.unlink(missing_ok=True)  # Of a damaged one of this step.
        written = sorted(partial.iterdir(), key=lambda file: file.suffix == ".index")
        for file in written:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
            file.replace(self._folder / file.name)

    def _tidy(self, removes_old: bool) -> None:
        """Names the latest checkpoint, then removes old ones, each index first."""
        kept = self._steps
        if removes_old:
            best = self.best and self.best.step
            kept = [s for s in self._steps[: -self._keep] if s == best]
            kept += self._steps[-self._keep :]
        with atomic_write(self._folder / _STATE_FILE, "w") as file:
            file.write(f'model_checkpoint_path: "{_NAME}-{self._steps[-1]}"\n')
            for step in kept:
                file.write(f'all_model_checkpoint_paths: "{_NAME}-{step}"\n')
        for step in set(self._steps) - set(kept):
            Path(f"{self._prefix(step)}.index").unlink(missing_ok=True)
            for file in self._folder.glob(f"{_NAME}-{step}.data-*"):
                file.unlink()
        self._steps = kept

    def _prefix(self, step: int) -> str:
        return checkpoint_prefix(self._folder.parent, step)

    def _read_best(self) -> Best | None:
        try:
            return Best(**json.loads((self._folder / _BEST_FILE).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None  # The next evaluation is the best one then.


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
