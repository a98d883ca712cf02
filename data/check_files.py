"""Checks of the files of one image against its entry in the json."""

from __future__ import annotations

import contextlib
import io
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image

from cmt.data.annotations import MAX_PIXELS, MAX_SIDE, PanopticImage, Segment
from cmt.data.coco import (
    DECODING_ERRORS,
    decode_ids,
    decoding_reason,
    segment_index,
)
from cmt.data.problems import Problem, missing_file
from cmt.data.storage import Location, join, read_bytes
from cmt.errors import InputError

_ORIENTATION_TAG = 0x0112
_MIRRORED_OR_TURNED = range(2, 9)
_SIDES_SWAPPED = range(5, 9)
# Pillow's modes that can be made RGB, and what they are called in a report.
_GREY, _OTHER = "grey image", "image that is not RGB"
_MODES = dict.fromkeys(("L", "LA", "1", "I;16", "I;16B", "I;16L"), _GREY)
_MODES |= {"CMYK": "CMYK image"}
_MODES |= dict.fromkeys(("P", "PA", "RGBA", "RGBX", "YCbCr", "HSV"), _OTHER)
_IMAGE_FIX = "download or make it again"


class FileOptions(NamedTuple):
    """Where the files are and how they are read.

    Attributes:
      images: folder of the images.
      masks: folder of the PNG files.
      exif: "apply": images are turned as their EXIF orientation says; "ignore": they
        are taken as stored; "auto": whichever fits the mask, refused if both do.
    """

    images: Location
    masks: Location
    exif: str = "auto"


class ImageFile(NamedTuple):
    """An image that can be decoded.

    Attributes:
      content: the file.
      format: "JPEG", "PNG" or another name of Pillow's.
      mode: Pillow's mode, such as "RGB".
      orientation: EXIF orientation to apply; 1 for none.
    """

    content: bytes
    format: str
    mode: str
    orientation: int


class CheckedFiles(NamedTuple):
    """What the files of an image hold.

    Attributes:
      problems: all faults found; if any, the rest may be None.
      notes: what conversion takes care of.
      image: the image.
      mask: the PNG as it is.
      index: [H, W] uint16, as `segment_index` has it.
    """

    problems: list[Problem]
    notes: list[Problem]
    image: ImageFile | None
    mask: bytes | None
    index: np.ndarray | None


def check_files(options: FileOptions, entry: PanopticImage) -> CheckedFiles:
    """Reads the image and the mask of `entry` in full and compares."""
    check = _FilesCheck(options, entry)
    image = check.image()
    mask, index = check.mask()
    return CheckedFiles(check.problems, check.notes, image, mask, index)


def check_boxes(
    options: FileOptions, entry: PanopticImage, index: np.ndarray
) -> list[Problem]:
    """The "bbox" entries that are not those of the pixels.

    Args:
      options: where the files are.
      entry: the image.
      index: [H, W], as `segment_index` has it.
    """
    path = join(options.masks, entry.mask_name)
    problems = []
    for segment, box in zip(entry.segments, _boxes(index, entry.segments), strict=True):
        if segment.box is None or box is None or segment.box == box:
            continue
        problems.append(
            Problem(
                "box",
                path,
                segment.id,
                '"bbox" must be [x, y, width, height] of the pixels; got '
                f"{segment.box!r} in the json and {box} in the PNG",
                f'set "bbox" to {box}',
                entry.file_name,
            )
        )
    return problems


def _boxes(index: np.ndarray, segments: list[Segment]) -> list[list[int] | None]:
    """[x, y, width, height] in pixels of each segment; None where it has none."""
    bins = len(segments) + 2
    sides = []
    for plane in (index.T, index):
        lines = np.arange(plane.shape[0])[:, np.newaxis] * bins
        counts = np.bincount((lines + plane).ravel(), minlength=plane.shape[0] * bins)
        present = counts.reshape(plane.shape[0], bins)[:, 2:] > 0
        first = present.argmax(axis=0)
        last = plane.shape[0] - present[::-1].argmax(axis=0)
        sides.append((first.tolist(), (last - first).tolist(), present.any(axis=0)))
    (left, width, exists), (top, height, _) = sides
    return [
        [*corner, *size] if there else None
        for corner, size, there in zip(
            zip(left, top, strict=True),
            zip(width, height, strict=True),
            exists,
            strict=True,
        )
    ]


