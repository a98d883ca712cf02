"""The files that a json names against those that are there."""

from __future__ import annotations

import functools
import posixpath
import unicodedata
from collections.abc import Collection
from typing import NamedTuple

from cmt.data.checks.files import missing_message
from cmt.data.checks.problems import Kind, Problem
from cmt.data.panoptic.json import PanopticImage
from cmt.data.panoptic.registry import Paths
from cmt.io.images import ENDINGS
from cmt.io.storage import Location, is_file, join, list_files

_ENDINGS = {"image": ENDINGS, "mask": (".png",)}
# From here on, most files missing or unused are one problem: another split's folder.
_MANY = 10


class FileCounts(NamedTuple):
    """Files in the folders that the json names; those missing and those not named."""

    image_files: int
    mask_files: int
    missing_images: int
    missing_masks: int
    unused_images: int
    unused_masks: int


class Reconciliation(NamedTuple):
    """What is there of what is named.

    Attributes:
      missing: a fault for each file of an entry that is not there.
      summary: the same faults, but one where most are alike; and one of a folder of
        which the json names less than half.
      unused: a remark on each other file, unless a fault tells of it.
    """

    counts: FileCounts
    missing: list[Problem]
    summary: list[Problem]
    unused: list[Problem]


def reconcile(
    paths: Paths,
    entries: list[PanopticImage],
    *,
    image_names: Collection[str] = (),
    mask_names: Collection[str] = (),
) -> Reconciliation:
    """Lists the folders and compares names.

    Further names of the json, `image_names` and `mask_names`, are counted; a missing
    one of these is no fault here.
    """
    wanted = [(one.image_path, one.file_name, one.file_name) for one in entries]
    images = _Files("image", paths.images, wanted, image_names)
    wanted = [(one.mask_name, one.mask_name, one.file_name) for one in entries]
    masks = _Files("mask", paths.masks, wanted, mask_names)
    # Both may be in one folder.
    known = images.used | masks.used
    for files in (images, masks):
        files.compare(known, paths.advice)
    return Reconciliation(
        FileCounts(
            image_files=len(images.found) + images.num_unused,
            mask_files=len(masks.found) + masks.num_unused,
            missing_images=len(images.named - images.found),
            missing_masks=len(masks.named - masks.found),
            unused_images=images.num_unused,
            unused_masks=masks.num_unused,
        ),
        missing=images.missing + masks.missing,
        summary=images.summary + masks.summary,
        unused=images.unused + masks.unused,
    )


class _Files:
    """What is in the folders that the names of images, or of masks, lie in.

    `used` are paths that are named, or whose files are there under another name.
    """

    def __init__(
        self, what: str, folder: Location, wanted: list[tuple], names: Collection[str]
    ):
        """Lists the folders; `wanted` has name, name in the json, and image."""
        self._what, self._folder, self._wanted = what, folder, wanted
        names = {*names, *(name for name, _, _ in wanted)}
        self.named = {self._path(name) for name in names}
        # One listing of a folder under several names ("a" and "./a").
        inner = {posixpath.dirname(posixpath.normpath(name)) for name in names} or {""}
        listed = [
            posixpath.join(part, file)
            for part in inner
            for file in list_files(join(folder, part) if part else folder)
        ]
        self.found = self.named.intersection(map(self._path, listed))
        endings = _ENDINGS[what]
        self._of_kind = [name for name in listed if name.lower().endswith(endings)]
        self.used = set(self.named)
        # Where the file system does not tell upper from lower case.
        for name in names:
            alike = [] if self._path(name) in self.found else self._alike(name)
            if alike and is_file(join(folder, name)):
                self.found.add(self._path(name))
                self.used.update(map(self._path, alike))

    def _path(self, name: str) -> str:
        """A path in one form, to compare."""
        return posixpath.normpath(join(self._folder, name))

    @functools.cached_property
    def _by_stem(self) -> dict[tuple[str, str], list[str]]:
        by_stem: dict[tuple[str, str], list[str]] = {}
        for name in sorted(self._of_kind):
            by_stem.setdefault(_plain_stem(name), []).append(name)
        return by_stem

    def _alike(self, name: str) -> list[str]:
        """Names of files there that differ in ending or case alone."""
        return self._by_stem.get(_plain_stem(name), [])

    def compare(self, known: set[str], advice: str) -> None:
        """Finds what is missing, and what is not used: not among the known paths."""
        self.missing: list[Problem] = []
        told: set[str] = set()
        other_names = False
        for name, given, image in self._wanted:
            if self._path(name) in self.found:
                continue
            alike = [one for one in self._alike(name) if self._path(one) not in known]
            # The first alone says whether the files have other names.
            other_names = other_names if self.missing else bool(alike)
            told.update(alike)
            message, fix = missing_message(self._what, given, advice)
            if alike:
                message += f"; there is {', '.join(alike)}"
                fix = 'make "file_name" in the json and the name of the file the same'
            path = join(self._folder, name)
            self.missing.append(Problem(Kind.MISSING, path, None, message, fix, image))
        self.summary = self.missing
        option, folder = f"{self._what}s", str(self._folder)
        fix = advice or f"give --{option} the folder that has them"
        lost, named = len(self.missing), len(self._wanted)
        most = lost == named > 1 or lost > max(named // 2, _MANY)
        if most and not other_names:
            of_them = f"of the {named} {option} that the json names"
            there = (
                f"none {of_them} is" if lost == named else f"{lost} {of_them} are not"
            )
            example = posixpath.relpath(self.missing[0].file, folder)
            message = f"{there} in this folder, such as {example}"
            self.summary = [Problem(Kind.MISSING, folder, None, message, fix)]
        unused = sorted(
            name
            for name in self._of_kind
            # Those of macOS that begin with a point hold no picture.
            if not posixpath.basename(name).startswith(".")
            and self._path(name) not in known
        )
        self.num_unused = len(unused)
        kind = Kind.UNUSED_IMAGE if self._what == "image" else Kind.UNUSED_MASK
        if self.num_unused > max(len(self.found), _MANY):
            message = (
                f"the json names {len(self.found)} of the {option} in this folder and "
                f"not {self.num_unused}, such as {unused[0]}; is it of another split?"
            )
            fix += ", or the json that names all"
            self.summary = [*self.summary, Problem(kind, folder, None, message, fix)]
            told.update(unused)
        fix = "none needed; if it should be used, give the json that names it"
        message = "the json does not name this file"
        self.unused = [
            Problem(kind, join(self._folder, name), None, message, fix)
            for name in unused
            if name not in told
        ]


def _plain_stem(name: str) -> tuple[str, str]:
    """The folder of a name, and its stem without case."""
    folder, file = posixpath.split(posixpath.normpath(name))
    stem = posixpath.splitext(file)[0]
    return folder, unicodedata.normalize("NFC", stem).casefold()
