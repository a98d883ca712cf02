"""What can be wrong with a data set, one record a fault."""

from __future__ import annotations

from typing import Any, NamedTuple

# The kind of `missing_file`.
MISSING = "missing file"


class Problem(NamedTuple):
    """One fault of a data set, or one remark on it.

    Attributes:
      kind: a few words, the same for all faults of a kind.
      file: the path it is in.
      segment: id of the segment, None where the fault is not in one.
      message: the rule and what arrived.
      fix: what to do.
      image: the image it concerns, by its name in the json or its place there; None
        where the data set as a whole is at fault.
    """

    kind: str
    file: str
    segment: int | None
    message: str
    fix: str
    image: str | None = None

    @property
    def line(self) -> str:
        """All of it in one line."""
        segment = "" if self.segment is None else f" segment {self.segment}:"
        return f"{self.file}:{segment} {self.message}; {self.fix}"

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return self._asdict()


def missing_file(path: str, what: str, name: str, image: str) -> Problem:
    """The fault of a file that the json names and that is not there.

    Args:
      path: where it should be.
      what: "image" or "mask".
      name: as the json has it.
      image: the image it belongs to.
    """
    message = f"no such {what}, though the json names {name}"
    fix = f"put it there or give --{what}s the folder that has it"
    return Problem(MISSING, path, None, message, fix, image)
