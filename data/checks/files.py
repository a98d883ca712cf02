"""Checks of the files of one image against its entry in the json."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image

from cmt.data.checks.integrity import ImageFault, Png, check_whole, refuse_too_large
from cmt.data.checks.pixels import compare_segments
from cmt.data.checks.problems import Problem, missing_file
from cmt.data.panoptic.annotations import PanopticImage
from cmt.data.panoptic.json import (
    DECODING_ERRORS,
    UNREADABLE,
    check_mask,
    decoding_fault,
    mask_ids,
    segment_index,
)
from cmt.io.storage import Location, join, read_bytes

_ORIENTATION_TAG = 0x0112
_MIRRORED_OR_TURNED = range(2, 9)
_SIDES_SWAPPED = range(5, 9)
# Pillow's modes that can be made RGB, and what they are called in a report.
_GREY, _OTHER = "grey image", "image that is not RGB"
_MODES = dict.fromkeys(("L", "LA", "1", "I;16", "I;16B", "I;16L"), _GREY)
_MODES |= {"CMYK": "CMYK image"}
_MODES |= dict.fromkeys(("P", "PA", "RGBA", "RGBX", "YCbCr", "HSV"), _OTHER)
# Those of Pillow's formats that images come in; others run programs or never end.
_FORMATS = ["BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"]
_EXIF_CHUNKS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


class FileOptions(NamedTuple):
    """Where the files are and how they are read.

    Attributes:
      images: folder of the images.
      masks: folder of the PNG files.
      exif: "apply": images are turned as their EXIF orientation says; "ignore": they
        are taken as stored; "auto": whichever fits the mask, refused if both do.
      advice: where to look for a file that is missing, see `missing_file`.
    """

    images: Location
    masks: Location
    exif: str = "auto"
    advice: str = ""


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


class _Read(NamedTuple):
    """Size [height, width], format, mode and EXIF orientation of an image."""

    size: tuple[int, int]
    format: str
    mode: str
    orientation: object


def check_files(options: FileOptions, entry: PanopticImage) -> CheckedFiles:
    """Reads the image and the mask of `entry` in full and compares."""
    check = _FilesCheck(options, entry)
    image = check.image()
    mask, index = check.mask()
    check.compare_sizes()
    return CheckedFiles(check.problems, check.notes, image, mask, index)


class _FilesCheck:
    """The checks of one image, collecting problems and notes."""

    def __init__(self, options: FileOptions, entry: PanopticImage):
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self._options = options
        self._entry = entry
        self._paths = {
            "image": join(options.images, entry.image_path),
            "mask": join(options.masks, entry.mask_name),
        }
        self._sizes: dict[str, tuple[int, int]] = {}
        # Of the image, if its orientation were taken the other way.
        self._other_size: tuple[int, int] | None = None

    def _problem(self, kind: str, path: str, message: str, fix: str) -> None:
        image = self._entry.file_name
        self.problems.append(Problem(kind, path, None, message, fix, image))

    def _note(self, kind: str, path: str, message: str, fix: str) -> None:
        self.notes.append(
            Problem(kind, path, None, message, fix, self._entry.file_name)
        )

    def _read(self, path: str, what: str, name: str) -> bytes | None:
        try:
            return read_bytes(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            image = self._entry.file_name
            advice = self._options.advice
            self.problems.append(missing_file(path, what, name, image, advice))
        except OSError as error:
            reason = error.strerror or str(error)
            self._problem(
                "unreadable file", path, f"cannot be read: {reason}", "make it readable"
            )
        return None

    def _fault(self, path: str, error: Exception) -> None:
        fault = decoding_fault(error)
        prefix = "cannot be read: " if fault.kind in UNREADABLE else ""
        self._problem(fault.kind, path, f"{prefix}{fault.reason}", fault.fix)

    def image(self) -> ImageFile | None:
        """Goes through the image and notes its size."""
        path = self._paths["image"]
        content = self._read(path, "image", self._entry.file_name)
        if content is None:
            return None
        try:
            image = _read_image(content)
        except DECODING_ERRORS as error:
            self._fault(path, error)
            return None
        self._check_mode(path, image.mode)
        orientation = self._orientation(path, image.size, image.orientation)
        swapped = orientation in _SIDES_SWAPPED
        sizes = image.size, image.size[::-1]
        self._sizes["image"], other = reversed(sizes) if swapped else sizes
        if image.orientation in _SIDES_SWAPPED:
            self._other_size = other
        return ImageFile(content, image.format, image.mode, orientation)

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
        """Decodes the PNG and compares ids and areas, if its size is right."""
        path = self._paths["mask"]
        content = self._read(path, "mask", self._entry.mask_name)
        if content is None:
            return None, None
        try:
            png = check_mask(content)
            self._sizes["mask"] = (png.height, png.width)
            if self._sizes["mask"] != (self._entry.height, self._entry.width):
                return content, None
            ids = mask_ids(content)
        except ImageFault as fault:
            self._fault(path, fault)
            return content, None
        index = segment_index(ids, self._entry.segments)
        self.problems += compare_segments(path, self._entry, ids, index)
        return content, index

    def compare_sizes(self) -> None:
        """Notes where they differ from the json; once, if it alone is wrong."""
        expected = (self._entry.height, self._entry.width)
        wrong = {what: size for what, size in self._sizes.items() if size != expected}
        if not wrong:
            return
        agree = "got"
        if len(wrong) == 2 and len(set(wrong.values())) == 1:
            wrong.pop("mask")
            agree = "image and mask agree on"
        for what, (height, width) in wrong.items():
            if agree != "got":
                fix = 'correct "height" and "width"'
            elif what == "image" and self._other_size == expected:
                fix = "give --exif auto, which turns the images whose masks are turned"
            else:
                fix = "use the files the json was made for, or correct it"
            self._problem(
                "size",
                self._paths[what],
                f"image, mask and json must agree in height x width; {agree} "
                f"{height}x{width} here and {expected[0]}x{expected[1]} in the json",
                fix,
            )


def _read_image(content: bytes) -> _Read:
    """Goes through all bytes of an image, so that decoding it later will do.

    Raises:
      *DECODING_ERRORS: it cannot be decoded.
    """
    png = check_whole(content)
    if png is not None:
        refuse_too_large(png.height, png.width)
    with warnings.catch_warnings():
        # Of metadata that is damaged, on which nothing here depends.
        warnings.simplefilter("ignore")
        return _read_with_pillow(content, png)


def _read_with_pillow(content: bytes, png: Png | None) -> _Read:
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        refuse_too_large(image.height, image.width)
        size, mode = (image.height, image.width), image.mode
        if png is not None and png.is_rgb:
            png.check_pixels()
        if png is None or png.interlaced or not png.is_rgb:
            # A JPEG at an eighth of its size: all its bytes are still gone through,
            # but few pixels are made of them.
            image.draft(mode, (1, 1))
            image.load()
        elif png.kinds.isdisjoint(_EXIF_CHUNKS):
            # Pillow would decode it to find no orientation.
            return _Read(size, "PNG", mode, 1)
        orientation = _exif_orientation(image)
        if orientation in _MIRRORED_OR_TURNED:
            image.load()  # for it may be turned
        # An MPO is a JPEG with further pictures behind the first.
        image_format = "JPEG" if image.format == "MPO" else image.format
    return _Read(size, image_format, mode, orientation)


def _exif_orientation(image: Image.Image) -> object:
    """What its EXIF says; 1, as stored, where that is damaged or missing."""
    with contextlib.suppress(*DECODING_ERRORS):
        return image.getexif().get(_ORIENTATION_TAG, 1)
    return 1
