"""The files that a json names against those that are there."""

from __future__ import annotations

import posixpath
from typing import NamedTuple

from cmt.data.annotations import PanopticImage
from cmt.data.check_files import FileOptions
from cmt.data.problems import Problem, missing_file
from cmt.data.storage import Location, join, list_files

_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


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
      missing: a fault for each file that is not there.
      unused: a remark on each file that the json does not name.
      image_bytes: size of each image, in the order of the entries; None where it is
        missing, or where only a request for each file would tell.
      mask_bytes: of each PNG, likewise.
    """

    counts: FileCounts
    missing: list[Problem]
    unused: list[Problem]
    image_bytes: list[int | None]
    mask_bytes: list[int | None]


def reconcile(options: FileOptions, entries: list[PanopticImage]) -> Reconciliation:
    """Lists the folders and compares names."""
    image_names = {entry.image_path for entry in entries}
    mask_names = {entry.mask_name for entry in entries}
    images = _listing(options.images, image_names, _IMAGE_ENDINGS)
    masks = _listing(options.masks, mask_names, (".png",))
    missing_images = [entry for entry in entries if entry.image_path not in images]
    missing_masks = [entry for entry in entries if entry.mask_name not in masks]
    unused_images = sorted(set(images) - image_names)
    unused_masks = sorted(set(masks) - mask_names)
    missing = [
        missing_file(
            join(options.images, entry.image_path),
            "image",
            entry.file_name,
            entry.file_name,
        )
        for entry in missing_images
    ] + [
        missing_file(
            join(options.masks, entry.mask_name),
            "mask",
            entry.mask_name,
            entry.file_name,
        )
        for entry in missing_masks
    ]
    return Reconciliation(
        FileCounts(
            image_files=len(images),
            mask_files=len(masks),
            missing_images=len(missing_images),
            missing_masks=len(missing_masks),
            unused_images=len(unused_images),
            unused_masks=len(unused_masks),
        ),
        missing,
        _unused(options.images, unused_images, "image")
        + _unused(options.masks, unused_masks, "mask"),
        [images.get(entry.image_path) for entry in entries],
        [masks.get(entry.mask_name) for entry in entries],
    )


def _listing(
    folder: Location, names: set[str], endings: tuple[str, ...]
) -> dict[str, int | None]:
    """Bytes of the files in the folders that the names lie in, by name.

    Files that are not named count if they end like one of the kind.
    """
    found = {}
    for inner in {posixpath.dirname(name) for name in names}:
        for file, size in list_files(join(folder, inner) if inner else folder).items():
            name = posixpath.join(inner, file)
            if name in names or file.lower().endswith(endings):
                found[name] = size
    return found


def _unused(folder: Location, names: list[str], what: str) -> list[Problem]:
    return [
        Problem(
            f"{what} file not in json",
            join(folder, name),
            None,
            "the json does not name this file",
            "none needed; if it should be used, give the json that names it",
        )
        for name in names
    ]
