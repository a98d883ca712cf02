"""Amends a json before it is read: other ids and kinds, and what it lacks."""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import Any

from cmt.data.panoptic.registry import Paths
from cmt.errors import InputError, few
from cmt.io.png import is_png
from cmt.io.storage import join, list_files, open_file


def objects(content: Any, key: str) -> list[dict[str, Any]]:
    """The objects in a list of a json, or of an entry; the checks find what is none."""
    entries = content.get(key) if isinstance(content, dict) else None
    entries = entries if isinstance(entries, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def is_below(name: str) -> bool:
    """Whether a file name is a path, and one below the folder of the files."""
    leads_out = posixpath.normpath(name).split("/")[0] == ".."
    return not (leads_out or posixpath.isabs(name) or "://" in name or "\0" in name)


def shift_categories(content: dict[str, Any], offset: int) -> None:
    """Adds `offset` to all category ids of a json."""
    lists = [(objects(content, "categories"), "id")]
    for entry in objects(content, "annotations"):
        lists.append((objects(entry, "segments_info"), "category_id"))
    for entries, key in lists:
        for entry in entries:
            if isinstance(entry.get(key), int):
                entry[key] += offset


def set_things(content: dict[str, Any], things: Collection[str]) -> None:
    """Sets "isthing" of all categories of a json: 1 for those named, 0 for others.

    Args:
      content: of the json.
      things: names of categories, or ids as text.

    Raises:
      InputError: no category has one of the names.
    """
    categories = objects(content, "categories")
    known: set[str] = set()
    for entry in categories:
        names = {str(entry.get("id")), str(entry.get("name"))}
        known |= names
        entry["isthing"] = int(not names.isdisjoint(things))
    unknown = [name for name in things if name not in known]
    if unknown:
        names = [str(entry.get("name", entry.get("id"))) for entry in categories]
        raise InputError(
            f"--things must name categories of the json; got {unknown[0]!r}; there "
            f"are {few(names, 10)}"
        )


def list_images(content: dict[str, Any]) -> bool:
    """Adds "images" to a json that has none, one entry for each annotation.

    An annotation may name its PNG or, as where images have no list, the image; the PNG
    then has the same name with the ending .png.

    Returns:
      Whether the list was made; only where the json has annotations and no "images".
    """
    has_annotations = isinstance(content.get("annotations"), list)
    if content.get("images") is not None or not has_annotations:
        return False
    images = []
    for entry in objects(content, "annotations"):
        name = entry.get("file_name")
        if not (isinstance(name, str) and name and "image_id" in entry):
            continue
        sizes = {key: entry[key] for key in ("height", "width") if key in entry}
        images.append({"id": entry["image_id"], "file_name": name, **sizes})
        entry["file_name"] = _stem(name) + ".png"
    content["images"] = images
    return True


def find_images(content: dict[str, Any], paths: Paths) -> None:
    """Gives each entry that `list_images` made the ending of its file."""
    folders: dict[str, dict[str, list[str]]] = {}
    for image in content["images"]:
        folder = posixpath.dirname(image["file_name"])
        if not is_below(folder):
            continue
        if folder not in folders:
            folders[folder] = {}
            inner = join(paths.images, folder) if folder else paths.images
            for name in sorted(list_files(inner)):
                whole = posixpath.join(folder, name)
                folders[folder].setdefault(_stem(whole), []).append(whole)
        there = folders[folder].get(_stem(image["file_name"]), [])
        if image["file_name"] not in there and len(there) == 1:
            image["file_name"] = there[0]


def fill_sizes(content: dict[str, Any], paths: Paths) -> Iterator[str]:
    """Gives images without height or width those of their PNG; yields their names."""
    masks = {}
    for entry in objects(content, "annotations"):
        if isinstance(entry.get("image_id"), int | str):
            masks.setdefault(entry["image_id"], entry.get("file_name"))
    for image in objects(content, "images"):
        if image.get("height") is not None and image.get("width") is not None:
            continue
        number = image.get("id")
        mask = masks.get(number) if isinstance(number, int | str) else None
        known = isinstance(mask, str) and is_below(mask)
        size = _png_size(paths, mask) if known else None
        if size is not None:
            image.update(width=size[0], height=size[1])
            yield str(image.get("file_name"))


def _png_size(paths: Paths, name: str) -> tuple[int, int] | None:
    """Width and height of a PNG; None where there is none, which the checks tell."""
    try:
        with open_file(join(paths.masks, name)) as file:
            head = file.read(24)
    except (OSError, ValueError):
        return None
    return struct.unpack(">II", head[16:]) if is_png(head) and len(head) == 24 else None


def _stem(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix else name