class _FilesCheck:
    """The checks of one image, collecting problems and notes."""

    def __init__(self, options: FileOptions, entry: PanopticImage):
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self._options = options
        self._entry = entry

    def _problem(
        self, kind: str, path: str, message: str, fix: str, segment: int | None = None
    ) -> None:
        image = self._entry.file_name
        self.problems.append(Problem(kind, path, segment, message, fix, image))

    def _note(self, kind: str, path: str, message: str, fix: str) -> None:
        self.notes.append(
            Problem(kind, path, None, message, fix, self._entry.file_name)
        )

    def _read(self, path: str, what: str, name: str) -> bytes | None:
        try:
            return read_bytes(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            image = self._entry.file_name
            self.problems.append(missing_file(path, what, name, image))
        except OSError as error:
            reason = error.strerror or str(error)
            self._problem(
                "unreadable file", path, f"cannot be read: {reason}", "make it readable"
            )
        return None

    def image(self) -> ImageFile | None:
        """Decodes the image and compares its size."""
        path = join(self._options.images, self._entry.image_path)
        content = self._read(path, "image", self._entry.file_name)
        if content is None:
            return None
        try:
            with Image.open(io.BytesIO(content)) as image:
                _refuse_too_large(image)
                size, image_format, mode = image.size, image.format, image.mode
                # A JPEG at an eighth of its size: all its bytes are still gone
                # through, but few pixels are made of them.
                image.draft(mode, (1, 1))
                image.load()
                orientation = _exif_orientation(image)
        except DECODING_ERRORS as error:
            reason = decoding_reason(error)
            message = f"cannot be read as an image: {reason}"
            self._problem("not an image", path, message, _IMAGE_FIX)
            return None
        if image_format == "MPO":  # a JPEG with further pictures behind the first
            image_format = "JPEG"
        self._check_mode(path, mode)
        orientation = self._orientation(path, (size[1], size[0]), orientation)
        swapped = orientation in _SIDES_SWAPPED
        self._check_size(path, (size[0], size[1]) if swapped else (size[1], size[0]))
        return ImageFile(content, image_format, mode, orientation)

    def _check_mode(self, path: str, mode: str) -> None:
        if mode == "RGB":
            return
        if mode not in _MODES:
            self._problem(
                "not an image",
                path,
                f"its mode must be RGB or one of {', '.join(_MODES)}; got {mode}",
                "save it as an RGB image of 8 bits",
            )
            return
        self._note(
            _MODES[mode],
            path,
            f"its mode is {mode}, not RGB",
            "conversion encodes it again as RGB",
        )

    def _orientation(self, path: str, stored: tuple[int, int], found: object) -> int:
        """The EXIF orientation to apply; notes it where there is one."""
        if found not in _MIRRORED_OR_TURNED:
            return 1
        upright = stored[::-1] if found in _SIDES_SWAPPED else stored
        expected = (self._entry.height, self._entry.width)
        choice = self._options.exif
        if choice == "auto":
            if upright == stored and stored == expected:
                self._problem(
                    "orientation",
                    path,
                    f"its EXIF orientation is {found}, and the size does not tell "
                    "whether its mask was drawn on it as stored or as displayed",
                    "look at one and give --exif ignore (as stored) or --exif apply",
                )
                return 1
            choice = "apply" if upright == expected else "ignore"
        how = {
            "apply": "conversion turns the pixels and encodes it again",
            "ignore": "conversion keeps the pixels as stored",
        }
        self._note(
            "orientation",
            path,
            f"its EXIF orientation is {found}, which viewers apply and training does "
            "not",
            how[choice],
        )
        return int(found) if choice == "apply" else 1

    def mask(self) -> tuple[bytes | None, np.ndarray | None]:
        """Decodes the PNG and compares its size, ids and areas."""
        path = join(self._options.masks, self._entry.mask_name)
        content = self._read(path, "mask", self._entry.mask_name)
        if content is None:
            return None, None
        try:
            ids = decode_ids(content)
        except InputError as error:
            self._problem("not an image", path, str(error), _IMAGE_FIX)
            return content, None
        self._check_size(path, ids.shape)
        index = segment_index(ids, self._entry.segments)
        self._check_segments(path, ids, index)
        return content, index

    def _check_segments(self, path: str, ids: np.ndarray, index: np.ndarray) -> None:
        segments = self._entry.segments
        areas = np.bincount(index.ravel(), minlength=len(segments) + 2).tolist()
        if areas[0]:
            unknown, counts = np.unique(ids[index == 0], return_counts=True)
            for number, count in zip(unknown.tolist(), counts.tolist(), strict=True):
                self._problem(
                    "id not in json",
                    path,
                    f"{count} pixels have an id that the json does not list for this "
                    "image",
                    'add it to "segments_info" or set the pixels to 0',
                    number,
                )
        for segment, area in zip(segments, areas[2:], strict=True):
            if area == 0:
                self._problem(
                    "id not in PNG",
                    path,
                    "the json lists it, but no pixel has this id",
                    'remove it from "segments_info" or draw it',
                    segment.id,
                )
            elif area != segment.area:
                self._problem(
                    "area",
                    path,
                    f'"area" must be the number of pixels; got {segment.area} in the '
                    f"json and {area} in the PNG",
                    f'set "area" to {area}',
                    segment.id,
                )

    def _check_size(self, path: str, found: tuple[int, ...]) -> None:
        expected = (self._entry.height, self._entry.width)
        if tuple(found) != expected:
            self._problem(
                "size",
                path,
                "image, mask and json must agree in height x width; got "
                f"{found[0]}x{found[1]} here and {expected[0]}x{expected[1]} in the "
                "json",
                "use the files the json was made for, or correct the json",
            )


def _refuse_too_large(image: Image.Image) -> None:
    height, width = image.height, image.width
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise ValueError(
            f"it must have at most {MAX_PIXELS} pixels and {MAX_SIDE} a side; got "
            f"{height}x{width}"
        )


def _exif_orientation(image: Image.Image) -> object:
    """What its EXIF says; 1, as stored, where that is damaged or missing."""
    with contextlib.suppress(*DECODING_ERRORS, struct.error, KeyError, TypeError):
        return image.getexif().get(_ORIENTATION_TAG, 1)
    return 1
