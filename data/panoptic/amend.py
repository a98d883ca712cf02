"""Amends a json before it is read: other ids and kinds, and what it lacks."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection
from typing import Any

from cmt.data.panoptic.kinds import Kind
from cmt.data.panoptic.registry import Paths
from cmt.errors import InputError, few
from cmt.io.images import ENDINGS
from cmt.io.png import png_size
from cmt.io.storage import is_below, join, list_files

# Takes what was amended, and where.
Note = Callable[[Kind, str], None]
_SEGMENTS = "segments_info"
# The keys of integers in the lists of a json, and how tools write them, too.
_INTEGERS = {
    "categories": ("id", "isthing"),
    "images": ("height", "width"),
    _SEGMENTS: ("id", "category_id", "iscrowd"),
}
_INTEGER = re.compile(r"[0-9]{1,15}(\.0)?")


def objects(content: Any, key: str) -> list[dict[str, Any]]:
    """The objects in a list of a json, or of an entry; the checks find what is none."""
    entries = content.get(key) if isinstance(content, dict) else None
    entries = entries if isinstance(entries, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def _entries(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Those of a list, or of the lists of segments of all annotations."""
    if key != _SEGMENTS:
        return objects(content, key)
    return [o for a in objects(content, "annotations") for o in objects(a, key)]


def shift_categories(content: dict[str, Any], offset: int) -> None:
    """Adds `offset` to all category ids of a json."""
    for key, name in (("categories", "id"), (_SEGMENTS, "category_id")):
        for entry in _entries(content, key):
            if isinstance(entry.get(name), int):
                entry[name] += offset


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


def complete(
    content: dict[str, Any], note: Note = lambda *_: None, paths: Paths | None = None
) -> None:
    """Completes a json as far as there is one way to; calls `note` for each change.

    Without the paths of the data set nothing changes that needs a look at its files.
    """
    _make_integers(content, note)
    _name_files(content, note)
    if paths is not None:
        # Names of a registered data set need not be those of its files.
        for key in () if paths.dataset else ("images", "annotations"):
            _find_files(content, key, paths, note)
        _fill_sizes(content, paths, note)


def _make_integers(content: dict[str, Any], note: Note) -> None:
    """Makes integers of floats and texts that are ones; ids of images may be names."""
    for key, names in _INTEGERS.items():
        for entry in _entries(content, key):
            for name in names:
                value = entry.get(name)
                # Called for each number of the json, and most are right.
                if type(value) is int or not isinstance(value, str | float):
                    continue
                if _INTEGER.fullmatch(str(value)):
                    entry[name] = int(float(value))
                    note(Kind.NOT_INTEGER, f'{key}: "{name}" is {value!r}')


def _name_files(content: dict[str, Any], note: Note) -> None:
    """Names the PNGs of annotations, and the images where the json has no list.

    Without a list an annotation may name its PNG or the image; the PNG has the same
    name with the ending .png.
    """
    annotations, images = objects(content, "annotations"), objects(content, "images")
    for entry in (*annotations, *images):
        name = entry.get("file_name")
        if isinstance(name, str) and "\\" in name:
            entry["file_name"] = name.replace("\\", "/")
            note(Kind.FILE_NAME, f'"file_name" is {name!r:.80}')
    if content.get("images") is None and isinstance(content.get("annotations"), list):
        note(Kind.NO_IMAGE_LIST, 'there is no "images"')
        content["images"] = images
        for entry in annotations:
            name = entry.get("file_name")
            if not (isinstance(name, str) and name and "image_id" in entry):
                continue
            sizes = {key: entry[key] for key in ("height", "width") if key in entry}
            images.append({"id": entry["image_id"], "file_name": name, **sizes})
            entry["file_name"] = _stem(name) + ".png"
    names = {_id(image, "id"): image.get("file_name") for image in images}
    for entry in annotations:
        name = names.get(_id(entry, "image_id"))
        if entry.get("file_name") is None and isinstance(name, str) and name:
            entry["file_name"] = _stem(name) + ".png"
            note(Kind.FILE_NAME, f"the annotation of {name} names no PNG")


def _find_files(content: dict[str, Any], key: str, paths: Paths, note: Note) -> None:
    """Gives a file that is not there the name of the one with another ending."""
    folder, endings = paths.masks, (".png",)
    if key == "images":
        # In one folder, an image that is not there must not become its mask.
        endings = ENDINGS if folder != paths.images else ()
        folder = paths.images
    listed: dict[str, dict[str, list[str]]] = {}
    outermost = list_files(folder)
    for entry in objects(content, key):
        name = entry.get("file_name")
        # Most files are there.
        if not isinstance(name, str) or name in outermost:
            continue
        inner, file = posixpath.split(name)
        if inner not in listed:
            listed[inner] = {}
            place = join(folder, inner) if inner else folder
            for one in list_files(place) if is_below(name) else ():
                listed[inner].setdefault(_stem(one), []).append(one)
        there = listed[inner].get(_stem(file), [])
        if file not in there and len(there) == 1 and there[0].lower().endswith(endings):
            entry["file_name"] = posixpath.join(inner, there[0])
            note(Kind.FILE_NAME, f"{name} is not there, but {there[0]} is")


def _fill_sizes(content: dict[str, Any], paths: Paths, note: Note) -> None:
    """Gives images without height or width those of their PNG."""
    annotations = objects(content, "annotations")
    masks = {_id(entry, "image_id"): entry.get("file_name") for entry in annotations}
    for image in objects(content, "images"):
        if image.get("height") is not None and image.get("width") is not None:
            continue
        mask = masks.get(_id(image, "id"))
        is_name = isinstance(mask, str) and is_below(mask)
        size = png_size(join(paths.masks, mask)) if is_name else None
        if size is not None:
            image.update(width=size[0], height=size[1])
            note(Kind.NO_SIZE, f'{image.get("file_name")} has no "height" and "width"')


def _id(entry: dict[str, Any], key: str) -> Any:
    """An id of an image; a list or an object is none."""
    number = entry.get(key)
    return number if isinstance(number, int | str) else None


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]
