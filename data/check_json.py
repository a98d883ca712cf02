"""Checks of a COCO panoptic json by itself, without the files it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cmt.data.coco import MAX_CATEGORY_ID, PanopticImage, Segment
from cmt.data.problems import Problem

_LARGEST_ID = 2**24 - 1


class JsonCheck:
    """Goes once through a json, collecting what is wrong and what can be used.

    Attributes:
      problems: all faults found.
      images: the annotated images whose files can be looked at.
    """

    def __init__(self, path: Path | str, content: dict[str, Any]):
        self.problems: list[Problem] = []
        self.images: list[PanopticImage] = []
        self._path = str(path)
        self._is_thing: dict[int, bool] = {}
        categories = self._list(content, "categories")
        images = self._list(content, "images")
        annotations = self._list(content, "annotations")
        if None in (categories, images, annotations):
            return
        if not annotations or not images:
            self._add(
                "empty data set",
                f"must hold at least one image and annotation; got {len(images)} and "
                f"{len(annotations)}",
                "give the json of a split that has images",
            )
        self._check_categories(categories)
        self._check_annotations(annotations, self._check_images(images))

    def _add(
        self, kind: str, message: str, fix: str, segment: int | None = None
    ) -> None:
        self.problems.append(Problem(kind, self._path, segment, message, fix))

    def _list(self, content: dict[str, Any], key: str) -> list | None:
        value = content.get(key)
        if isinstance(value, list):
            return value
        arrived = "nothing" if value is None else type(value).__name__
        self._add(
            "json structure",
            f'"{key}" must be a list; got {arrived}',
            "give COCO panoptic annotations (not the instance or caption json)",
        )
        return None

    def _integers(self, entry: Any, where: str, *keys: str) -> bool:
        """Whether `entry` is an object with integers at all keys; else notes it."""
        if not isinstance(entry, dict):
            self._add(
                "json structure",
                f"{where} must be an object; got {type(entry).__name__}",
                "write it as COCO does",
            )
            return False
        fine = True
        for key in keys:
            if not isinstance(entry.get(key), int):
                fine = False
                arrived = repr(entry[key]) if key in entry else "nothing"
                self._add(
                    "json structure",
                    f'{where}: "{key}" must be an integer; got {arrived}',
                    "add it",
                )
        return fine

    def _file_name(self, entry: dict[str, Any], where: str) -> bool:
        name = entry.get("file_name")
        if isinstance(name, str) and PurePosixPath(name).name:
            return True
        self._add(
            "json structure",
            f'{where}: "file_name" must name a file; got {name!r}',
            "add it",
        )
        return False

    def _duplicate(self, seen: set, value: Any, what: str) -> bool:
        if value not in seen:
            seen.add(value)
            return False
        self._add(
            "duplicate", f"{what} {value!r} occurs twice", "keep one, rename the other"
        )
        return True

    def _check_categories(self, categories: list) -> None:
        if not categories:
            self._add(
                "categories",
                '"categories" must not be empty; got 0',
                "list the classes",
            )
        seen: set = set()
        for number, entry in enumerate(categories):
            where = f"categories[{number}]"
            if not self._integers(entry, where, "id"):
                continue
            if self._duplicate(seen, entry["id"], "category id"):
                continue
            self._is_thing[entry["id"]] = bool(entry.get("isthing"))
            self._check_category(entry)

    def _check_category(self, entry: dict[str, Any]) -> None:
        where = f"category {entry['id']}:"
        if not 1 <= entry["id"] <= MAX_CATEGORY_ID:
            self._add(
                "categories",
                f"{where} id must be from 1 to {MAX_CATEGORY_ID}, because the colours "
                "of predicted PNGs hold category_id * 1000 + instance; got "
                f"{entry['id']}",
                "renumber the category",
            )
        if entry.get("isthing") not in (0, 1):
            arrived = repr(entry["isthing"]) if "isthing" in entry else "nothing"
            self._add(
                "categories",
                f'{where} "isthing" must be 0 or 1; got {arrived}',
                "add 1 for countable things, 0 for stuff",
            )
        if "color" in entry and not _is_color(entry["color"]):
            self._add(
                "categories",
                f'{where} "color" must be three integers from 0 to 255; got '
                f"{entry['color']!r}",
                "correct or remove it",
            )

    def _check_images(self, images: list) -> dict[int, dict[str, Any]]:
        """The usable entries by id."""
        usable, ids, names = {}, set(), set()
        for number, entry in enumerate(images):
            where = f"images[{number}]"
            if not self._integers(entry, where, "id", "height", "width"):
                continue
            if not self._file_name(entry, where):
                continue
            # Records name an image without its extension.
            name = str(PurePosixPath(entry["file_name"]).with_suffix(""))
            repeated = self._duplicate(names, name, "image file name (less extension)")
            if not self._duplicate(ids, entry["id"], "image id") and not repeated:
                usable[entry["id"]] = entry
        return usable

    def _check_annotations(
        self, annotations: list, images: dict[int, dict[str, Any]]
    ) -> None:
        annotated, names = set(), set()
        for number, entry in enumerate(annotations):
            where = f"annotations[{number}]"
            if not self._integers(entry, where, "image_id"):
                continue
            if not self._file_name(entry, where):
                continue
            image_id = entry["image_id"]
            repeated = self._duplicate(annotated, image_id, "annotation of image id")
            if self._duplicate(names, entry["file_name"], "mask file name") or repeated:
                continue
            segments = list(self._segments(entry))
            if image_id not in images:
                self._add(
                    "image without entry",
                    f'{where}: image_id {image_id} is not in "images" (or is faulty '
                    "there)",
                    'add the image to "images" or remove the annotation',
                )
                continue
            image = images[image_id]
            self.images.append(
                PanopticImage(
                    image_id=image_id,
                    file_name=image["file_name"],
                    mask_name=entry["file_name"],
                    height=image["height"],
                    width=image["width"],
                    segments=segments,
                )
            )
        for image_id, image in images.items():
            if image_id not in annotated:
                self._add(
                    "image without annotation",
                    f"image {image['file_name']} has no annotation",
                    'add one or remove the image from "images"',
                )

    def _segments(self, annotation: dict[str, Any]) -> Iterator[Segment]:
        """The segments whose pixels can be looked at."""
        mask = annotation["file_name"]
        infos = annotation.get("segments_info")
        if not isinstance(infos, list):
            self._add(
                "json structure",
                f'annotation of {mask}: "segments_info" must be a list; got '
                f"{type(infos).__name__}",
                "add the segments",
            )
            return
        seen: set = set()
        for number, info in enumerate(infos):
            where = f"annotation of {mask}: segments_info[{number}]"
            if not self._integers(info, where, "id", "category_id", "area"):
                continue
            if not 1 <= info["id"] <= _LARGEST_ID:
                self._add(
                    "segment id",
                    f"{where}: id must be from 1 to {_LARGEST_ID}; got {info['id']}",
                    "renumber the segment in json and PNG",
                )
                continue
            if self._duplicate(seen, info["id"], f"annotation of {mask}: segment id"):
                continue
            self._check_segment(info, f"annotation of {mask}:")
            yield Segment(
                id=info["id"],
                category_id=info["category_id"],
                area=info["area"],
                is_crowd=bool(info.get("iscrowd", 0)),
            )

    def _check_segment(self, info: dict[str, Any], where: str) -> None:
        category = info["category_id"]
        if category not in self._is_thing:
            self._add(
                "category not in list",
                f'{where} category_id {category} is not in "categories"',
                'add the category or correct "category_id"',
                info["id"],
            )
        if info.get("iscrowd", 0) not in (0, 1):
            self._add(
                "crowd",
                f'{where} "iscrowd" must be 0 or 1; got {info["iscrowd"]!r}',
                "correct it",
                info["id"],
            )
        elif info.get("iscrowd", 0) and not self._is_thing.get(category, True):
            self._add(
                "crowd",
                f"{where} only things can be crowd; category {category} is stuff",
                'set "iscrowd" to 0',
                info["id"],
            )


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(part, int) and 0 <= part <= 255 for part in value)
    )
