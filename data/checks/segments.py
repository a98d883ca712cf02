"""Checks of the "segments_info" of a COCO panoptic json."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import Any

from cmt.data.checks.categories import LABEL_RANGE
from cmt.data.checks.entries import (
    STRUCTURE,
    Cause,
    EntryCheck,
    id_of,
    is_of,
    segments_of,
    shown,
)
from cmt.data.panoptic.annotations import MAX_LABEL_PART, MAX_SEGMENT_ID, Segment

_UNLISTED = "category not in list"
# Area of a segment that the json does not tell, or tells twice.
_UNKNOWN_AREA = -1


class SegmentsCheck(EntryCheck):
    """Goes through the segments of one annotation after the other.

    Attributes:
      problems: all faults found; those of one image name it.
      notes: none.
      causes: of the problems that many entries may have for one reason.
      incomplete: images of which not all segments have an id that can be read, so
        that other ids in the PNG are no fault.
    """

    def __init__(
        self, path: str, is_thing: dict[int, bool | None], *, is_prediction: bool
    ):
        super().__init__(path)
        self.incomplete: set[str] = set()
        self._is_thing = is_thing
        self._is_prediction = is_prediction
        self._names_unlisted = True

    def check_categories(self, categories: list, annotations: list) -> None:
        """Finds whether most segments are of unlisted categories: that is one fault.

        Nor is each a fault of its own where a category has no id, which is one.

        Args:
          categories: of the json.
          annotations: of the json.
        """
        if not (self._is_thing and all(is_of(id_of(one), int) for one in categories)):
            self._names_unlisted = False
        if not self._names_unlisted:
            return
        used = collections.Counter(
            info["category_id"]
            for entry in annotations
            for info in segments_of(entry)
            if is_of(info.get("category_id"), int)
        )
        unlisted = {
            number: n for number, n in used.items() if number not in self._is_thing
        }
        number, total = sum(unlisted.values()), sum(used.values())
        if number < 2 or 2 * number <= total:
            return
        self._names_unlisted = False
        some = ", ".join(map(str, sorted(unlisted)[:4]))
        self._add(
            _UNLISTED,
            f"{number} of {total} segments have a category_id that is not in "
            f'"categories", such as {some}',
            'give the "categories" that the annotations were made with',
        )

    def of(self, annotation: dict[str, Any], image: str) -> Iterator[Segment]:
        """The segments of an annotation whose pixels can be looked at.

        Args:
          annotation: an entry with a file name.
          image: the image it concerns, for the problems.
        """
        where = f"annotation of {annotation['file_name']}:"
        infos = annotation.get("segments_info")
        if not isinstance(infos, list):
            self._add(
                STRUCTURE,
                f'{where} "segments_info" must be a list; got {type(infos).__name__}',
                "add the segments",
                image,
            )
            self.incomplete.add(image)
            return
        wanted = dict(id=int, category_id=int)
        if not self._is_prediction:
            wanted["area"] = int
        counts = collections.Counter(map(id_of, infos))
        seen: set[int] = set()
        stuff: set[int] = set()
        for number, info in enumerate(infos):
            place = f"{where} segments_info[{number}]"
            fine = self._fields(info, place, image, **wanted)
            segment_id = id_of(info)
            if type(segment_id) is not int:
                self.incomplete.add(image)
                continue
            if not 1 <= segment_id <= MAX_SEGMENT_ID:
                self._add(
                    "segment id",
                    f"{place}: id must be from 1 to {MAX_SEGMENT_ID}; got {segment_id}",
                    "renumber the segment in json and PNG",
                    image,
                )
                self.incomplete.add(image)
                continue
            fix = "give one another id, in json and PNG"
            if self._duplicate(seen, segment_id, f"{where} segment id", image, fix):
                # One of the two may be drawn with the id it should have.
                self.incomplete.add(image)
                continue
            if fine:
                self._check_segment(info, where, image, stuff)
            clear = fine and counts[segment_id] == 1
            yield Segment(
                id=segment_id,
                category_id=info["category_id"] if fine else 0,
                area=info.get("area", 0) if clear else _UNKNOWN_AREA,
                is_crowd=bool(info.get("iscrowd", 0)),
                box=info.get("bbox") if clear else None,
            )

    def check_instances(
        self, annotation: dict[str, Any], segments: Sequence[Segment], image: str
    ) -> None:
        """Finds the classes that have more things in an image than labels hold.

        Args:
          annotation: an entry with a file name.
          segments: what `of` gave for it.
          image: the image it concerns, for the problems.
        """
        if self._is_prediction or len(segments) <= MAX_LABEL_PART:
            return
        things = collections.Counter(
            segment.category_id
            for segment in segments
            if self._is_thing.get(segment.category_id) and not segment.is_crowd
        )
        for category, count in things.items():
            if count > MAX_LABEL_PART:
                self._add(
                    LABEL_RANGE,
                    f"annotation of {annotation['file_name']}: at most "
                    f"{MAX_LABEL_PART} instances of a class fit in a label; got "
                    f"{count} of category {category}",
                    "make some of them one segment that is crowd",
                    image,
                )

    def _check_segment(
        self, info: dict[str, Any], where: str, image: str, stuff: set[int]
    ) -> None:
        category, crowd = info["category_id"], info.get("iscrowd", 0)
        is_thing = self._is_thing.get(category)
        if self._names_unlisted and category not in self._is_thing:
            self._add(
                _UNLISTED,
                f'{where} category_id {category} is not in "categories"',
                'add the category or correct "category_id"',
                image,
                info["id"],
                cause=Cause(f"category {category}", f"segment {info['id']} of {image}"),
            )
        if not self._is_prediction and info["area"] < 0:
            self._add(
                "area",
                f'{where} "area" must be the number of pixels; got {info["area"]}',
                "correct it",
                image,
                info["id"],
            )
        if crowd not in (0, 1):
            self._add(
                "crowd",
                f'{where} "iscrowd" must be 0 or 1; got {shown(crowd)}',
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
                    "draw both with one id in the PNG and keep one entry, its area the "
                    "sum",
                    image,
                    info["id"],
                )
            stuff.add(category)
