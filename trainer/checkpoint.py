"""Checkpoints of a run: network, optimizers and step, and how a run continues."""

from __future__ import annotations

import shutil
from pathlib import Path

import tensorflow as tf

from cmt.errors import InputError, WorkError, tensorflow_reason
from cmt.io.storage import plain_path
from cmt.run_files import CHECKPOINTS_FOLDER
from cmt.trainer.trainer import Trainer
from cmt.weights import files
from cmt.weights.load import check_network

_NAME = "step"


def has_checkpoint(run_dir: Path) -> bool:
    """Returns whether a run directory holds a checkpoint to continue from."""
    return any((run_dir / CHECKPOINTS_FOLDER).glob("*.index"))


class RunCheckpoints:
    """The checkpoints of a run directory, `checkpoints/step-N`."""

    def __init__(self, run_dir: Path, trainer: Trainer, *, keep: int):
        """Finds the latest checkpoint; writes nothing.

        Args:
          run_dir: the run directory.
          trainer: its network, optimizers and step are saved and restored.
          keep: how many checkpoints stay, the latest ones.

        Raises:
          InputError: checkpoints are there, but not which is the latest.
        """
        self._folder = run_dir / CHECKPOINTS_FOLDER
        self._trainer = trainer
        self._checkpoint = tf.train.Checkpoint(
            **{files.MODEL_KEY: trainer.network, files.STEP_KEY: trainer.step},
            **trainer.optimizers,
        )
        self.latest = None
        if has_checkpoint(run_dir):
            self.latest = files.find_checkpoint(self._folder)
        self._keep = keep
        self._manager: tf.train.CheckpointManager | None = None

    def restore_latest(self) -> int:
        """Restores the latest checkpoint, if there is one.

        Returns:
          The step that training continues from; 0 for a new run.

        Raises:
          InputError: it cannot be read or is of another network or optimizer.
        """
        if self.latest is None:
            return 0
        step = check_network(self._trainer.network, self.latest)
        try:
            status = self._checkpoint.restore(plain_path(self.latest))
            try:
                status.assert_existing_objects_matched()
            except AssertionError:
                status.expect_partial()  # Or it lists each value at the end.
                raise
        # A ValueError is Keras's, between optimizers of its two kinds.
        except (AssertionError, ValueError) as error:
            raise InputError(
                f"checkpoint {self.latest} holds the state of another optimizer; set "
                "trainer.optimizer.kind to what the run began with, or give another "
                "run directory"
            ) from error
        except tf.errors.OpError as error:
            raise files.unreadable(self.latest, error) from error
        return step

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
        prefix = str(self._folder / f"{_NAME}-{step}")
        if self.latest == prefix:
            return prefix
        try:
            if self._manager is None or not removes_old:
                self._manager = tf.train.CheckpointManager(
                    self._checkpoint,
                    plain_path(self._folder),
                    max_to_keep=self._keep if removes_old else None,
                    checkpoint_name=_NAME,
                )
            self._manager.save(checkpoint_number=step)
            self.latest = prefix
        except tf.errors.OpError as error:
            # TensorFlow leaves what it had written.
            shutil.rmtree(f"{prefix}_temp", ignore_errors=True)
            raise WorkError(
                f"checkpoint {prefix} cannot be written ({tensorflow_reason(error)}); "
                "free space or change permissions, and run the same command again: it "
                "continues from the last checkpoint"
            ) from error
        return self.latest
