"""What a COCO panoptic json holds, typed, and the numbers its formats allow."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import NamedTuple

from cmt.data.panoptic.categories import Category

ImageId = int | str

# A label is class * LABEL_DIVISOR + instance, in 16 bits.
LABEL_DIVISOR = 256
MAX_LABEL_PART = LABEL_DIVISOR - 1
# A segment id is a colour, R + 256 G + 65536 B.
MAX_SEGMENT_ID = 2**24 - 1
# That of a prediction is category id * CATEGORY_DIVISOR + instance.
CATEGORY_DIVISOR = 1000
MAX_CATEGORY_ID = MAX_SEGMENT_ID // CATEGORY_DIVISOR
# Of an image; what records declare beyond them is refused when they are read.
MAX_PIXELS = 2**26
MAX_SIDE = 65_500


class Segment(NamedTuple):
    """An entry of "segments_info".

    Attributes:
      id: R + 256 G + 65536 B of its pixels in the PNG.
      category_id: id of its category.
      area: pixels.
      is_crowd: several objects in one segment.
      box: "bbox" as it stands, unchecked; None where there is none.
    """

    id: int
    category_id: int
    area: int
    is_crowd: bool
    box: object = None


class PanopticImage(NamedTuple):
    """An image and its annotation.

    Attributes:
      image_id: id in the json; a number in COCO, a name in Cityscapes.
      file_name: of the image, as the json has it.
      mask_name: of the PNG, below the masks folder.
      height: in pixels.
      width: in pixels.
      segments: in the order of the json.
      path: of the image below the images folder; "" for `file_name`.
    """

    image_id: ImageId
    file_name: str
    mask_name: str
    height: int
    width: int
    segments: list[Segment]
    path: str = ""

    @property
    def name(self) -> str:
        """The image's file name without extension, as records have it."""
        return record_name(self.file_name)

    @property
    def image_path(self) -> str:
        """Where the image is below the images folder."""
        return self.path or self.file_name


class PanopticAnnotations(NamedTuple):
    """A COCO panoptic json.

    Attributes:
      categories: the classes; contiguous class = index + 1.
      images: in the order of "annotations".
    """

    categories: list[Category]
    images: list[PanopticImage]


def count_masks(entry: PanopticImage, is_thing: dict[int, bool | None]) -> int:
    """Masks that training makes of an image: things that are not crowd, and stuff.

    Args:
      entry: the image.
      is_thing: of each category id; those it does not tell are taken for things.
    """
    stuff = set()
    things = 0
    for segment in entry.segments:
        if is_thing.get(segment.category_id) is False:
            stuff.add(segment.category_id)
        elif not segment.is_crowd:
            things += 1
    return things + len(stuff)


def record_name(file_name: str) -> str:
    """The name that records give an image: its file name without extension."""
    return str(PurePosixPath(file_name).with_suffix(""))
