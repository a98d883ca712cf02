"""Logs, checkpoints and evaluations between steps, and a clean stop."""

from __future__ import annotations

import logging
import math
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
from cmt.trainer.monitor import StallWatch, memory_gigabytes
from cmt.trainer.reporting import MEMORY, LogRecord, Report
from cmt.trainer.strategy import is_chief, num_processes, sum_over_processes
from cmt.trainer.trainer import INPUT_SECONDS, Trainer

_SIGNALS = ("SIGINT", "SIGTERM")

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
      reports: where the numbers go; none, until some are added.
      last: the latest record, None before the first.
      owes_evaluation: whether the step that is continued from is to be evaluated, if
        that is due there.
      signal: name of the signal that ends training, "" if there is none.
      watch: is told how far the run has come; None for none.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        first_step: int,
        intervals: Intervals,
        global_batch_size: int,
        learning_rates: Callable[[int], tuple[float, float]],
        checkpoints: RunCheckpoints,
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
          learning_rates: step -> learning rates of the next update: of the backbone,
            and of the rest.
          checkpoints: where checkpoints go.
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
        self._learning_rates = learning_rates
        self._checkpoints = checkpoints
        self.reports: list[Report] = []
        self._evaluate = evaluate
        self._image_names = image_names
        self._go_on_unsaved = go_on_unsaved
        self._is_evaluating = False
        self._first_step = first_step
        self._strategy = trainer.distribute_strategy
        self.owes_evaluation = False
        self.signal = ""
        self._clock: tuple[int, float] | None = None
        self._waits: list[tf.Tensor] = []
        self.watch: StallWatch | None = None
        self.last: LogRecord | None = None

    @property
    def step(self) -> int:
        """Updates so far, known without asking the device."""
        return self._step

    def stop_on(self, signal_name: str) -> None:
        """Ends training after the current step, and an evaluation at once.

        One of several processes cannot stop alone: they all do at the next log step or
        checkpoint.

        Raises:
          Interrupted: an evaluation is under way.
        """
        self.signal = signal_name
        if num_processes(self._strategy) > 1:
            return
        self._trainer.stop_training = True
        if self._is_evaluating:
            raise Interrupted

    def on_train_begin(self, logs: dict | None = None) -> None:
        every = self._intervals.evaluate
        if self.owes_evaluation and self._is_due(every, self._step - 1):
            self._log({}, {}, evaluates=True)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Keras calls it after each execution; `batch` is the last step in it."""
        before, self._step = self._step, self._first_step + batch + 1
        self._waits.append(logs[INPUT_SECONDS])
        self._is_at(f"step {self._step + 1}: its batch, or the devices")
        for report in self.reports:
            report.step(self._step)
        evaluates = self._evaluate is not None and self._is_due(
            self._intervals.evaluate, before
        )
        logs_now = evaluates or self._is_due(self._intervals.log, before)
        saves = self._is_due(self._intervals.checkpoint, before)
        if logs_now or saves:
            losses = self._read_losses()
            arrived = time.monotonic()
        # Before the checkpoint: a run that is killed here writes these lines again.
        if logs_now:
            self._log(losses, self._speed(arrived), evaluates)
            self._trainer.loss_meter.reset()
        if saves:
            self._is_at(f"the checkpoint of step {self._step}")
            with self._tolerant():
                self._checkpoints.save(self._step)
        if logs_now or self._clock is None:  # The first step built the graph.
            self._clock = (self._step, time.monotonic())
            self._waits.clear()
        elif saves:
            step, since = self._clock
            self._clock = (step, since + time.monotonic() - arrived)
        if logs_now or saves:
            self._stop_together()

    def _stop_together(self) -> None:
        """Stops where any process has received a signal; all of them call it."""
        flags = [float(self.signal == name) for name in _SIGNALS]
        sums = sum_over_processes(self._strategy, flags)
        for name, count in zip(_SIGNALS, sums, strict=True):
            if count:
                self.signal = name
                self._trainer.stop_training = True

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
        """Closes the reports and ends the watch."""
        for report in self.reports:
            report.close()
        if self.watch is not None:
            self.watch.close()

    def _is_at(self, doing: str) -> None:
        if self.watch is not None:
            self.watch.beat(doing)

    def _speed(self, now: float) -> dict[str, float]:
        """Images per second and the share of input since the clock was set, if it was.

        Those are arguments of `LogRecord`.
        """
        if self._clock is None:
            return {}
        step, since = self._clock
        seconds = max(now - since, 1e-9)
        images = (self._step - step) * self._global_batch_size
        waited = sum(float(wait) for wait in self._waits)
        speed = {"images_per_second": images / seconds}
        if math.isfinite(waited):  # It is not, with deterministic operations.
            speed["input_share"] = min(waited / seconds, 1.0)
        return speed

    def _is_due(self, interval: int, before: int) -> bool:
        """Whether a step after `before`, up to the current one, is one to act on."""
        if interval == 0:
            return False
        is_last = self._step == self._intervals.steps
        return is_last or self._step // interval > before // interval

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
        self, losses: dict[str, float], speed: dict[str, float], evaluates: bool
    ) -> None:
        validation = {}
        if evaluates:
            self._is_at(f"the evaluation of step {self._step}")
            for report in self.reports:
                report.pause()
            with self._tolerant():
                validation = self._validate()
        rate_of_backbone, rate = self._learning_rates(self._step)
        norms = self._trainer.weight_norms()
        self.last = LogRecord(
            self._step,
            losses,
            rate,
            validation,
            **speed,
            state={
                "learning_rate_backbone": rate_of_backbone,
                **{f"weight_norm/{name}": norm for name, norm in norms.items()},
                MEMORY: memory_gigabytes(),
            },
        )
        for report in self.reports:
            with self._tolerant():
                report.log(self.last)

    def _validate(self) -> dict[str, float]:
        """Evaluates; empty where a signal ended it: the run does it when it goes on."""
        self._is_evaluating = True
        try:
            validation = self._of_chief(self._evaluate(self._step))
        except Interrupted:
            return {}
        except Exception:
            self._checkpoints.save(self._step)  # No training is lost with it.
            raise
        finally:
            self._is_evaluating = False
        if "pq" in validation:
            self._checkpoints.offer(self._step, validation["pq"])
        return validation

    def _of_chief(self, values: dict[str, float]) -> dict[str, float]:
        """The chief's numbers, in each process: they may differ in the last bits."""
        if num_processes(self._strategy) == 1:
            return values
        ours = [v if is_chief(self._strategy) else 0.0 for v in values.values()]
        sums = sum_over_processes(self._strategy, ours)
        return dict(zip(values, sums, strict=True))

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
def stop_on_signals(callback: RunCallback) -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM call `callback.stop_on`.

    A second signal acts as if this were not here. Without effect outside the main
    thread, where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {}

    def restore() -> None:
        while previous:
            signal.signal(*previous.popitem())

    def stop(number: int, _) -> None:
        restore()
        callback.stop_on(signal.Signals(number).name)

    for name in _SIGNALS:
        number = signal.Signals[name]
        previous[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
