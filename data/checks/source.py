"""A data set to convert or to check: its json, read, and its files, listed."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from cmt.data.checks.json import JsonCheck
from cmt.data.checks.problems import Found, Kind
from cmt.data.panoptic.amend import complete, set_things, shift_categories
from cmt.data.panoptic.json import parse_json
from cmt.data.panoptic.registry import LAYOUTS, Paths, image_path
from cmt.errors import InputError
from cmt.io.storage import is_file, is_folder, read_bytes


class Source(NamedTuple):
    """A data set whose json has been read and checked.

    `shifted` is the json with other category ids or "isthing", or completed; None where
    it is as it was given.
    """

    paths: Paths
    check: JsonCheck
    shifted: dict | None
    annotations_sha256: str


def open_source(paths: Paths) -> Source:
    """Reads and checks the json of a data set.

    Raises:
      JsonFault: the file holds no json object.
      InputError: the json or a folder is missing.
    """
    _check_paths(paths)
    data = read_bytes(paths.annotations)
    digest = hashlib.sha256(data).hexdigest()
    content = parse_json(paths.annotations, data)
    del data
    found = Found(paths.annotations)
    if not paths.strict:
        complete(content, lambda kind, text: found.count(kind, text, kind.care), paths)
    if paths.category_offset:
        shift_categories(content, paths.category_offset)
    if paths.things:
        set_things(content, paths.things)
    check = JsonCheck(paths.annotations, content, strict=paths.strict)
    check.mended.join(found.mended)
    # Else those with a fault would be missing from the count.
    whole = check.categories and len(check.categories) == len(content["categories"])
    if paths.dataset and whole:
        _check_classes(paths.dataset, check)
    for number, entry in enumerate(check.images):
        path = image_path(paths.dataset, entry.file_name)
        if path != entry.file_name:
            check.images[number] = entry._replace(path=path)
    is_other = paths.category_offset or paths.things or found.mended
    return Source(
        paths=paths,
        check=check,
        shifted=content if is_other else None,
        annotations_sha256=digest,
    )


def _check_classes(dataset: str, check: JsonCheck) -> None:
    """Finds a json that has not the classes of a registered data set."""
    layout = LAYOUTS[dataset]
    things = sum(category.is_thing for category in check.categories)
    stuff = len(check.categories) - things
    if (things, stuff) != (layout.things, layout.stuff):
        rule = f"must have {layout.things} things and {layout.stuff} stuff"
        message = f"--dataset {dataset} {rule}; got {things} and {stuff}"
        fix = f"give {layout.about}, or the three paths in place of --dataset"
        check.add(Kind.CATEGORIES, message, fix)


def _check_paths(paths: Paths) -> None:
    wanted = {"annotations": "file", "images": "folder", "masks": "folder"}
    for name, what in wanted.items():
        path = getattr(paths, name)
        there = "file" if is_file(path) else "folder" if is_folder(path) else ""
        if there == what:
            continue
        reason = f"a {there}, where a {what} must be"
        if not there:
            reason = f"no such {'annotation ' if what == 'file' else ''}{what}"
        place, fix = f"--{name} {path}", "check the path"
        if paths.advice:
            place, fix = f"{name} of the data set, {path}", paths.advice
        raise InputError(f"{place}: {reason}; {fix}")
