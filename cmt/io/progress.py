"""Progress on standard error: a bar for people, plain lines for logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from cmt.io.terminal import console, printable

Item = TypeVar("Item")

_LOG_EVERY_SECONDS = 10.0


def track(
    iterable: Iterable[Item], *, description: str, total: int | None = None
) -> Iterator[Item]:
    """Yields the items and shows how far it is.

    Attached to a terminal it draws a bar with rate and time left; otherwise it
    writes a line every 10 seconds and one at the end.

    Args:
      iterable: what to go through.
      description: a few words in front.
      total: number of items; taken from `len` where it has one.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    description = printable(description)
    show = _bar if sys.stderr.isatty() else _lines
    yield from show(iterable, description, total)


def _bar(
    iterable: Iterable[Item], description: str, total: int | None
) -> Iterator[Item]:
    from rich import progress

    class Rate(progress.ProgressColumn):
        def render(self, task: progress.Task) -> str:
            speed = task.finished_speed or task.speed
            return "" if speed is None else f"{speed:.1f}/s"

    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=20),
        progress.MofNCompleteColumn(),
        Rate(),
        progress.TimeRemainingColumn(),
        console=console(stderr=True),
    ) as bar:
        yield from bar.track(iterable, total=total, description=description)


def _lines(
    iterable: Iterable[Item], description: str, total: int | None
) -> Iterator[Item]:
    start = last = time.monotonic()
    done = 0
    for item in iterable:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= _LOG_EVERY_SECONDS:
            last = now
            print(_line(description, done, total, now - start), file=sys.stderr)
    line = _line(description, done, total, time.monotonic() - start)
    print(f"{line}, done", file=sys.stderr, flush=True)


def _line(description: str, done: int, total: int | None, seconds: float) -> str:
    rate = done / max(seconds, 1e-9)
    if total is None:
        return f"{description}: {done}, {rate:.1f}/s"
    left = f", {(total - done) / rate:.0f} s left" if 0 < done < total else ""
    return f"{description}: {done}/{total}, {rate:.1f}/s{left}"
