"""Checks of a COCO panoptic json by itself, without the files it names."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from cmt.data.checks.entries import EntryCheck, check_categories, id_of, is_of
from cmt.data.checks.problems import Cause, Kind
from cmt.data.panoptic.amend import objects
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import (
    MAX_SEGMENT_ID,
    ImageId,
    PanopticImage,
    Segment,
    area_of,
    crowd_of,
    record_name,
    shown,
)
from cmt.io.storage import Location
from cmt.labels import MAX_LABEL_PART

# A key of the annotations that only this format has, and what it is called.
_OTHER_FORMATS = {
    "caption": "captions",
    "keypoints": "keypoint annotations",
    "segmentation": "instance annotations",
    "bbox": "instance annotations",
}
_OTHER_NAMES = ("instances_", "person_keypoints_", "captions_", "stuff_", "image_info_")
_ALL_VOID = "the image has no segment, so all of it is void"
_ONE_SEGMENT = "draw both with one id in the PNG and keep one entry, its area the sum"
_UNUSED = "training learns nothing from it; annotate it, or leave the image out"
_LISTS = ("categories", "images", "annotations")
_NOT_PANOPTIC = "give COCO panoptic annotations (not the instance or caption json)"


class JsonCheck(EntryCheck):
    """Goes once through a json, collecting what is wrong and what can be used.

    Attributes:
      categories: those without a fault, in order.
      images: the annotated images whose files can be looked at.
      is_thing: of every category that has an id; None where it does not say.
      num_images, num_annotations: entries of the lists.
      image_names, mask_names: file names of all entries, those with faults too.
      incomplete: images of which not all segments have an id that can be read, so
        that other ids in the PNG are no fault.
    """

    def __init__(
        self, path: Location, content: dict[str, Any], *, strict: bool = False
    ):
        """Checks the content of a json; its path is for the problems."""
        super().__init__(path, strict=strict)
        self.categories: list[Category] = []
        self.images: list[PanopticImage] = []
        self.num_images = self.num_annotations = 0
        self.image_names: set[str] = set()
        self.mask_names: set[str] = set()
        self.incomplete: set[str] = set()
        self.is_thing: dict[int, bool | None] = {}
        self._names_unlisted = True
        # Ids; None for an entry without one, which may be that of any.
        self._faulty_images: set[ImageId | None] = set()
        self._annotated: set[ImageId | None] = set()
        lists = {key: content.get(key) for key in _LISTS}
        for key, value in lists.items():
            if not isinstance(value, list):
                arrived = "nothing" if value is None else type(value).__name__
                message = f'"{key}" must be a list; got {arrived}'
                self.add(Kind.STRUCTURE, message, _NOT_PANOPTIC)
        if self.problems:
            return
        self.num_images = len(lists["images"])
        self.num_annotations = len(lists["annotations"])
        if not self._is_of_other_format(lists["annotations"]):
            self._go_through(**lists)

    def _is_of_other_format(self, annotations: list) -> bool:
        """Finds annotations of which none is panoptic: that is the one fault."""
        entries = [entry for entry in annotations if isinstance(entry, dict)]
        if not entries or any("segments_info" in entry for entry in entries):
            return False
        keys = set().union(*entries)
        known = [name for key, name in _OTHER_FORMATS.items() if key in keys]
        fix, file = _NOT_PANOPTIC, PurePosixPath(self._file).name
        for prefix in _OTHER_NAMES:
            if file.startswith(prefix):
                name = f"panoptic_{file.removeprefix(prefix)}"
                fix = f"give the panoptic json of the split, {name}"
        arrived = known[0] if known else "none that has"
        message = f'annotations must have "segments_info"; got {arrived}'
        self.add(Kind.STRUCTURE, message, fix)
        return True

    def _go_through(self, categories: list, images: list, annotations: list) -> None:
        if not (annotations and images):
            counts = f"{len(images)} and {len(annotations)}"
            message = f"must hold at least one image and annotation; got {counts}"
            self.add(Kind.EMPTY, message, "give the json of a split that has both")
        self.categories, self.is_thing = check_categories(self, categories)
        usable: dict[ImageId, dict[str, Any]] = {}
        ids, names = set(), {}
        for number, entry in enumerate(images):
            if self._is_usable(entry, f"images[{number}]", ids, names):
                usable[entry["id"]] = entry
            elif id_of(entry) not in usable:
                self._faulty_images.add(id_of(entry))
        accepted = self._check_annotations(annotations, usable)
        if annotations and None not in self._annotated:
            self._check_all_annotated(usable)
        self._check_unlisted(categories, annotations)
        for entry, image in accepted:
            segments = self._segments(entry, image)
            image_id, mask = entry["image_id"], entry["file_name"]
            if image_id not in usable:
                continue
            if entry.get("segments_info") == []:
                message = f"annotation of {mask}: {_ALL_VOID}"
                self.add(Kind.NO_SEGMENTS, message, _UNUSED, image, note=True)
            size = usable[image_id]["height"], usable[image_id]["width"]
            self.images.append(PanopticImage(image_id, image, mask, *size, segments))

    def _is_usable(
        self, entry: Any, where: str, ids: set[ImageId], names: dict[str, ImageId]
    ) -> bool:
        """Whether an entry of "images" has no fault; ids and names gain its own."""
        fine = self.fields(entry, where, where, id=ImageId, height=int, width=int)
        if not isinstance(entry, dict) or not self.file_name(entry, where):
            return False
        image = entry["file_name"]
        self.image_names.add(image)
        if not fine:
            return False
        height, width = entry["height"], entry["width"]
        if min(height, width) < 1:
            rule = f'"height" and "width" must be above 0; got {height} and {width}'
            fix = "give the size in pixels"
            self.add(Kind.STRUCTURE, f"{where}: {rule}", fix, image)
            return False
        fix = "give one another id, and its annotation that image_id"
        if self.is_repeated(ids, entry["id"], "image id", fix, image):
            return False
        name = record_name(image)
        first = names.setdefault(name, entry["id"])
        if first != entry["id"]:
            message = (
                f"image file names (less extension) must differ; images {first!r} and "
                f"{entry['id']!r} are both called {name!r}"
            )
            fix = "rename one; if both say the same, leave one out"
            self.add(Kind.DUPLICATE, message, fix, image)
        return first == entry["id"]

    def _check_annotations(
        self, annotations: list, images: dict[ImageId, dict[str, Any]]
    ) -> list[tuple[dict[str, Any], str]]:
        """The annotations that can be used, each with the image it concerns."""
        known = self._faulty_images.union(images)
        accepted, masks = [], set()
        for number, entry in enumerate(annotations):
            where = f"annotations[{number}]"
            fine = self.fields(entry, where, where, image_id=ImageId)
            named = isinstance(entry, dict) and self.file_name(entry, where)
            if named:
                self.mask_names.add(entry["file_name"])
            if not (fine and named):
                self._annotated.add(id_of(entry, "image_id"))
                continue
            image_id = entry["image_id"]
            image = images[image_id]["file_name"] if image_id in images else where
            what, fix = "annotation of image id", 'correct one "image_id"'
            is_second = self.is_repeated(self._annotated, image_id, what, fix, image)
            mask, fix = entry["file_name"], "rename one, in json and folder"
            if self.is_repeated(masks, mask, "mask file name", fix, image) or is_second:
                continue
            accepted.append((entry, image))
            # Else the image has a fault already, or may be one without an id.
            if image_id not in known and None not in known and self.num_images:
                message = f'{where}: image_id {image_id!r} is not in "images"'
                fix = 'add the image to "images", or correct "image_id"'
                self.add(Kind.NO_ENTRY, message, fix, where)
        return accepted

    def _check_all_annotated(self, images: dict[ImageId, dict[str, Any]]) -> None:
        """Finds images without one, where each annotation says whose it is."""
        fix = 'add one; if there is none, leave the image out of "images"'
        for image_id, entry in images.items():
            if image_id not in self._annotated:
                image = entry["file_name"]
                message = f"image {image} has no annotation"
                self.mend(Kind.NO_ANNOTATION, message, fix, image)

    def _check_unlisted(self, categories: list, annotations: list) -> None:
        """Finds whether most segments are of unlisted categories: that is one fault.

        Nor is each a fault of its own where a category has no id, which is one.
        """
        if not (self.is_thing and all(is_of(id_of(one), int) for one in categories)):
            self._names_unlisted = False
            return
        used = [
            info["category_id"]
            for entry in annotations
            for info in objects(entry, "segments_info")
            if is_of(info.get("category_id"), int)
        ]
        unlisted = [number for number in used if number not in self.is_thing]
        if len(unlisted) < 2 or 2 * len(unlisted) <= len(used):
            return
        self._names_unlisted = False
        some = ", ".join(map(str, sorted(set(unlisted))[:4]))
        message = (
            f"{len(unlisted)} of {len(used)} segments have a category_id that is not "
            f'in "categories", such as {some}'
        )
        fix = 'give the "categories" that the annotations were made with'
        self.add(Kind.UNLISTED_CATEGORY, message, fix)

    def _segments(self, annotation: dict[str, Any], image: str) -> list[Segment]:
        """Those of an annotation whose pixels can be looked at."""
        where = f"annotation of {annotation['file_name']}:"
        infos = annotation.get("segments_info")
        if not isinstance(infos, list):
            self.incomplete.add(image)
            arrived = type(infos).__name__
            message = f'{where} "segments_info" must be a list; got {arrived}'
            self.add(Kind.STRUCTURE, message, "add the segments", image)
            return []
        segments = list(self._readable(infos, where, image))
        if len(segments) < len(infos):
            self.incomplete.add(image)
        if len(segments) > MAX_LABEL_PART:
            self._check_instances(segments, where, image)
        return segments

    def _readable(self, infos: list, where: str, image: str) -> Iterator[Segment]:
        counts = collections.Counter(map(id_of, infos))
        seen: set[int] = set()
        stuff: set[int] = set()
        for number, info in enumerate(infos):
            place = f"{where} segments_info[{number}]"
            wanted = {"area": int} if self.strict else {}
            fine = self.fields(info, place, image, id=int, category_id=int, **wanted)
            segment_id = id_of(info)
            if type(segment_id) is not int:
                continue
            if segment_id == 0 and not self.strict:
                self.mend(Kind.ZERO_ID, place, "", image, 0)
            elif not 1 <= segment_id <= MAX_SEGMENT_ID:
                rule = f"id must be from 1 to {MAX_SEGMENT_ID}; got {segment_id}"
                fix = "renumber the segment in json and PNG"
                self.add(Kind.SEGMENT_ID, f"{place}: {rule}", fix, image)
                continue
            # One of two may be drawn with the id it should have.
            fix = "give one another id, in json and PNG"
            if self.is_repeated(seen, segment_id, f"{where} segment id", fix, image):
                continue
            if fine:
                self._check_segment(info, where, image, stuff)
            clear = fine and counts[segment_id] == 1
            yield Segment(
                id=segment_id,
                category_id=info["category_id"] if fine else 0,
                area=area_of(info) if clear else None,
                is_crowd=bool(crowd_of(info)),
                box=info.get("bbox") if clear else None,
            )

    def _check_instances(
        self, segments: Sequence[Segment], where: str, image: str
    ) -> None:
        """Finds the classes that have more things in an image than labels hold."""
        things = collections.Counter(
            segment.category_id
            for segment in segments
            if self.is_thing.get(segment.category_id) and not segment.is_crowd
        )
        rule = f"at most {MAX_LABEL_PART} instances of a class fit in a label"
        fix = "make some of them one segment that is crowd"
        for category, count in things.items():
            if count > MAX_LABEL_PART:
                message = f"{where} {rule}; got {count} of category {category}"
                self.add(Kind.LABEL_RANGE, message, fix, image)

    def _check_segment(
        self, info: dict[str, Any], where: str, image: str, stuff: set[int]
    ) -> None:
        number, category = info["id"], info["category_id"]
        crowd = info.get("iscrowd", 0) if self.strict else crowd_of(info)
        is_thing = self.is_thing.get(category)
        if self._names_unlisted and category not in self.is_thing:
            message = f'{where} category_id {category} is not in "categories"'
            fix = 'add the category or correct "category_id"'
            cause = Cause(f"category {category}", f"segment {number} of {image}")
            self.add(Kind.UNLISTED_CATEGORY, message, fix, image, number, cause=cause)
        if info.get("area") is None:
            self.mend(Kind.NO_AREA, f'{where} no "area"', "add it", image, number)
        elif area_of(info) is None:
            arrived = shown(info["area"])
            message = f'{where} "area" must be the number of pixels; got {arrived}'
            self.mend(Kind.AREA, message, "correct it", image, number)
        if crowd not in (0, 1):
            message = f'{where} "iscrowd" must be 0 or 1; got {shown(crowd)}'
            self.add(Kind.CROWD, message, "correct it", image, number)
        elif crowd and is_thing is False:
            message = f"{where} only things can be crowd; category {category} is stuff"
            self.add(Kind.CROWD, message, 'set "iscrowd" to 0', image, number)
        if is_thing is False and category in stuff:
            rule = "a stuff category must have one segment an image"
            message = f"{where} {rule}; category {category} has another"
            self.mend(Kind.STUFF_TWICE, message, _ONE_SEGMENT, image, number)
        if is_thing is False:
            stuff.add(category)
