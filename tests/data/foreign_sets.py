"""Data sets as the tools write them that people have their data from.

Each function takes the scenes of a split as our own tool wrote them and changes json
and PNGs, in place, into what another tool would have made of the same pictures. Truth
stays what it was, so conversion must give the records of the scenes as they were.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from cmt.data.panoptic.masks import read_ids, write_ids

Sources = dict[str, pathlib.Path]


def _change(
    sources: Sources, change: Callable[[dict[str, Any], np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """Passes each annotation with its ids to `change`; returns the json."""
    content = json.loads(sources["annotations"].read_text())
    for annotation in content["annotations"]:
        path = sources["masks"] / annotation["file_name"]
        write_ids(path, change(annotation, read_ids(path)))
    return content


def _write(sources: Sources, content: dict[str, Any]) -> None:
    sources["annotations"].write_text(json.dumps(content))


def ade20k(sources: Sources) -> None:
    """Mask2Former's script: stuff is measured, then things are drawn over it.

    What they cover wholly stays in the json. Images and annotations have names as ids.
    """

    def change(annotation: dict[str, Any], ids: np.ndarray) -> np.ndarray:
        infos = annotation["segments_info"]
        for info in infos:
            info.update(area=info["area"] + 40, iscrowd=0)
        covered = {**infos[0], "id": 2**24 - 2, "area": 77}
        annotation["segments_info"] = [covered, *infos]
        annotation["image_id"] = pathlib.Path(annotation["file_name"]).stem
        return ids

    content = _change(sources, change)
    for image in content["images"]:
        image["id"] = pathlib.Path(image["file_name"]).stem
    for entry in content["categories"]:
        entry.pop("supercategory", None)
    _write(sources, content)


def cvat(sources: Sources) -> None:
    """CVAT and Datumaro: ids 1, 2, ..., floats, boxes one too small, no things."""

    def change(annotation: dict[str, Any], ids: np.ndarray) -> np.ndarray:
        numbered = np.zeros_like(ids)
        for number, info in enumerate(annotation["segments_info"], 1):
            numbered[ids == info["id"]] = number
            x, y, width, height = map(float, info["bbox"])
            info.update(
                id=number, area=float(info["area"]), bbox=[x, y, width - 1, height - 1]
            )
        return numbered

    content = _change(sources, change)
    for entry in content["categories"]:
        entry.update(isthing=0, supercategory="")
    for image in content["images"]:
        image.update(license=0, flickr_url="", coco_url="", date_captured=0)
    _write(sources, content)


def two_channels(sources: Sources) -> None:
    """panopticapi's 2channels2panoptic_coco_format: segments of id and category."""
    content = _change(sources, lambda _, ids: ids)
    for annotation in content["annotations"]:
        annotation["segments_info"] = [
            {"id": info["id"], "category_id": info["category_id"]}
            for info in annotation["segments_info"]
        ]
    _write(sources, content)


def detection(sources: Sources) -> None:
    """panopticapi's detection2panoptic_coco_format: areas and boxes of polygons."""
    content = _change(sources, lambda _, ids: ids)
    for annotation in content["annotations"]:
        for info in annotation["segments_info"]:
            box = [value + 0.37 for value in info["bbox"]]
            info.update(area=info["area"] * 0.96 + 0.1057, bbox=box)
    _write(sources, content)


def combined(sources: Sources) -> None:
    """panopticapi's combine_semantic_and_instance_predictions: no boxes, no crowd.

    Its stuff is one segment a class, its segments have areas of the pixels.
    """
    content = _change(sources, lambda _, ids: ids)
    for annotation in content["annotations"]:
        for info in annotation["segments_info"]:
            info.pop("bbox"), info.pop("iscrowd")
    _write(sources, content)


# By name: what writes it, and whether things must be named, as it tells of none.
SETS = {
    "ade20k": (ade20k, False),
    "cvat": (cvat, True),
    "2channels2panoptic": (two_channels, False),
    "detection2panoptic": (detection, False),
    "combine predictions": (combined, False),
}
