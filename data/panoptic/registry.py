"""Registered data sets: where their files are and what is particular about them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from cmt.errors import InputError, few
from cmt.io.storage import Location


class Layout(NamedTuple):
    """Where the files of a data set are below its root, and what must be in them.

    In the paths "{split}" stands for the split and "{long}" for its name in
    `long_splits`. `things` and `stuff` count categories; `image_path` is a pattern and
    a replacement that make an image's path of its name in the json, ("", "") if they
    are the same; `category_offset` is added to category ids, which must not be 0.
    """

    images: str
    annotations: str
    masks: str
    things: int
    stuff: int
    long_splits: Mapping[str, str] = {}
    image_path: tuple[str, str] = ("", "")
    category_offset: int = 0
    about: str = ""


LAYOUTS = {
    "coco": Layout(
        images="{split}2017",
        annotations="annotations/panoptic_{split}2017.json",
        masks="annotations/panoptic_{split}2017",
        things=80,
        stuff=53,
        about="COCO 2017 panoptic",
    ),
    "cityscapes": Layout(
        images="leftImg8bit/{split}",
        annotations="gtFine/cityscapes_panoptic_{split}.json",
        masks="gtFine/cityscapes_panoptic_{split}",
        things=8,
        stuff=11,
        # The json names aachen_000000_000019_gtFine_leftImg8bit.png, which is
        # aachen/aachen_000000_000019_leftImg8bit.png.
        image_path=(r"^(([^_/]+)_.*)_gtFine(_leftImg8bit\.\w+)$", r"\2/\1\3"),
        about="Cityscapes in the COCO panoptic format of cityscapesscripts "
        "(csCreatePanopticImgs, with label ids)",
    ),
    "ade20k": Layout(
        images="images/{long}",
        annotations="ade20k_panoptic_{split}.json",
        masks="ade20k_panoptic_{split}",
        things=100,
        stuff=50,
        long_splits={"train": "training", "val": "validation"},
        category_offset=1,
        about="ADE20K (150 classes) in COCO panoptic format, category ids from 0",
    ),
}


class Paths(NamedTuple):
    """A data set in COCO panoptic format: two folders and the json.

    Attributes:
      dataset: registered name, "" for none.
      category_offset: to add to the category ids of the json.
      exif: "apply": images are turned as their EXIF orientation says; "ignore": they
        are taken as stored; "auto": whichever fits the mask, refused if both do.
      strict: what contradicts the PNG, or is missing and can be computed, is a fault.
      things: names or ids of the categories that are things, in place of "isthing"; ()
        for what the json says.
      advice: what to check if a file is not there; "" where three options name the
        paths.
    """

    images: Location
    annotations: Location
    masks: Location
    dataset: str = ""
    category_offset: int = 0
    exif: str = "auto"
    advice: str = ""
    strict: bool = False
    things: tuple[str, ...] = ()


def image_path(dataset: str, file_name: str) -> str:
    """Returns the path, below the images folder, of an image that the json names."""
    pattern, replacement = LAYOUTS[dataset].image_path if dataset else ("", "")
    return re.sub(pattern, replacement, file_name) if pattern else file_name


def shift_categories(content: dict, offset: int) -> None:
    """Adds `offset` to all category ids of a COCO panoptic json.

    What is no list, object or integer is left as it is, for the checks to find.
    """
    lists = [(content.get("categories"), "id")]
    annotations = content.get("annotations")
    for entry in annotations if isinstance(annotations, list) else ():
        if isinstance(entry, dict):
            lists.append((entry.get("segments_info"), "category_id"))
    for entries, key in lists:
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get(key), int):
                entry[key] += offset


def set_things(content: dict, things: Collection[str]) -> None:
    """Sets "isthing" of all categories of a json: 1 for those named, 0 for others.

    Args:
      content: of the json; what is no list or object is left for the checks.
      things: names of categories, or ids as text.

    Raises:
      InputError: no category has one of the names.
    """
    listed = content.get("categories")
    listed = listed if isinstance(listed, list) else []
    categories = [entry for entry in listed if isinstance(entry, dict)]
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
