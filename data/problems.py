"""What can be wrong with a data set, one record a fault."""

from __future__ import annotations

from typing import Any, NamedTuple


class Problem(NamedTuple):
    """One fault of a data set.

    Attributes:
      kind: a few words, the same for all faults of a kind.
      file: the path it is in.
      segment: id of the segment, None where the fault is not in one.
      message: the rule and what arrived.
      fix: what to do.
    """

    kind: str
    file: str
    segment: int | None
    message: str
    fix: str

    @property
    def line(self) -> str:
        """All of it in one line."""
        segment = "" if self.segment is None else f" segment {self.segment}:"
        return f"{self.file}:{segment} {self.message}; {self.fix}"

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return self._asdict()
