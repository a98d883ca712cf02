"""Logs, checkpoints and evaluations between steps, and a clean stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from cmt.errors import CmtError, WorkError
from cmt.trainer.checkpoint import RunCheckpoints
from cmt.trainer.finite_guard import MOVING_STATISTICS, NotFinite
from cmt.trainer.reporting import LogRecord, Report
from cmt.trainer.trainer import Trainer

_logger = logging.getLogger(__name__)


class Intervals(NamedTuple):
    """Steps between logs, checkpoints and evaluations.

    Attributes:
      steps: the last step.
      log: between log steps.
      checkpoint: between checkpoints; the last step always has one.
      evaluate: between evaluations; 0 for none.
    """

    steps: int
    log: int
    checkpoint: int
    evaluate: int


class RunCallback(tf_keras.callbacks.Callback):
    """Logs, checkpoints, evaluates, and stops on a loss that is not finite.

    It counts steps on the host and reads losses from the device only when one of
    these is due. If they are not finite by then, the trainer has kept the state from
    before; a checkpoint of it is written, and training stops.

    Attributes:
      last: the latest record, None before the first.
      owes_evaluation: whether the step that is continued from is to be evaluated, if
        that is due there.
      is_evaluating: whether an evaluation is under way, which `Interrupted` ends.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        first_step: int,
        intervals: Intervals,
        global_batch_size: int,
        learning_rate: Callable[[int], float],
        checkpoints: RunCheckpoints,
        reports: Sequence[Report],
        evaluate: Callable[[int], dict[str, float]] | None,
        image_names: Callable[[Sequence[int]], Sequence[str]] | None = None,
        go_on_unsaved: bool = False,
    ):
        """Keeps what it needs between steps.

        Args:
          trainer: the trainer that is fitted.
          first_step: updates made before this fit.
          intervals: when to log, save and evaluate.
          global_batch_size: images in a step, over all replicas.
          learning_rate: step -> learning rate of the next update.
          checkpoints: where checkpoints go.
          reports: where the numbers go.
          evaluate: step -> losses and scores on validation data; None for none.
          image_names: places in the training data (`Targets.image_ids`) -> names of
            files, for messages; None where they are not known.
          go_on_unsaved: warn where a checkpoint or a report cannot be written.
        """
        super().__init__()
        self._supports_tf_logs = True  # Keras then leaves logs on the device.
        self._trainer = trainer
        self._step = first_step
        self._intervals = intervals
        self._global_batch_size = global_batch_size
        self._learning_rate = learning_rate
        self._checkpoints = checkpoints
        self._reports = reports
        self._evaluate = evaluate
        self._image_names = image_names
        self._go_on_unsaved = go_on_unsaved
        self.is_evaluating = False
        self.owes_evaluation = False
        self._clock: tuple[int, float] | None = None
        self.last: LogRecord | None = None

    @property
    def step(self) -> int:
        """Updates so far, known without asking the device."""
        return self._step

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self.owes_evaluation and self._is_due(self._intervals.evaluate):
            self._log({}, None, evaluates=True)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._step += 1
        for report in self._reports:
            report.step(self._step)
        evaluates = self._evaluate is not None and self._is_due(
            self._intervals.evaluate
        )
        logs_now = evaluates or self._is_due(self._intervals.log)
        saves = self._is_due(self._intervals.checkpoint)
        if logs_now or saves:
            losses = self._read_losses()
            arrived = time.monotonic()
        # Before the checkpoint: a run that is killed here writes these lines again.
        if logs_now:
            self._log(losses, self._rate(arrived), evaluates)
            self._trainer.loss_meter.reset()
        if saves:
            with self._tolerant():
                self._checkpoints.save(self._step)
        if logs_now or self._clock is None:  # The first step built the graph.
            self._clock = (self._step, time.monotonic())
        elif saves:
            step, since = self._clock
            self._clock = (step, since + time.monotonic() - arrived)

    def save(self) -> str:
        """Writes a checkpoint now.

        Returns:
          Its prefix.

        Raises:
          WorkError: losses or gradients were not finite, or it cannot be written.
        """
        self._read_losses()
        return self._checkpoints.save(self._step)

    def close(self) -> None:
        """Closes the reports."""
        for report in self._reports:
            report.close()

    def _rate(self, now: float) -> float | None:
        """Returns images per second since the clock was set; None if it was not."""
        if self._clock is None:
            return None
        step, since = self._clock
        return (self._step - step) * self._global_batch_size / max(now - since, 1e-9)

    def _is_due(self, interval: int) -> bool:
        is_last = self._step == self._intervals.steps
        return interval > 0 and (is_last or self._step % interval == 0)

    def _read_losses(self) -> dict[str, float]:
        found = self._trainer.not_finite()
        if found is not None:
            saved = self._save_before(found)  # Before anything else can go wrong.
            raise WorkError(
                f"training stopped at step {self._step}: {self._describe(found)}; "
                f"{saved}; lower trainer.learning_rate.base, set "
                "trainer.optimizer.clip_global_norm or mend these images ('cmt data "
                "inspect' checks the shards), and run the same command again"
            )
        losses = self._trainer.loss_meter.means()
        losses.pop(MOVING_STATISTICS, None)
        return losses

    def _describe(self, found: NotFinite) -> str:
        try:
            return found.describe(self._image_names)
        except (CmtError, OSError, tf.errors.OpError):
            return found.describe()  # The shards are gone; their places are known.

    def _save_before(self, found: NotFinite) -> str:
        step, earlier = found.step - 1, self._checkpoints.latest
        try:
            prefix = self._checkpoints.save(step, removes_old=False)
        except WorkError as error:
            return f"the last good state, step {step}, is lost: {error}"
        text = f"{prefix} holds the last good state, step {step}"
        if earlier not in (None, prefix):
            text += f" (should it fail again, delete it, to go on from {earlier})"
        return text

    def _log(
        self, losses: dict[str, float], rate: float | None, evaluates: bool
    ) -> None:
        validation = {}
        if evaluates:
            for report in self._reports:
                report.pause()
            with self._tolerant():
                validation = self._validate()
        learning_rate = self._learning_rate(self._step)
        self.last = LogRecord(self._step, losses, learning_rate, rate, validation)
        for report in self._reports:
            with self._tolerant():
                report.log(self.last)

    def _validate(self) -> dict[str, float]:
        """Evaluates; empty where a signal ended it: the run does it when it goes on."""
        self.is_evaluating = True
        try:
            validation = self._evaluate(self._step)
        except Interrupted:
            return {}
        except Exception:
            self._checkpoints.save(self._step)  # No training is lost with it.
            raise
        finally:
            self.is_evaluating = False
        if "pq" in validation:
            self._checkpoints.offer(self._step, validation["pq"])
        return validation

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        """What cannot be written ends the run, or is a warning, as the config says.

        Raises:
          WorkError: it ends the run.
        """
        try:
            yield
        except (OSError, WorkError) as error:
            if self._go_on_unsaved:
                _logger.warning("training goes on, though: %s", error)
            elif isinstance(error, WorkError):
                raise
            else:
                raise WorkError(
                    f"training stopped at step {self._step}: {error}; free space or "
                    "change permissions, and run the same command again: it continues "
                    f"from {self._checkpoints.latest}"
                ) from error


class Interrupted(Exception):
    """A signal ends an evaluation, which would take longer than a scheduler waits."""


@contextmanager
def stop_on_signals(
    model: tf_keras.Model, callback: RunCallback
) -> Iterator[list[str]]:
    """Lets Ctrl-C and SIGTERM end `model.fit` after the step it is in.

    An evaluation ends at once, with `Interrupted`. A second signal acts as if this
    were not here. Without effect outside the main thread, where Python allows no
    handlers.

    Yields:
      A list that holds the signal's name once there was one.
    """
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {}

    def restore() -> None:
        while previous:
            signal.signal(*previous.popitem())

    def stop(number: int, _) -> None:
        received.append(signal.Signals(number).name)
        model.stop_training = True
        restore()
        if callback.is_evaluating:
            raise Interrupted

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, stop)
    try:
        yield received
    finally:
        restore()
