"""A list whose values wait in a temporary file."""

from __future__ import annotations

import array
import os
import pickle
import tempfile
from collections.abc import Sequence
from typing import TypeVar

Value = TypeVar("Value")


class Spool(Sequence[Value]):
    """A list that grows on disk: in memory a value takes 8 bytes.

    Threads may read it at the same time.
    """

    def __init__(self) -> None:
        # It goes when the list goes.
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._ends = array.array("q", [0])

    def append(self, value: Value) -> None:
        """Adds a value, which is pickled."""
        written = self._file.write(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
        self._ends.append(self._ends[-1] + written)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> Value:
        place = range(len(self))[place]
        start, end = self._ends[place], self._ends[place + 1]
        return pickle.loads(os.pread(self._file.fileno(), end - start, start))
