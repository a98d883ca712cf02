"""What can be wrong with a data set, one record a fault."""

from __future__ import annotations

import unicodedata
from typing import Any, NamedTuple

# The kind of `missing_file`.
MISSING = "missing file"
# Control characters, halves of characters, and what ends a line.
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


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
        """All of it in one line, which can be printed."""
        segment = "" if self.segment is None else f" segment {self.segment}:"
        text = f"{self.file}:{segment} {self.message}; {self.fix}"
        if is_printable(text):
            return text
        return "".join(
            char if is_printable(char) else char.encode("unicode_escape").decode()
            for char in text
        )

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return self._asdict()


def is_printable(text: str) -> bool:
    """Whether a text stays in its line, and is one that files and terminals take."""
    return text.isprintable() or not any(
        unicodedata.category(char) in _UNPRINTABLE for char in text
    )


def missing_file(
    path: str, what: str, name: str, image: str, advice: str = ""
) -> Problem:
    """The fault of a file that the json names and that is not there.

    Args:
      path: where it should be.
      what: "image" or "mask".
      name: as the json has it.
      image: the image it belongs to.
      advice: where else to look; "" for the option that names the folder.
    """
    message = f"no such {what}, though the json names {name}"
    advice = advice or f"give --{what}s the folder that has it"
    fix = f"put it there or {advice}"
    return Problem(MISSING, path, None, message, fix, image)
