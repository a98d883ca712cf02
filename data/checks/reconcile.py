"""The files that a json names against those that are there."""

from __future__ import annotations

import functools
import posixpath
import unicodedata
from collections.abc import Collection, Iterable
from typing import NamedTuple

from cmt.data.checks.files import FileOptions, missing_message
from cmt.data.checks.problems import Kind, Problem
from cmt.data.panoptic.json import PanopticImage
from cmt.io.storage import Location, is_file, join, list_files

_ENDINGS = {
    "image": (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    "mask": (".png",),
}
_UNUSED = {"image": Kind.UNUSED_IMAGE, "mask": Kind.UNUSED_MASK}


class FileCounts(NamedTuple):
    """How many files there are, and how many fit.

    Attributes:
      image_files: image files in the folders that the json names.
      mask_files: PNG files in the folders that it names.
      missing_images: images that it names and that are not there.
      missing_masks: masks that it names and that are not there.
      unused_images: image files that it does not name.
      unused_masks: PNG files that it does not name.
    """

    image_files: int
    mask_files: int
    missing_images: int
    missing_masks: int
    unused_images: int
    unused_masks: int


class Reconciliation(NamedTuple):
    """What is there of what is named.

    Attributes:
      counts: of files.
      missing: a fault for each file of an entry that is not there.
      summary: the same faults; of a folder that has none of its files, one.
      unused: a remark on each file that the json does not name, but those that a
        fault says to be there in place of another.
    """

    counts: FileCounts
    missing: list[Problem]
    summary: list[Problem]
    unused: list[Problem]


def reconcile(
    options: FileOptions,
    entries: list[PanopticImage],
    *,
    image_names: Collection[str] = (),
    mask_names: Collection[str] = (),
) -> Reconciliation:
    """Lists the folders and compares names.

    Args:
      options: where the files are.
      entries: the images.
      image_names: further images that the json names, below the images folder. They
        are counted; a missing one is no fault here.
      mask_names: further masks that it names, below the masks folder.
    """
    image_paths = [entry.image_path for entry in entries]
    mask_paths = [entry.mask_name for entry in entries]
    images = _Files("image", options.images, {*image_paths, *image_names})
    masks = _Files("mask", options.masks, {*mask_paths, *mask_names})
    # Both may be in one folder.
    known = images.named | masks.named
    unused_images, unused_masks = images.unused(known), masks.unused(known)
    counts = FileCounts(
        image_files=len(images.found) + len(unused_images),
        mask_files=len(masks.found) + len(unused_masks),
        missing_images=len(images.named - images.found),
        missing_masks=len(masks.named - masks.found),
        unused_images=len(unused_images),
        unused_masks=len(unused_masks),
    )
    reconciled = Reconciliation(counts, [], [], [])
    for files, paths, unused in (
        (images, image_paths, unused_images),
        (masks, mask_paths, unused_masks),
    ):
        alike = files.missing(paths, known)
        problems = [
            files.problem(path, alike[path], entry, options.advice)
            for path, entry in zip(paths, entries, strict=True)
            if path in alike
        ]
        reconciled.missing.extend(problems)
        # The first would say what is there in place of it.
        if 2 <= len(problems) == len(entries) and not alike[paths[0]]:
            problems = [files.all_missing(len(problems), paths[0], options.advice)]
        reconciled.summary.extend(problems)
        told = {name for names in alike.values() for name in names}
        reconciled.unused.extend(
            files.remark(name) for name in unused if name not in told
        )
    return reconciled


class _Files:
    """What is in the folders that the names lie in.

    Attributes:
      named: paths of the names, in one form.
      found: those of them that are there.
    """

    def __init__(self, what: str, folder: Location, names: set[str]):
        self._what = what
        self._folder = folder
        self.named = {self._path(name) for name in names}
        # One listing of a folder under several names ("a" and "./a").
        inner = {posixpath.dirname(posixpath.normpath(name)) for name in names} or {""}
        self._listed = [
            posixpath.join(part, file)
            for part in inner
            for file in list_files(join(folder, part) if part else folder)
        ]
        self.found = self.named.intersection(map(self._path, self._listed))
        # Where the file system does not tell upper from lower case.
        self._under_other_name: set[str] = set()
        for name in names:
            if self._path(name) not in self.found and self._is_there(name):
                self.found.add(self._path(name))
                self._under_other_name.update(self._alike(name))

    def _path(self, name: str) -> str:
        """A path in one form, to compare."""
        return posixpath.normpath(join(self._folder, name))

    def _is_there(self, name: str) -> bool:
        return bool(self._alike(name)) and is_file(join(self._folder, name))

    @functools.cached_property
    def _of_kind(self) -> list[str]:
        """Names of the files there that are images or masks by their ending."""
        endings = _ENDINGS[self._what]
        return [name for name in self._listed if name.lower().endswith(endings)]

    @functools.cached_property
    def _by_stem(self) -> dict[tuple[str, str], list[str]]:
        by_stem: dict[tuple[str, str], list[str]] = {}
        for name in self._of_kind:
            by_stem.setdefault(_plain_stem(name), []).append(name)
        return by_stem

    def _alike(self, name: str) -> list[str]:
        """Names of files there that differ in ending or case alone."""
        return self._by_stem.get(_plain_stem(name), [])

    def unused(self, known: set[str]) -> list[str]:
        """The files of the kind that no name stands for, sorted.

        Args:
          known: paths that the json names.
        """
        return sorted(
            name
            for name in self._of_kind
            # Those of macOS that begin with a point hold no picture.
            if not posixpath.basename(name).startswith(".")
            and self._path(name) not in known
            and name not in self._under_other_name
        )

    def remark(self, name: str) -> Problem:
        """The remark on an unused file."""
        return Problem(
            _UNUSED[self._what],
            join(self._folder, name),
            None,
            "the json does not name this file",
            "none needed; if it should be used, give the json that names it",
        )

    def missing(self, names: Iterable[str], known: set[str]) -> dict[str, list[str]]:
        """The names that are not there, each with what is there in its place.

        Args:
          names: to look at.
          known: paths that the json names.
        """
        return {
            name: [
                other
                for other in sorted(self._alike(name))
                if self._path(other) not in known
            ]
            for name in names
            if self._path(name) not in self.found
        }

    def problem(
        self, name: str, alike: list[str], entry: PanopticImage, advice: str
    ) -> Problem:
        """The fault of a file that is not there.

        Args:
          name: of the file, below the folder.
          alike: what is there in its place.
          entry: the image it belongs to.
          advice: see `FileOptions`.
        """
        given = entry.file_name if self._what == "image" else entry.mask_name
        message, fix = missing_message(self._what, given, advice)
        if alike:
            message += f"; there is {', '.join(alike)}"
            fix = 'make "file_name" in the json and the name of the file the same'
        path = join(self._folder, name)
        return Problem(Kind.MISSING, path, None, message, fix, entry.file_name)

    def all_missing(self, count: int, example: str, advice: str) -> Problem:
        """The one fault of a folder that has none of the files."""
        option = f"{self._what}s"
        return Problem(
            Kind.MISSING,
            str(self._folder),
            None,
            f"none of the {count} {option} that the json names is in this folder, such "
            f"as {example}",
            advice or f"give --{option} the folder that has them",
        )


def _plain_stem(name: str) -> tuple[str, str]:
    """The folder of a name, and its stem without case."""
    folder, file = posixpath.split(posixpath.normpath(name))
    stem = posixpath.splitext(file)[0]
    return folder, unicodedata.normalize("NFC", stem).casefold()
