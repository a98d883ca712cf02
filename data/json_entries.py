"""What the checks of the entries of a json share."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from cmt.data.annotations import ImageId
from cmt.data.problems import Problem

STRUCTURE = "json structure"


class EntryCheck:
    """Collects the problems and notes of a json.

    Attributes:
      problems: all faults found; those of one image name it.
      notes: what is no fault but good to know.
    """

    def __init__(self, path: str):
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self._path = path

    def _add(
        self,
        kind: str,
        message: str,
        fix: str,
        image: str | None = None,
        segment: int | None = None,
    ) -> None:
        self.problems.append(Problem(kind, self._path, segment, message, fix, image))

    def _fields(self, entry: Any, where: str, image: str, **wanted: Any) -> bool:
        """Whether `entry` is an object with values of these types; else notes it."""
        if not isinstance(entry, dict):
            arrived = type(entry).__name__
            self._add(
                STRUCTURE,
                f"{where} must be an object; got {arrived}",
                "write it as COCO does",
                image,
            )
            return False
        fine = True
        for key, kind in wanted.items():
            if not isinstance(entry.get(key), kind):
                fine = False
                arrived = repr(entry[key]) if key in entry else "nothing"
                what = "an integer" if kind is int else "an integer or a name"
                self._add(
                    STRUCTURE,
                    f'{where}: "{key}" must be {what}; got {arrived}',
                    "correct it" if key in entry else "add it",
                    image,
                )
        return fine

    def _file_name(self, entry: dict[str, Any], where: str) -> bool:
        name = entry.get("file_name")
        if isinstance(name, str) and PurePosixPath(name).name:
            return True
        self._add(
            STRUCTURE,
            f'{where}: "file_name" must name a file; got {name!r}',
            "add it",
            where,
        )
        return False

    def _duplicate(self, seen: set, value: Any, what: str, image: str) -> bool:
        if value not in seen:
            seen.add(value)
            return False
        self._add(
            "duplicate",
            f"{what} {value!r} occurs twice",
            "rename one; if both say the same, leave one out",
            image,
        )
        return True


def id_of(entry: Any, key: str = "id") -> ImageId | None:
    """The id of an entry; None if it has none that can be one."""
    number = entry.get(key) if isinstance(entry, dict) else None
    return number if isinstance(number, ImageId) else None


def segments_of(annotation: Any) -> list[dict[str, Any]]:
    """What can be read of the "segments_info" of an annotation."""
    infos = annotation.get("segments_info") if isinstance(annotation, dict) else None
    if not isinstance(infos, list):
        return []
    return [info for info in infos if isinstance(info, dict)]
