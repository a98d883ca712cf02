"""What the checks of the entries of a json share."""

from __future__ import annotations

import posixpath
from pathlib import PurePosixPath
from typing import Any

from cmt.data.checks.problems import Cause, Found, Kind, is_printable
from cmt.data.panoptic.json import ImageId, shown

# Of a file name, in bytes; most file systems take no more in one part.
_LONGEST_NAME, _LONGEST_PART = 1024, 255


class EntryCheck(Found):
    """Collects the problems of a json; those that many entries may have say why."""

    def fields(self, entry: Any, where: str, image: str | None, **wanted: Any) -> bool:
        """Checks the types of what an entry holds.

        Args:
          entry: should be an object.
          where: its place in the json.
          image: that it belongs to; None for what belongs to all.
          **wanted: type of each key, `int` or `ImageId`.

        Returns:
          Whether all are right.
        """
        if not isinstance(entry, dict):
            self.add(
                Kind.STRUCTURE,
                f"{where} must be an object; got {type(entry).__name__}",
                "write it as COCO does",
                image,
                cause=Cause("object", where) if image else None,
            )
            return False
        fine = True
        for key, kind in wanted.items():
            value = entry.get(key)
            # Called for each number of the json, and most are right.
            if type(value) is int or is_of(value, kind):
                continue
            fine = False
            arrived, fix = "nothing", "add it"
            if key in entry:
                arrived, fix = shown(value), "correct it"
            what = "an integer" if kind is int else "an integer or a name"
            message = f'{where}: "{key}" must be {what}; got {arrived}'
            cause = Cause(key, where) if image else None
            self.add(Kind.STRUCTURE, message, fix, image, cause=cause)
        return fine

    def file_name(self, entry: dict[str, Any], where: str) -> bool:
        """Checks the "file_name" of an entry; returns whether it can be used."""
        name = entry.get("file_name")
        if isinstance(name, str) and PurePosixPath(name).name:
            kind, fault, arrived = Kind.FILE_NAME, _name_fault(name), ascii(name)
            if len(arrived) > 80:
                arrived = f"{arrived[:60]}... of {len(name)} characters"
        else:
            kind, arrived = Kind.STRUCTURE, shown(name)
            fault = ("name a file", "correct it" if name else "add it")
        if fault is None:
            return True
        rule, fix = fault
        message = f'{where}: "file_name" must {rule}; got {arrived}'
        self.add(kind, message, fix, where, cause=Cause(rule, where))
        return False

    def is_repeated(
        self, seen: set, value: Any, what: str, fix: str, image: str | None = None
    ) -> bool:
        """Checks that a value is new, and adds it to those seen.

        Args:
          seen: the values before.
          value: the value that should differ from them.
          what: what the value is.
          fix: what to do if it is not new.
          image: the image that it belongs to.
        """
        if value not in seen:
            seen.add(value)
            return False
        fix = f"{fix}; if both say the same, leave one out"
        self.add(Kind.DUPLICATE, f"{what} {value!r} occurs twice", fix, image)
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
        rule = "lie below the folder of the images or masks"
        return rule, "make it relative to that folder"
    if sum(parts) + len(parts) > _LONGEST_NAME or max(parts) > _LONGEST_PART:
        rule = f"have at most {_LONGEST_NAME} bytes, and {_LONGEST_PART} between two /"
        return rule, "shorten it, and the name of the file"
    return None


def is_of(value: Any, kind: Any) -> bool:
    """`isinstance`, but true and false are no numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)


def id_of(entry: Any, key: str = "id") -> ImageId | None:
    """Returns the id of an entry; None if it has none that can be one."""
    number = entry.get(key) if isinstance(entry, dict) else None
    return number if type(number) is int or is_of(number, ImageId) else None
