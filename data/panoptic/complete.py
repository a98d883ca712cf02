"""A json that lacks its list of images, or sizes: made from annotations and files."""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from cmt.data.panoptic.registry import Paths
from cmt.io.png import is_png
from cmt.io.storage import join, list_files, read_bytes


def list_images(content: dict[str, Any]) -> bool:
    """Adds "images" to a json that has none, one entry for each annotation.

    An annotation may name its PNG or, as where images have no list, the image; the PNG
    then has the same name with the ending .png.

    Returns:
      Whether the list was made; only where the json has annotations and no "images".
    """
    annotations = content.get("annotations")
    if content.get("images") is not None or not isinstance(annotations, list):
        return False
    images = []
    for entry in annotations:
        name = entry.get("file_name") if isinstance(entry, dict) else None
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
        if not _is_below(folder):
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
    for entry in _objects(content, "annotations"):
        if isinstance(entry.get("image_id"), int | str):
            masks.setdefault(entry["image_id"], entry.get("file_name"))
    for image in _objects(content, "images"):
        if image.get("height") is not None and image.get("width") is not None:
            continue
        number = image.get("id")
        mask = masks.get(number) if isinstance(number, int | str) else None
        known = isinstance(mask, str) and _is_below(mask)
        size = _png_size(paths, mask) if known else None
        if size is not None:
            image.update(width=size[0], height=size[1])
            yield str(image.get("file_name"))


def _png_size(paths: Paths, name: str) -> tuple[int, int] | None:
    """Width and height of a PNG; None where there is none, which the checks tell."""
    try:
        head = read_bytes(join(paths.masks, name))[:24]
    except (OSError, ValueError):
        return None
    return struct.unpack(">II", head[16:]) if is_png(head) and len(head) == 24 else None


def _is_below(name: str) -> bool:
    """Whether a name stays in its folder; the checks refuse others."""
    leads_out = posixpath.isabs(name) or "://" in name or ".." in name.split("/")
    return not leads_out and "\0" not in name


def _objects(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    entries = entries if isinstance(entries, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def _stem(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix else name
