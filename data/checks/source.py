"""A data set to convert or to check: its json, read, and its files, listed."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from cmt.data.checks.files import FileOptions
from cmt.data.checks.json import JsonCheck
from cmt.data.panoptic.json import parse_json, read_file
from cmt.data.panoptic.registry import (
    Paths,
    class_fault,
    place_images,
    shift_categories,
)
from cmt.errors import InputError
from cmt.io.storage import is_file, is_folder

EXIF_CHOICES = ("auto", "apply", "ignore")


class Source(NamedTuple):
    """A data set whose json has been read.

    Attributes:
      paths: where it is.
      files: where its images and masks are and how they are read.
      check: what the json holds and what is wrong with it; its images with their
        paths.
      shifted: the json with other category ids; None where they are as given.
      annotations_sha256: of the json.
    """

    paths: Paths
    files: FileOptions
    check: JsonCheck
    shifted: dict | None
    annotations_sha256: str


def open_source(paths: Paths, exif: str | None = None) -> Source:
    """Reads the json of a data set.

    Args:
      paths: of the data set.
      exif: one of EXIF_CHOICES; None for what `paths` says, or "auto".

    Raises:
      JsonFault: the json is none.
      InputError: the json or a folder is missing.
    """
    check_paths(paths)
    exif = exif or paths.exif or "auto"
    if exif not in EXIF_CHOICES:
        raise InputError(f"--exif must be one of {EXIF_CHOICES}; got {exif!r}")
    check, shifted, digest = _read(paths)
    check.images = place_images(paths.dataset, check.images)
    return Source(
        paths=paths,
        files=FileOptions(str(paths.images), str(paths.masks), exif, paths.advice),
        check=check,
        shifted=shifted if paths.category_offset else None,
        annotations_sha256=digest,
    )


def _read(paths: Paths) -> tuple[JsonCheck, dict[str, Any], str]:
    """What the json holds, the json with raised category ids, and its SHA-256."""
    data = read_file(paths.annotations)
    digest = hashlib.sha256(data).hexdigest()
    shifted = shift_categories(
        parse_json(paths.annotations, data), paths.category_offset
    )
    del data
    check = JsonCheck(paths.annotations, shifted)
    categories = shifted.get("categories")
    # Else those with a fault would be missing from the count.
    if check.categories and len(check.categories) == len(categories):
        fault = class_fault(paths.dataset, check.categories, paths.annotations)
        check.problems += [fault] if fault else []
    return check, shifted, digest


def check_paths(paths: Paths) -> None:
    """Makes sure that the json and the folders are there.

    Raises:
      InputError: one is not.
    """
    wanted = (
        ("annotations", paths.annotations, is_file, "annotation file"),
        ("images", paths.images, is_folder, "folder"),
        ("masks", paths.masks, is_folder, "folder"),
    )
    for name, path, is_there, what in wanted:
        place = (
            f"{name} of the data set, {path}" if paths.advice else f"--{name} {path}"
        )
        if is_there(path):
            continue
        advice = paths.advice or "check the path"
        if what == "folder" and is_file(path):
            raise InputError(f"{place}: a file, where a folder must be; {advice}")
        if what != "folder" and is_folder(path):
            raise InputError(f"{place}: a folder, where a file must be; {advice}")
        raise InputError(f"{place}: no such {what}; {advice}")
