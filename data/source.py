"""A data set to convert or to check: its json, read, and its files, listed."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from cmt.data.check_files import FileOptions
from cmt.data.check_json import JsonCheck
from cmt.data.coco import load_json
from cmt.data.registry import Paths, check_classes, place_images, shift_categories
from cmt.data.storage import is_file, is_folder, read_bytes
from cmt.errors import InputError

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


def open_source(
    paths: Paths, exif: str | None = None, content: dict[str, Any] | None = None
) -> Source:
    """Reads the json of a data set.

    Args:
      paths: of the data set.
      exif: one of EXIF_CHOICES; None for what `paths` says, or "auto".
      content: what `load_json` gave for the json; read if None.

    Raises:
      InputError: the json or a folder is missing, the json is none, or the classes
        are not those of the registered data set.
    """
    check_paths(paths)
    exif = exif or paths.exif or "auto"
    if exif not in EXIF_CHOICES:
        raise InputError(f"--exif must be one of {EXIF_CHOICES}; got {exif!r}")
    content = load_json(paths.annotations) if content is None else content
    digest = hashlib.sha256(read_bytes(paths.annotations)).hexdigest()
    shifted = shift_categories(content, paths.category_offset)
    check = JsonCheck(paths.annotations, shifted)
    if all(problem.image is not None for problem in check.problems):
        check_classes(paths.dataset, check.categories, paths.annotations)
    check.images = place_images(paths.dataset, check.images)
    return Source(
        paths=paths,
        files=FileOptions(str(paths.images), str(paths.masks), exif),
        check=check,
        shifted=shifted if paths.category_offset else None,
        annotations_sha256=digest,
    )


def check_paths(paths: Paths) -> None:
    """Makes sure that the json and the folders are there.

    Raises:
      InputError: one is not.
    """
    if not is_file(paths.annotations):
        raise InputError(
            f"--annotations {paths.annotations}: no such annotation file; check the "
            "path"
        )
    for option, folder in (("--images", paths.images), ("--masks", paths.masks)):
        if not is_folder(folder):
            raise InputError(f"{option} {folder}: no such folder; check the path")
