"""The COCO panoptic json of a ground truth or of predictions, read to be scored.

The reader takes whatever it can understand; `data/checks` finds what is wrong.
"""

from __future__ import annotations

import contextlib
import marshal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cmt.data.panoptic.amend import complete, objects
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import (
    ImageId,
    Number,
    PanopticImage,
    Segment,
    area_of,
    load_json,
    number_of,
    shown,
)
from cmt.errors import InputError
from cmt.io.spool import Spool
from cmt.io.storage import Location

# The default of a key that must be there.
_REQUIRED = object()
_WORDS = {int: "an integer", list: "a list", str: "text", Number: "a number"}
_WORDS[ImageId] = "an integer or a name"


class Segments(Sequence[Segment]):
    """Segments in a tenth of the memory of a list; each use unpacks them."""

    __slots__ = ("_packed",)

    def __init__(self, segments: Iterable[Segment]):
        self._packed = marshal.dumps([tuple(segment) for segment in segments])

    def __iter__(self) -> Iterator[Segment]:
        return map(Segment._make, marshal.loads(self._packed))

    def __getitem__(self, place: int) -> Segment:
        return list(self)[place]

    def __len__(self) -> int:
        return len(marshal.loads(self._packed))


class Images(Mapping[ImageId, PanopticImage]):
    """Images by id, in the order in which they were added, which wait on disk."""

    def __init__(self) -> None:
        self._places: dict[ImageId, int] = {}
        self._images: Spool[PanopticImage] = Spool()

    def add(self, image: PanopticImage) -> None:
        """Adds an image.

        Raises:
          ValueError: there is one with its id.
        """
        if image.image_id in self._places:
            raise ValueError(f"image {image.image_id} has two annotations")
        self._places[image.image_id] = len(self._images)
        self._images.append(image)

    def __getitem__(self, image_id: ImageId) -> PanopticImage:
        return self._images[self._places[image_id]]

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._places

    def __iter__(self) -> Iterator[ImageId]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class PanopticAnnotations(NamedTuple):
    """A COCO panoptic json; its images are in the order of "annotations"."""

    categories: list[Category]
    images: Images


def read_annotations(path: Location) -> PanopticAnnotations:
    """Reads ground truth or predictions.

    "categories", "images" and areas may be missing, as in predictions. Conversion
    would refuse more: crowd on stuff, ids that occur twice, names that lead elsewhere.

    Raises:
      InputError: the file is missing, an entry lacks something or has it in the wrong
        form, or an image has two annotations.
    """
    content = load_json(path, _pack)
    complete(content)
    try:
        # Scoring takes entries of any form: no annotation may need them.
        _field(content, "the json", "images", list, None)
        known = {
            entry["id"]: entry
            for entry in objects(content, "images")
            if isinstance(entry.get("id"), ImageId)
        }
        categories = [
            _category(entry, where)
            for where, entry in _entries(content, "categories", [])
        ]
        images = Images()
        for where, entry in _entries(content, "annotations"):
            images.add(_image(entry, where, known))
    except ValueError as fault:
        raise InputError(
            f"{path}: {fault}; give COCO panoptic annotations, which `cmt data "
            "validate` checks, not those of instances or captions"
        ) from None
    return PanopticAnnotations(categories, images)


def _pack(entry: dict[str, Any]) -> dict[str, Any]:
    """Packs the segments of an annotation where they need no second look."""
    infos = entry.get("segments_info")
    if isinstance(infos, list):
        with contextlib.suppress(ValueError):
            entry["segments_info"] = Segments([_segment(info, "") for info in infos])
    return entry


def _field(
    entry: Any, where: str, key: str, kind: Any, default: Any = _REQUIRED
) -> Any:
    """The value of a key of an entry, where it is of the kind; else a ValueError."""
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be an object; got {shown(entry)}")
    value = entry.get(key)
    # Some tools write null for what they do not know.
    if value is None and default is not _REQUIRED:
        return default
    if key not in entry:
        raise ValueError(f'{where} has no "{key}"; add it')
    if not isinstance(value, kind):
        arrived = shown(value)
        raise ValueError(f'{where}: "{key}" must be {_WORDS[kind]}; got {arrived}')
    return value


def _entries(
    content: dict[str, Any], key: str, default: Any = _REQUIRED
) -> Iterator[tuple[str, Any]]:
    """The places and the values of a list of the json."""
    entries = _field(content, "the json", key, list, default)
    return ((f"{key}[{number}]", entry) for number, entry in enumerate(entries))


def _category(entry: Any, where: str) -> Category:
    _field(entry, where, "id", int)
    _field(entry, where, "isthing", int)
    return Category.from_json(entry)


def _image(
    entry: Any, where: str, known: dict[ImageId, dict[str, Any]]
) -> PanopticImage:
    image_id = _field(entry, where, "image_id", ImageId)
    image, place = known.get(image_id, {}), f"the entry of image {image_id}"
    segments = entry.get("segments_info")
    if not isinstance(segments, Segments):
        infos = enumerate(_field(entry, where, "segments_info", list))
        places = ((info, f"{where}.segments_info[{number}]") for number, info in infos)
        segments = Segments(_segment(info, place) for info, place in places)
    return PanopticImage(
        image_id=image_id,
        file_name=_field(image, place, "file_name", str, ""),
        mask_name=_field(entry, where, "file_name", str),
        height=int(_field(image, place, "height", Number, 0)),
        width=int(_field(image, place, "width", Number, 0)),
        segments=segments,
    )


def _segment(info: Any, where: str) -> Segment:
    return Segment(
        id=_field(info, where, "id", int),
        category_id=_field(info, where, "category_id", int),
        area=area_of(info),
        is_crowd=bool(_field(info, where, "iscrowd", Number, 0)),
        box=info.get("bbox"),
        score=number_of(info.get("score")),
    )
