"""The kinds of faults and remarks, and how often a reader took care of each."""

from __future__ import annotations

import enum
from typing import Any

from cmt.io import png


class Kind(str, enum.Enum):
    """A few words, the same for all problems of a kind, as reports print them."""

    __str__ = str.__str__
    __format__ = str.__format__

    JSON_FILE = "json file"
    STRUCTURE = "json structure"
    EMPTY = "empty data set"
    CATEGORIES = "categories"
    UNLISTED_CATEGORY = "category not in list"
    DUPLICATE = "duplicate"
    FILE_NAME = "file name"
    NO_ENTRY = "image without entry"
    NO_ANNOTATION = "image without annotation"
    SEGMENT_ID = "segment id"
    LABEL_RANGE = "label range"
    STUFF_TWICE = "stuff twice"
    CROWD = "crowd"
    MISSING = "missing file"
    UNREADABLE = "unreadable file"
    TRUNCATED = png.TRUNCATED
    DAMAGED = png.DAMAGED
    NO_IMAGE = png.NO_IMAGE
    TOO_LARGE = png.TOO_LARGE
    NO_MASK = "not a panoptic PNG"
    SIZE = "size"
    ORIENTATION = "orientation"
    DIFFERENT_IDS = "ids that differ"
    ID_NOT_IN_JSON = "id not in json"
    ID_NOT_IN_PNG = "id not in PNG"
    AREA = "area"
    BOX = "box"
    # Of notes; ORIENTATION may be one, too.
    # AREA, BOX, ID_NOT_IN_PNG, STUFF_TWICE and NO_ANNOTATION are unless --strict.
    NO_AREA = "segment without area"
    NO_IMAGE_LIST = "no list of images"
    NO_SIZE = "image without size"
    NOT_INTEGER = "integer as text or float"
    COLOR = "colour of a category"
    ZERO_ID = "segment with id 0"
    VOID_IN_ZERO = "void with the id of a segment"
    ALL_STUFF = "all classes stuff"
    CATEGORY_GAPS = "category ids with gaps"
    CATEGORY_NAME_TWICE = "duplicate category name"
    NO_SEGMENTS = "annotation without segments"
    MORE_MASKS = "more masks than centers"
    GREY = "grey image"
    CMYK = "CMYK image"
    NOT_RGB = "image that is not RGB"
    UNUSED_IMAGE = "image file not in json"
    UNUSED_MASK = "mask file not in json"

    @property
    def care(self) -> str:
        """What the lenient reader does where it meets the kind; "" for nothing."""
        return _CARE.get(self, "")


_CARE = {
    Kind.AREA: "pixels are counted in the PNG",
    Kind.NO_AREA: "pixels are counted in the PNG",
    Kind.BOX: "the pixels of the PNG are used",
    Kind.ID_NOT_IN_PNG: "the segment is left out",
    Kind.STUFF_TWICE: "the segments are merged",
    Kind.NO_ANNOTATION: "the image is left out",
    Kind.NO_SIZE: "the size of the PNG is used",
    Kind.FILE_NAME: "the name that fits is used",
    Kind.NOT_INTEGER: "the integer is used",
    Kind.COLOR: "one made of the id is used",
    Kind.ZERO_ID: "pixels of 0 are this segment, not void",
    Kind.VOID_IN_ZERO: "all are of the segment, as the PNG cannot tell them apart",
    Kind.NO_IMAGE_LIST: "the list is made from annotations and files",
}


class Tally(dict[str, list[Any]]):
    """How often each kind was met, and the line of the first: [times, example]."""

    def add(self, kind: str, example: str, times: int = 1) -> None:
        """Counts a kind; the example of the first time stays."""
        if kind in self:
            self[kind][0] += times
        else:
            self[kind] = [times, example]

    def join(self, other: dict[str, list[Any]]) -> None:
        """Adds the counts of another tally."""
        for kind, (times, example) in other.items():
            self.add(kind, example, times)

    @property
    def lines(self) -> list[str]:
        """One line a kind, for people."""
        return [
            f"{kind}: {example}"
            if times == 1
            else f"{kind}: {times}, such as {example}"
            for kind, (times, example) in self.items()
        ]
