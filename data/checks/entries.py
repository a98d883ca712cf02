"""What the checks of the entries of a json share."""

from __future__ import annotations

import posixpath
import reprlib
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from cmt.data.checks.problems import Problem, is_printable
from cmt.data.panoptic.annotations import ImageId

STRUCTURE = "json structure"
FILE_NAME = "file name"
# Of a file name, in bytes; most file systems take no more in one part.
_LONGEST_NAME, _LONGEST_PART = 1024, 255
# Places that a problem shows which many entries have.
_SHOWN_PLACES = 3


class Cause(NamedTuple):
    """What a problem has in common with those of other entries.

    Attributes:
      rule: the same for all of them.
      place: of this one in the json.
    """

    rule: str
    place: str


class EntryCheck:
    """Collects the problems and notes of a json.

    Attributes:
      problems: all faults found; those of one image name it.
      notes: what is no fault but good to know.
      causes: of the problems that many entries may have for one reason.
    """

    def __init__(self, path: str):
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self.causes: dict[Problem, Cause] = {}
        self._path = path

    def _add(
        self,
        kind: str,
        message: str,
        fix: str,
        image: str | None = None,
        segment: int | None = None,
        *,
        cause: Cause | None = None,
    ) -> None:
        problem = Problem(kind, self._path, segment, message, fix, image)
        self.problems.append(problem)
        if cause is not None:
            self.causes[problem] = cause

    def _fields(self, entry: Any, where: str, image: str, **wanted: Any) -> bool:
        """Whether `entry` is an object with values of these types; else notes it."""
        if not isinstance(entry, dict):
            arrived = type(entry).__name__
            self._add(
                STRUCTURE,
                f"{where} must be an object; got {arrived}",
                "write it as COCO does",
                image,
                cause=Cause("object", where),
            )
            return False
        fine = True
        for key, kind in wanted.items():
            value = entry.get(key)
            # Called for each number of the json, and most are right.
            if type(value) is not int and not is_of(value, kind):
                fine = False
                arrived = shown(entry[key]) if key in entry else "nothing"
                what = "an integer" if kind is int else "an integer or a name"
                self._add(
                    STRUCTURE,
                    f'{where}: "{key}" must be {what}; got {arrived}',
                    "correct it" if key in entry else "add it",
                    image,
                    cause=Cause(key, where),
                )
        return fine

    def _file_name(self, entry: dict[str, Any], where: str) -> bool:
        name = entry.get("file_name")
        if not (isinstance(name, str) and PurePosixPath(name).name):
            self._add(
                STRUCTURE,
                f'{where}: "file_name" must name a file; got {shown(name)}',
                "correct it" if name else "add it",
                where,
                cause=Cause("file_name", where),
            )
            return False
        fault = _name_fault(name)
        if fault is not None:
            rule, fix = fault
            self._add(
                FILE_NAME,
                f'{where}: "file_name" must {rule}; got {_shortened(name)}',
                fix,
                where,
                cause=Cause(rule, where),
            )
        return fault is None

    def _duplicate(
        self, seen: set, value: Any, what: str, image: str, fix: str
    ) -> bool:
        if value not in seen:
            seen.add(value)
            return False
        self._add(
            "duplicate",
            f"{what} {value!r} occurs twice",
            f"{fix}; if both say the same, leave one out",
            image,
        )
        return True


def _name_fault(name: str) -> tuple[str, str] | None:
    """What a file name must and does not, and the fix."""
    parts = [len(part.encode("utf-8", "replace")) for part in name.split("/")]
    if not is_printable(name):
        return "have no control characters", "rename the file, and correct the json"
    if "\\" in name:
        return "have no \\ (a path of Windows)", "write / between its folders"
    plain = posixpath.normpath(name)
    if posixpath.isabs(name) or "://" in name or plain.split("/")[0] == "..":
        return (
            "lie below the folder of the images or masks",
            "make it relative to that folder",
        )
    if sum(parts) + len(parts) > _LONGEST_NAME or max(parts) > _LONGEST_PART:
        return (
            f"have at most {_LONGEST_NAME} bytes, and {_LONGEST_PART} between two /",
            "shorten it, and the name of the file",
        )
    return None


def _shortened(name: str) -> str:
    text = ascii(name)
    return text if len(text) <= 80 else f"{text[:60]}... of {len(name)} characters"


# A value in one line; a long or deep one without its middle.
shown = reprlib.repr


def is_of(value: Any, kind: Any) -> bool:
    """`isinstance`, but true and false are no numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)


def id_of(entry: Any, key: str = "id") -> ImageId | None:
    """The id of an entry; None if it has none that can be one."""
    number = entry.get(key) if isinstance(entry, dict) else None
    return number if type(number) is int or is_of(number, ImageId) else None


def segments_of(annotation: Any) -> list[dict[str, Any]]:
    """What can be read of the "segments_info" of an annotation."""
    infos = annotation.get("segments_info") if isinstance(annotation, dict) else None
    if not isinstance(infos, list):
        return []
    return [info for info in infos if isinstance(info, dict)]


def grouped(check: EntryCheck) -> list[Problem]:
    """The problems of a check; those that many entries have for one reason as one.

    What is one of the whole data set can be told once. Conversion wants them one by
    one, to leave out the images that have them.
    """
    alike: dict[tuple[str, str, str], list[Problem]] = {}
    for problem, cause in check.causes.items():
        alike.setdefault((problem.kind, cause.rule, problem.fix), []).append(problem)
    first = {group[0]: group for group in alike.values() if len(group) > _SHOWN_PLACES}
    others = {problem for group in first.values() for problem in group[1:]}
    return [
        _as_one(first[problem], check.causes) if problem in first else problem
        for problem in check.problems
        if problem not in others
    ]


def _as_one(group: list[Problem], causes: dict[Problem, Cause]) -> Problem:
    places = [causes[problem].place for problem in group[1 : _SHOWN_PLACES + 1]]
    more = len(group) - 1 - len(places)
    end = f" and {more} more" if more else ""
    message = (
        f"{group[0].message} (and so {len(group) - 1} others: {', '.join(places)}{end})"
    )
    return group[0]._replace(message=message, segment=None, image=None)
