"""Checks of the "segments_info" of a COCO panoptic json."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import Any

from cmt.data.checks.entries import EntryCheck, id_of, is_of
from cmt.data.checks.problems import Cause, Kind
from cmt.data.panoptic.json import MAX_SEGMENT_ID, Segment, shown
from cmt.labels import MAX_LABEL_PART


class SegmentsCheck(EntryCheck):
    """Goes through the segments of one annotation after the other.

    Attributes:
      incomplete: images of which not all segments have an id that can be read, so
        that other ids in the PNG are no fault.
    """

    def __init__(self, path: str, is_thing: dict[int, bool | None]):
        """Starts with nothing.

        Args:
          path: of the json.
          is_thing: of every category that has an id; None where it does not say.
        """
        super().__init__(path)
        self.incomplete: set[str] = set()
        self._is_thing = is_thing
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
            return
        used = [
            info["category_id"]
            for entry in annotations
            for info in _segments_of(entry)
            if is_of(info.get("category_id"), int)
        ]
        unlisted = [number for number in used if number not in self._is_thing]
        if len(unlisted) < 2 or 2 * len(unlisted) <= len(used):
            return
        self._names_unlisted = False
        some = ", ".join(map(str, sorted(set(unlisted))[:4]))
        self.add(
            Kind.UNLISTED_CATEGORY,
            f"{len(unlisted)} of {len(used)} segments have a category_id that is not "
            f'in "categories", such as {some}',
            'give the "categories" that the annotations were made with',
        )

    def of(self, annotation: dict[str, Any], image: str) -> list[Segment]:
        """Checks the segments of an annotation.

        Args:
          annotation: an entry with a file name.
          image: the image it concerns, for the problems.

        Returns:
          Those whose pixels can be looked at.
        """
        where = f"annotation of {annotation['file_name']}:"
        infos = annotation.get("segments_info")
        if not isinstance(infos, list):
            self.incomplete.add(image)
            arrived = type(infos).__name__
            message = f'{where} "segments_info" must be a list; got {arrived}'
            self.add(Kind.STRUCTURE, message, "add the segments", image)
            return []
        segments = list(self._segments(infos, where, image))
        if len(segments) < len(infos):
            self.incomplete.add(image)
        if len(segments) > MAX_LABEL_PART:
            self._check_instances(segments, where, image)
        return segments

    def _segments(self, infos: list, where: str, image: str) -> Iterator[Segment]:
        counts = collections.Counter(map(id_of, infos))
        seen: set[int] = set()
        stuff: set[int] = set()
        for number, info in enumerate(infos):
            place = f"{where} segments_info[{number}]"
            fine = self.fields(info, place, image, id=int, category_id=int, area=int)
            segment_id = id_of(info)
            if type(segment_id) is not int:
                continue
            if not 1 <= segment_id <= MAX_SEGMENT_ID:
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
                area=info["area"] if clear and info["area"] >= 0 else None,
                is_crowd=bool(info.get("iscrowd", 0)),
                box=info.get("bbox") if clear else None,
            )

    def _check_instances(
        self, segments: Sequence[Segment], where: str, image: str
    ) -> None:
        """Finds the classes that have more things in an image than labels hold."""
        things = collections.Counter(
            segment.category_id
            for segment in segments
            if self._is_thing.get(segment.category_id) and not segment.is_crowd
        )
        for category, count in things.items():
            if count > MAX_LABEL_PART:
                self.add(
                    Kind.LABEL_RANGE,
                    f"{where} at most {MAX_LABEL_PART} instances of a class fit in a "
                    f"label; got {count} of category {category}",
                    "make some of them one segment that is crowd",
                    image,
                )

    def _check_segment(
        self, info: dict[str, Any], where: str, image: str, stuff: set[int]
    ) -> None:
        number, category = info["id"], info["category_id"]
        crowd, is_thing = info.get("iscrowd", 0), self._is_thing.get(category)
        if self._names_unlisted and category not in self._is_thing:
            message = f'{where} category_id {category} is not in "categories"'
            fix = 'add the category or correct "category_id"'
            cause = Cause(f"category {category}", f"segment {number} of {image}")
            self.add(Kind.UNLISTED_CATEGORY, message, fix, image, number, cause=cause)
        if info["area"] < 0:
            message = f'{where} "area" must be the number of pixels; got {info["area"]}'
            self.add(Kind.AREA, message, "correct it", image, number)
        if crowd not in (0, 1):
            message = f'{where} "iscrowd" must be 0 or 1; got {shown(crowd)}'
            self.add(Kind.CROWD, message, "correct it", image, number)
        elif crowd and is_thing is False:
            message = f"{where} only things can be crowd; category {category} is stuff"
            self.add(Kind.CROWD, message, 'set "iscrowd" to 0', image, number)
        if is_thing is False and category in stuff:
            self.add(
                Kind.STUFF_TWICE,
                f"{where} a stuff category must have one segment an image; category "
                f"{category} has another",
                "draw both with one id in the PNG and keep one entry, its area the sum",
                image,
                number,
            )
        if is_thing is False:
            stuff.add(category)


def _segments_of(annotation: Any) -> list[dict[str, Any]]:
    """What can be read of the "segments_info" of an annotation."""
    infos = annotation.get("segments_info") if isinstance(annotation, dict) else None
    infos = infos if isinstance(infos, list) else []
    return [info for info in infos if isinstance(info, dict)]
