"""What a run notices about itself: how much memory it has, and that it stands still."""

from __future__ import annotations

import contextlib
import logging
import resource
import sys
import threading
import time
import traceback
from pathlib import Path

import tensorflow as tf

_OURS = str(Path(__file__).parents[1])

_logger = logging.getLogger(__name__)


def memory_gigabytes() -> float:
    """Returns the most memory that was used so far, in 10^9 bytes.

    Of the fullest GPU or TPU core; where there is none, of the process.
    """
    peaks = []
    for device in tf.config.list_logical_devices():
        if device.device_type in ("GPU", "TPU"):
            name = device.name.removeprefix("/device:")
            with contextlib.suppress(ValueError, tf.errors.OpError):  # Of other hosts.
                peaks.append(tf.config.experimental.get_memory_info(name)["peak"])
    if not peaks:
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
        peaks = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit]
    return max(peaks) / 1e9


class StallWatch:
    """Says where a run is when it has not come further for long.

    Attributes:
      doing: what the run is at, for the message.
    """

    def __init__(self, limit_seconds: float, *, doing: str):
        """Begins to watch in a thread, which must be made to end by `close`.

        Args:
          limit_seconds: without `beat` for so long, it says where the run is, and again
            each time that this has passed.
          doing: what the run is at.
        """
        self.doing = doing
        self._limit = limit_seconds
        self._last = time.monotonic()
        self._closed = threading.Event()
        self._watched = threading.get_ident()
        threading.Thread(target=self._watch, daemon=True, name="stall watch").start()

    def beat(self, doing: str) -> None:
        """The run has come further, and is now at `doing`."""
        self.doing = doing
        self._last = time.monotonic()

    def close(self) -> None:
        """Ends the watch."""
        self._closed.set()

    def _watch(self) -> None:
        said = self._last
        while not self._closed.wait(max(0.01, min(5.0, self._limit / 4))):
            now = time.monotonic()
            if now - max(self._last, said) > self._limit:
                said = now
                waited = now - self._last
                _logger.warning(
                    "for %.0f s (trainer.stall_seconds: %.0f) the run is at: %s; %s",
                    waited,
                    self._limit,
                    self.doing,
                    _place(self._watched),
                )


def _place(thread: int) -> str:
    """Where a thread is: in this package, and at the end of what that called."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "its thread has ended"
    places, ours = [], 0
    for file, line, name, _ in traceback.extract_stack(frame):
        places.append(f"{file}:{line} ({name})")
        if file.startswith(_OURS) and "site-packages" not in file[len(_OURS) :]:
            ours = len(places) - 1
    shown = [places[ours], *places[ours + 1 :][-1:]]
    return f"it is in {', which called '.join(shown)}"
