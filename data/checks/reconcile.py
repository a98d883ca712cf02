"""The files that a json names against those that are there."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Collection
from typing import NamedTuple

from cmt.data.checks.files import FileOptions
from cmt.data.checks.problems import Problem, missing_file
from cmt.data.panoptic.annotations import PanopticImage
from cmt.io.storage import Location, is_file, join, list_files

_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_MASK_ENDINGS = (".png",)
# What to do where a missing file is there under another name.
RENAME = 'make "file_name" in the json and the name of the file the same'


class FileCounts(NamedTuple):
    """How many files there are, and how many fit.

    Attributes:
      image_files: image files in the folders that the json names.
      mask_files: PNG files in the folders that it names.
      missing_images: images that it names and that are not there.
      missing_masks: masks, likewise.
      unused_images: image files that it does not name.
      unused_masks: PNG files, likewise.
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
      unused: a remark on each file that the json does not name, but those that a
        fault says to be there in place of another.
      image_bytes: size of each image, in the order of the entries; None where it is
        missing, or where only a request for each file would tell.
      mask_bytes: of each PNG, likewise.
    """

    counts: FileCounts
    missing: list[Problem]
    unused: list[Problem]
    image_bytes: list[int | None]
    mask_bytes: list[int | None]


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
      mask_names: further masks that it names, likewise.
    """
    images = _Files(
        options.images,
        {entry.image_path for entry in entries} | set(image_names),
        _IMAGE_ENDINGS,
    )
    masks = _Files(
        options.masks,
        {entry.mask_name for entry in entries} | set(mask_names),
        _MASK_ENDINGS,
    )
    # Both may be in one folder.
    unused_images = images.unused(masks.paths)
    unused_masks = masks.unused(images.paths)
    missing = [
        images.missing(entry.image_path, "image", entry, masks.paths, options.advice)
        for entry in entries
        if entry.image_path not in images.found
    ] + [
        masks.missing(entry.mask_name, "mask", entry, images.paths, options.advice)
        for entry in entries
        if entry.mask_name not in masks.found
    ]
    return Reconciliation(
        FileCounts(
            image_files=images.num_found + len(unused_images),
            mask_files=masks.num_found + len(unused_masks),
            missing_images=len(images.paths) - images.num_found,
            missing_masks=len(masks.paths) - masks.num_found,
            unused_images=len(unused_images),
            unused_masks=len(unused_masks),
        ),
        missing,
        _remarks(options.images, unused_images, "image", images.told)
        + _remarks(options.masks, unused_masks, "mask", masks.told),
        [images.found.get(entry.image_path) for entry in entries],
        [masks.found.get(entry.mask_name) for entry in entries],
    )


class _Files:
    """What is in the folders that the names lie in.

    Attributes:
      paths: of the names, in one form.
      found: bytes of those that are there, by name.
      told: files that a fault says to be there in place of another.
    """

    def __init__(self, folder: Location, names: set[str], endings: tuple[str, ...]):
        self._folder = folder
        self._endings = endings
        # One listing of a folder under several names ("a" and "./a").
        self._listings = {
            inner: list_files(join(folder, inner) if inner else folder)
            for inner in {_folder_of(name) for name in names} or {""}
        }
        self._similar: dict[tuple[str, str], list[str]] | None = None
        self.paths = {_path(folder, name) for name in names}
        self.found: dict[str, int | None] = {}
        self.told: set[str] = set()
        # Where the file system does not tell upper from lower case.
        self._under_other_name: set[str] = set()
        for name in names:
            listing = self._listings[_folder_of(name)]
            file = posixpath.basename(name)
            if file in listing:
                self.found[name] = listing[file]
            elif self._alike(name) and is_file(join(folder, name)):
                self.found[name] = None
                self._under_other_name.update(self._alike(name))

    @property
    def num_found(self) -> int:
        """Files that are there and named, each once."""
        return len({_path(self._folder, name) for name in self.found})

    def unused(self, others: set[str]) -> list[str]:
        """The files of the kind that no name stands for, sorted.

        Args:
          others: paths that the json names as something else.
        """
        known = self.paths | others
        names = (
            posixpath.join(inner, file)
            for inner, listing in self._listings.items()
            for file in listing
            # Those of macOS that begin with a point hold no picture.
            if file.lower().endswith(self._endings) and not file.startswith(".")
        )
        return sorted(
            name
            for name in names
            if _path(self._folder, name) not in known
            and name not in self._under_other_name
        )

    def missing(
        self,
        name: str,
        what: str,
        entry: PanopticImage,
        others: set[str],
        advice: str,
    ) -> Problem:
        """The fault of a file that is not there, and what is there in its place.

        Args:
          name: below the folder.
          what: "image" or "mask".
          entry: the image it belongs to.
          others: paths that the json names as something else.
          advice: see `missing_file`.
        """
        given = entry.file_name if what == "image" else entry.mask_name
        path = join(self._folder, name)
        problem = missing_file(path, what, given, entry.file_name, advice)
        known = self.paths | others if self._alike(name) else set()
        alike = [
            other
            for other in self._alike(name)
            if _path(self._folder, other) not in known
        ]
        if alike:
            self.told.update(alike)
            message = f"{problem.message}; there is {', '.join(sorted(alike))}"
            problem = problem._replace(message=message, fix=RENAME)
        return problem

    def _alike(self, name: str) -> list[str]:
        """Names of files there that differ in ending or case alone."""
        if self._similar is None:
            self._similar = {}
            for inner, listing in self._listings.items():
                for file in listing:
                    if file.lower().endswith(self._endings):
                        key = (inner, _plain_stem(file))
                        found = posixpath.join(inner, file)
                        self._similar.setdefault(key, []).append(found)
        return self._similar.get(
            (_folder_of(name), _plain_stem(posixpath.basename(name))), []
        )


def _folder_of(name: str) -> str:
    """The folder of a name, in one form; "" for none."""
    inner = posixpath.normpath(posixpath.dirname(name) or ".")
    return "" if inner == "." else inner


def _path(folder: Location, name: str) -> str:
    """A path in one form, to compare."""
    return posixpath.normpath(join(folder, name))


def _plain_stem(file: str) -> str:
    stem = posixpath.splitext(file)[0]
    return unicodedata.normalize("NFC", stem).casefold()


def _remarks(
    folder: Location, names: list[str], what: str, told: set[str]
) -> list[Problem]:
    return [
        Problem(
            f"{what} file not in json",
            join(folder, name),
            None,
            "the json does not name this file",
            "none needed; if it should be used, give the json that names it",
        )
        for name in names
        if name not in told
    ]
