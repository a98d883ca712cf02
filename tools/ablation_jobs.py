"""Runs commands side by side at low priority, until they are done or time is up."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from cmt.errors import InputError, WorkError

_NICE = ("nice", "-n", "10")
_POLL_SECONDS = 0.5
_INTERRUPTED = 130


@contextlib.contextmanager
def alone(path: pathlib.Path) -> Iterator[int]:
    """Keeps others out of a folder as long as this process or one it started lives.

    Yields:
      The file descriptor that the started processes must inherit.

    Raises:
      InputError: another process is in.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{path.parent}: another run, or a training that it left behind, works"
                " here; wait for it, end it, or give another --work"
            ) from None
        yield file.fileno()


class Jobs:
    """Jobs of commands; each job is a function that calls `execute`.

    Args:
      at_a_time: jobs that run side by side; commands of more than one get one thread.
      hours: no command starts after these, and those that run are told to stop; None
        for no limit.
      lock: file descriptor that commands inherit.
      folder: in which they run.
    """

    def __init__(
        self, at_a_time: int, hours: float | None, lock: int, folder: pathlib.Path
    ):
        self._at_a_time = at_a_time
        self._end = None if hours is None else time.monotonic() + 3600 * hours
        self._lock = lock
        self._folder = folder
        self._signals: list[str] = []
        self._stop = threading.Event()
        self.threads = 1 if at_a_time > 1 else None

    def _is_over(self) -> bool:
        late = self._end is not None and time.monotonic() >= self._end
        return late or self._stop.is_set()

    def execute(self, words: Sequence[str], log: pathlib.Path) -> bool:
        """Runs a command; its output is appended to a log.

        A command that is told to stop gets SIGTERM; a training then saves a checkpoint.

        Returns:
          False if it did not run to its end because time was up.

        Raises:
          WorkError: it failed.
        """
        if self._is_over():
            return False
        environment = dict(os.environ)
        if self.threads:
            for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
                environment[name] = str(self.threads)
            environment["OMP_NUM_THREADS"] = str(self.threads)
        with log.open("a") as file:
            process = subprocess.Popen(
                [*_NICE, *words],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for this process, which tells the others once.
                start_new_session=True,
                pass_fds=[self._lock],
            )
        told = False
        while True:
            try:
                code = process.wait(_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if self._is_over() and not told:
                    told = True
                    process.terminate()
        if code and not told:
            raise WorkError(f"a command failed with exit code {code}; see {log}")
        return code == 0

    def run(self, jobs: Mapping[str, Callable[[], bool]]) -> int:
        """Runs jobs, those first that come first; Ctrl-C and SIGTERM stop them.

        A job that fails does not keep the others from running.

        Args:
          jobs: by a name for messages; each returns whether it ran to its end.

        Returns:
          The exit code: 0 all done or time was up, 1 one failed, 130 interrupted.
        """
        before = {
            number: signal.signal(number, self._interrupt)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        done = failed = 0
        start = time.monotonic()
        try:
            with ThreadPoolExecutor(self._at_a_time) as pool:
                names = {pool.submit(job): name for name, job in jobs.items()}
                for future in as_completed(names):
                    try:
                        ended = future.result()
                    except WorkError as error:
                        failed += 1
                        print(f"{names[future]}: {error}", flush=True)
                        continue
                    if ended:
                        done += 1
                        minutes = (time.monotonic() - start) / 60
                        print(
                            f"{done} of {len(jobs)} after {minutes:.1f} minutes:"
                            f" {names[future]}",
                            flush=True,
                        )
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        left = len(jobs) - done - failed
        if left:
            why = f"stopped by {self._signals[0]}" if self._signals else "time is up"
            print(f"{why}; {left} are left; the same command goes on", flush=True)
        if self._signals:
            return _INTERRUPTED
        return 1 if failed else 0

    def _interrupt(self, number: int, _) -> None:
        self._signals.append(signal.Signals(number).name)
        self._stop.set()
