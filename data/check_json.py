"""Checks of a COCO panoptic json by itself, without the files it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cmt.data.annotations import (
    MAX_SEGMENT_ID,
    ImageId,
    PanopticImage,
    Segment,
    record_name,
)
from cmt.data.categories import Category
from cmt.data.check_categories import CategoriesCheck
from cmt.data.problems import Problem

_STRUCTURE = "json structure"


class JsonCheck:
    """Goes once through a json, collecting what is wrong and what can be used.

    Predictions need neither "images" nor "categories" nor areas; what they have of
    these is checked.

    Attributes:
      problems: all faults found; those of one image name it.
      notes: what is no fault but good to know.
      categories: those without a fault, in order.
      images: the annotated images whose files can be looked at; those of predictions
        have no file name and size.
      is_thing: of every category that has an id; None where it does not say.
      num_images: entries of "images".
      num_annotations: entries of "annotations".
    """

    def __init__(
        self, path: Path | str, content: dict[str, Any], *, is_prediction: bool = False
    ):
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self.categories: list[Category] = []
        self.images: list[PanopticImage] = []
        self.num_images = self.num_annotations = 0
        self._path = str(path)
        self._is_prediction = is_prediction
        self.is_thing: dict[int, bool | None] = {}
        categories = self._list(content, "categories")
        images = self._list(content, "images")
        annotations = self._list(content, "annotations")
        if None in (categories, images, annotations):
            return
        self.num_images, self.num_annotations = len(images), len(annotations)
        if not (is_prediction or (annotations and images)):
            self._add(
                "empty data set",
                f"must hold at least one image and annotation; got {len(images)} and "
                f"{len(annotations)}",
                "give the json of a split that has images",
            )
        if categories or not is_prediction:
            check = CategoriesCheck(self._path, categories)
            self.problems += check.problems
            self.notes += check.notes
            self.categories, self.is_thing = check.categories, check.is_thing
        self._check_annotations(annotations, self._check_images(images))

    def _add(
        self,
        kind: str,
        message: str,
        fix: str,
        image: str | None = None,
        segment: int | None = None,
    ) -> None:
        self.problems.append(Problem(kind, self._path, segment, message, fix, image))

    def _list(self, content: dict[str, Any], key: str) -> list | None:
        value = content.get(key)
        if isinstance(value, list):
            return value
        if value is None and self._is_prediction and key != "annotations":
            return []
        arrived = "nothing" if value is None else type(value).__name__
        self._add(
            _STRUCTURE,
            f'"{key}" must be a list; got {arrived}',
            "give COCO panoptic annotations (not the instance or caption json)",
        )
        return None

    def _fields(self, entry: Any, where: str, image: str, **wanted: Any) -> bool:
        """Whether `entry` is an object with values of these types; else notes it."""
        if not isinstance(entry, dict):
            arrived = type(entry).__name__
            self._add(
                _STRUCTURE,
                f"{where} must be an object; got {arrived}",
                "write it as COCO does",
                image,
            )
            return False
        fine = True
        for key, kind in wanted.items():
            if not isinstance(entry.get(key), kind):
                fine = False
                arrived = repr(entry[key]) if key in entry else "nothing"
                what = "an integer" if kind is int else "an integer or a name"
                self._add(
                    _STRUCTURE,
                    f'{where}: "{key}" must be {what}; got {arrived}',
                    "add it",
                    image,
                )
        return fine

    def _file_name(self, entry: dict[str, Any], where: str) -> bool:
        name = entry.get("file_name")
        if isinstance(name, str) and PurePosixPath(name).name:
            return True
        self._add(
            _STRUCTURE,
            f'{where}: "file_name" must name a file; got {name!r}',
            "add it",
            where,
        )
        return False

    def _duplicate(self, seen: set, value: Any, what: str, image: str) -> bool:
        if value not in seen:
            seen.add(value)
            return False
        self._add(
            "duplicate",
            f"{what} {value!r} occurs twice",
            "keep one, rename the other",
            image,
        )
        return True

    def _check_images(self, images: list) -> dict[ImageId, dict[str, Any]]:
        """The usable entries by id."""
        usable, ids, names = {}, set(), {}
        for number, entry in enumerate(images):
            where = f"images[{number}]"
            if not self._fields(entry, where, where, id=ImageId, height=int, width=int):
                continue
            if not self._file_name(entry, where):
                continue
            image = entry["file_name"]
            if min(entry["height"], entry["width"]) < 1:
                self._add(
                    _STRUCTURE,
                    f'{where}: "height" and "width" must be above 0; got '
                    f"{entry['height']} and {entry['width']}",
                    "give the size in pixels",
                    image,
                )
                continue
            name = record_name(image)
            repeated = name in names
            if repeated:
                self._add(
                    "duplicate",
                    "image file names (less extension) must differ; images "
                    f"{names[name]!r} and {entry['id']!r} are both called {name!r}",
                    "keep one, rename the other",
                    image,
                )
            names.setdefault(name, entry["id"])
            if not (self._duplicate(ids, entry["id"], "image id", image) or repeated):
                usable[entry["id"]] = entry
        return usable

    def _check_annotations(
        self, annotations: list, images: dict[ImageId, dict[str, Any]]
    ) -> None:
        annotated, names = set(), set()
        for number, entry in enumerate(annotations):
            where = f"annotations[{number}]"
            if not self._fields(entry, where, where, image_id=ImageId):
                continue
            if not self._file_name(entry, where):
                continue
            image_id = entry["image_id"]
            known = images.get(image_id)
            if known is None and self._is_prediction:
                known = {"file_name": "", "height": 0, "width": 0}
            image = where if known is None else known["file_name"] or where
            repeated = self._duplicate(
                annotated, image_id, "annotation of image id", image
            )
            what = "mask file name"
            if self._duplicate(names, entry["file_name"], what, image) or repeated:
                continue
            segments = list(self._segments(entry, image))
            if known is None:
                self._add(
                    "image without entry",
                    f'{where}: image_id {image_id!r} is not in "images" (or is faulty '
                    "there)",
                    'add the image to "images" or remove the annotation',
                    image,
                )
                continue
            self.images.append(
                PanopticImage(
                    image_id=image_id,
                    file_name=known["file_name"],
                    mask_name=entry["file_name"],
                    height=known["height"],
                    width=known["width"],
                    segments=segments,
                )
            )
        if not self._is_prediction:
            self._check_all_annotated(images, annotated)

    def _check_all_annotated(
        self, images: dict[ImageId, dict[str, Any]], annotated: set[ImageId]
    ) -> None:
        for image_id, image in images.items():
            if image_id not in annotated:
                self._add(
                    "image without annotation",
                    f"image {image['file_name']} has no annotation",
                    'add one or remove the image from "images"',
                    image["file_name"],
                )

    def _segments(self, annotation: dict[str, Any], image: str) -> Iterator[Segment]:
        """The segments whose pixels can be looked at."""
        where = f"annotation of {annotation['file_name']}:"
        infos = annotation.get("segments_info")
        if not isinstance(infos, list):
            self._add(
                _STRUCTURE,
                f'{where} "segments_info" must be a list; got {type(infos).__name__}',
                "add the segments",
                image,
            )
            return
        wanted = dict(id=int, category_id=int)
        if not self._is_prediction:
            wanted["area"] = int
        seen: set[int] = set()
        stuff: set[int] = set()
        for number, info in enumerate(infos):
            place = f"{where} segments_info[{number}]"
            if not self._fields(info, place, image, **wanted):
                continue
            if not 1 <= info["id"] <= MAX_SEGMENT_ID:
                self._add(
                    "segment id",
                    f"{place}: id must be from 1 to {MAX_SEGMENT_ID}; got {info['id']}",
                    "renumber the segment in json and PNG",
                    image,
                )
                continue
            if self._duplicate(seen, info["id"], f"{where} segment id", image):
                continue
            self._check_segment(info, where, image, stuff)
            yield Segment(
                id=info["id"],
                category_id=info["category_id"],
                area=info.get("area", 0),
                is_crowd=bool(info.get("iscrowd", 0)),
                box=info.get("bbox"),
            )

    def _check_segment(
        self, info: dict[str, Any], where: str, image: str, stuff: set[int]
    ) -> None:
        category, crowd = info["category_id"], info.get("iscrowd", 0)
        is_thing = self.is_thing.get(category)
        listed = self.is_thing or not self._is_prediction
        if listed and category not in self.is_thing:
            self._add(
                "category not in list",
                f'{where} category_id {category} is not in "categories"',
                'add the category or correct "category_id"',
                image,
                info["id"],
            )
        if crowd not in (0, 1):
            self._add(
                "crowd",
                f'{where} "iscrowd" must be 0 or 1; got {crowd!r}',
                "correct it",
                image,
                info["id"],
            )
        elif crowd and is_thing is False:
            self._add(
                "crowd",
                f"{where} only things can be crowd; category {category} is stuff",
                'set "iscrowd" to 0',
                image,
                info["id"],
            )
        if is_thing is False and not self._is_prediction:
            if category in stuff:
                self._add(
                    "stuff twice",
                    f"{where} a stuff category must have one segment an image; "
                    f"category {category} has another",
                    "give both the same id in json and PNG",
                    image,
                    info["id"],
                )
            stuff.add(category)
