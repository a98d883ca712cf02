"""What can be wrong with a data set: one record a problem, and their kinds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cmt.data.panoptic.kinds import Kind, Tally
from cmt.errors import few
from cmt.io.terminal import printable

# Places that a problem shows which many entries have.
_SHOWN_PLACES = 3


class Cause(NamedTuple):
    """The rule that other entries of the json break, too, and the place of this one."""

    rule: str
    place: str


class Problem(NamedTuple):
    """One fault of a data set, or one remark on it.

    Attributes:
      file: the path it is in.
      segment: id of the segment, None where the fault is not in one.
      message, fix: the rule and what arrived; what to do.
      image: the image it concerns, by its name in the json or its place there; None
        where the data set as a whole is at fault.
      cause: None where no other entry can have the problem for the same reason.
    """

    kind: Kind
    file: str
    segment: int | None
    message: str
    fix: str
    image: str | None = None
    cause: Cause | None = None

    @property
    def line(self) -> str:
        """All of it in one line, which can be printed."""
        segment = "" if self.segment is None else f" segment {self.segment}:"
        text = f"{self.file}:{segment} {self.message}; {self.fix}"
        return printable(text)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {key: value for key, value in self._asdict().items() if key != "cause"}


class Found:
    """Collects faults, as `problems`, and what is none but good to know, as `notes`.

    `mended` counts where the json contradicts or lacks what the PNG says, which the
    reader takes from the PNG; with `strict` these are faults.
    """

    def __init__(self, file: object, image: str | None = None, *, strict: bool = False):
        """Starts with nothing, for problems that name no other file or image."""
        self.strict = strict
        self.mended = Tally()
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self._file = str(file)
        self._image = image

    def add(
        self,
        kind: Kind,
        message: str,
        fix: str,
        image: str | None = None,
        segment: int | None = None,
        *,
        file: str | None = None,
        cause: Cause | None = None,
        note: bool = False,
    ) -> None:
        """Adds a problem to the faults, or to the notes; see `Problem`."""
        file, image = file or self._file, image or self._image
        problem = Problem(kind, file, segment, message, fix, image, cause)
        (self.notes if note else self.problems).append(problem)

    def mend(
        self,
        kind: Kind,
        message: str,
        fix: str,
        image: str | None = None,
        segment: int | None = None,
    ) -> None:
        """Counts what the reader takes care of, or adds a problem if it is strict."""
        if self.strict:
            self.add(kind, message, fix, image, segment)
        else:
            self.count(kind, message, kind.care, segment)

    def count(
        self, kind: Kind, message: str, fix: str, segment: int | None = None
    ) -> None:
        """Counts what is no fault; the line of the first time is the example."""
        first = Problem(kind, self._file, segment, message, fix)
        self.mended.add(kind, "" if kind in self.mended else first.line)


def grouped(problems: Sequence[Problem]) -> Iterator[Problem]:
    """Yields problems; those that many entries have for one reason as one.

    What is one of the whole data set can be told once. Conversion wants them one by
    one, to leave out the images that have them.
    """
    groups: dict[Any, list[Problem]] = {}
    keys = [
        (problem.kind, problem.cause.rule, problem.fix) if problem.cause else number
        for number, problem in enumerate(problems)
    ]
    for key, problem in zip(keys, problems, strict=True):
        groups.setdefault(key, []).append(problem)
    for key, problem in zip(keys, problems, strict=True):
        group = groups[key]
        if len(group) <= _SHOWN_PLACES:
            yield problem
        elif problem is group[0]:
            places = few([one.cause.place for one in group[1:]], _SHOWN_PLACES)
            message = f"{problem.message} (and so {len(group) - 1} others: {places})"
            yield problem._replace(message=message, segment=None, image=None)
