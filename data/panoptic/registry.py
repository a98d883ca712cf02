"""Data sets that need no three paths: known ones, and any by its manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cmt.data.checks.problems import Problem
from cmt.data.panoptic.annotations import PanopticImage
from cmt.data.panoptic.categories import Category
from cmt.data.records.manifest import Manifest
from cmt.errors import InputError
from cmt.io.storage import Location, join

_MANIFEST_ENDING = ".manifest.json"


class Layout(NamedTuple):
    """Where the files of a data set are below its root, and what must be in them.

    Attributes:
      images: folder; "{split}" stands for the split, "{long}" for its long name.
      annotations: json, likewise.
      masks: folder, likewise.
      things: number of thing categories.
      stuff: number of stuff categories.
      long_splits: long name of each split, where the data set uses one.
      image_path: pattern and replacement that make an image's path of the file name
        that the json has; ("", "") if they are the same.
      category_offset: to add to the category ids, which must not be 0.
      about: what the json has to be.
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
        image_path=(
            r"^(([^_/]+)_.*)_gtFine_leftImg8bit(\.\w+)$",
            r"\2/\1_leftImg8bit\3",
        ),
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
    """A data set in COCO panoptic format.

    Attributes:
      images: folder of the images.
      annotations: the json.
      masks: folder of its PNG files.
      dataset: registered name, "" for none.
      category_offset: to add to the category ids of the json.
      exif: how EXIF orientations are taken; None where nothing says.
      advice: what to check if a file is not there; "" where three options name the
        paths.
    """

    images: Location
    annotations: Location
    masks: Location
    dataset: str = ""
    category_offset: int = 0
    exif: str | None = None
    advice: str = ""


def find_paths(dataset: str, root: Location | None, split: str) -> Paths:
    """The paths of a registered data set, or of the one a manifest was made from.

    Args:
      dataset: a name of LAYOUTS, or the path of a manifest.
      root: folder of a registered data set; None with a manifest.
      split: "train", "val", ...; not used with a manifest.

    Raises:
      InputError: there is no such data set, or no root.
    """
    if dataset.endswith(_MANIFEST_ENDING):
        if root is not None:
            raise InputError(
                f"--root {root}: a manifest names its own folders; leave --root out"
            )
        return _paths_of(Manifest.read(dataset), dataset)
    if dataset not in LAYOUTS:
        raise InputError(
            f"--dataset must be one of {', '.join(sorted(LAYOUTS))} or a path ending "
            f"in {_MANIFEST_ENDING}; got {dataset!r}"
        )
    if root is None:
        raise InputError(f"--dataset {dataset} needs --root, the folder it is in")
    layout = LAYOUTS[dataset]
    words = {"split": split, "long": layout.long_splits.get(split, split)}
    return Paths(
        images=join(root, layout.images.format(**words)),
        annotations=join(root, layout.annotations.format(**words)),
        masks=join(root, layout.masks.format(**words)),
        dataset=dataset,
        category_offset=layout.category_offset,
        advice=f"check --root {root} and --split {split}",
    )


def _paths_of(manifest: Manifest, path: str) -> Paths:
    origin = manifest.origin
    if not (origin.images and origin.annotations):
        raise InputError(
            f"{path}: an older manifest, which does not say where the images are; "
            "give --images, --annotations and --masks"
        )
    return Paths(
        images=origin.images,
        annotations=origin.annotations,
        masks=manifest.masks,
        dataset=origin.dataset,
        category_offset=origin.category_offset,
        exif=origin.exif,
        advice="give --images, --annotations and --masks in place of the manifest",
    )


def class_fault(
    dataset: str, categories: Sequence[Category], annotations: Location
) -> Problem | None:
    """The fault of a json that has not the classes of a registered data set.

    Args:
      dataset: its name; "" for none.
      categories: of the json.
      annotations: the json.
    """
    if not dataset:
        return None
    layout = LAYOUTS[dataset]
    things = sum(category.is_thing for category in categories)
    found = (things, len(categories) - things)
    if found == (layout.things, layout.stuff):
        return None
    return Problem(
        "categories",
        str(annotations),
        None,
        f"--dataset {dataset} must have {layout.things} things and {layout.stuff} "
        f"stuff; got {found[0]} and {found[1]}",
        f"give {layout.about}, or the three paths in place of --dataset",
    )


def place_images(dataset: str, entries: Sequence[PanopticImage]) -> list[PanopticImage]:
    """The entries with the paths their images have in a registered data set."""
    pattern, replacement = LAYOUTS[dataset].image_path if dataset else ("", "")
    if not pattern:
        return list(entries)
    return [
        entry._replace(path=re.sub(pattern, replacement, entry.file_name))
        for entry in entries
    ]


def shift_categories(content: dict, offset: int) -> dict:
    """A COCO panoptic json with `offset` added to all category ids.

    What is no list, object or integer is left as it is, for the checks to find.
    """
    if not offset:
        return content
    shifted = dict(content)
    if isinstance(content.get("categories"), list):
        shifted["categories"] = _shifted(content["categories"], "id", offset)
    if isinstance(content.get("annotations"), list):
        shifted["annotations"] = [
            {**entry, "segments_info": _shifted(infos, "category_id", offset)}
            if isinstance(entry, dict)
            and isinstance(infos := entry.get("segments_info"), list)
            else entry
            for entry in content["annotations"]
        ]
    return shifted


def _shifted(entries: list, key: str, offset: int) -> list:
    return [
        {**entry, key: entry[key] + offset}
        if isinstance(entry, dict) and isinstance(entry.get(key), int)
        else entry
        for entry in entries
    ]
