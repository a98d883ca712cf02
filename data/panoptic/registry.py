"""Registered data sets: where their files are and what is particular about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

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
