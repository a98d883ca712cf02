"""Checks of the files of one image against its entry in the json."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image

from cmt.data.checks.pixels import compare_boxes, compare_segments
from cmt.data.checks.problems import Found, Kind
from cmt.data.panoptic import masks
from cmt.data.panoptic.json import PanopticImage
from cmt.data.panoptic.png import (
    DAMAGED,
    TRUNCATED,
    ImageFault,
    is_png,
    read_png,
    refuse_too_large,
)
from cmt.data.panoptic.registry import Paths
from cmt.io.storage import join, read_bytes

_ORIENTATION_TAG = 0x0112
_MIRRORED_OR_TURNED = range(2, 9)
_SIDES_SWAPPED = range(5, 9)
# Pillow's modes that can be made RGB, and the note on each.
_MODES = dict.fromkeys(("L", "LA", "1", "I;16", "I;16B", "I;16L"), Kind.GREY)
_MODES |= {"CMYK": Kind.CMYK}
_MODES |= dict.fromkeys(("P", "PA", "RGBA", "RGBX", "YCbCr", "HSV"), Kind.NOT_RGB)
# Those of Pillow's formats that images come in; others run programs or never end.
_FORMATS = ["BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"]
_EXIF_CHUNKS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
# Between segments and in the pixels of a JPEG: not stuffing, and no restart.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_SOI, _EOI, _TEM = 0xD8, 0xD9, 0x01
# Frames that are not baseline, extended or progressive.
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF)


class ImageFile(NamedTuple):
    """An image that can be decoded, with Pillow's names of its format and mode.

    `orientation` is that of EXIF, 1 for none; once checked, the one to apply. `size` is
    [height, width] in pixels, as stored.
    """

    content: bytes
    format: str
    mode: str
    orientation: int
    size: tuple[int, int]


def missing_message(what: str, name: str, advice: str) -> tuple[str, str]:
    """Returns message and fix for a file that the json names and that is not there.

    `what` is "image" or "mask"; `advice` is "" for the option that names the folder.
    """
    advice = advice or f"give --{what}s the folder that has it"
    message = f"no such {what}, though the json names {name}"
    return message, f"put it there or {advice}"


class FilesCheck(Found):
    """Reads the image and the mask of an entry in full and compares.

    `image`, `mask` (the PNG as it is) and `index` ([H, W], as `segment_index` has it)
    may be None if problems were found; `areas` are the pixels of each segment.
    Conversion takes care of the notes.
    """

    def __init__(self, paths: Paths, entry: PanopticImage, *, boxes: bool = False):
        """Checks the files; with `boxes` the "bbox" entries, too."""
        self._places = {
            "image": join(paths.images, entry.image_path),
            "mask": join(paths.masks, entry.mask_name),
        }
        super().__init__(self._places["mask"], entry.file_name, strict=paths.strict)
        self._paths = paths
        self._entry = entry
        self._size = (entry.height, entry.width)
        self._sizes: dict[str, tuple[int, int]] = {}
        # Its EXIF orientation exchanges height and width, whether applied or not.
        self._turns = False
        self.index: np.ndarray | None = None
        self.areas: list[int] = []
        self.image = self._check_image()
        self.mask = self._check_mask()
        self._compare_sizes()
        if boxes and self.index is not None:
            compare_boxes(self, entry, self.index)

    def _of_image(self, kind: Kind, message: str, fix: str, note: bool = False) -> None:
        self.add(kind, message, fix, file=self._places["image"], note=note)

    def _read(self, what: str, name: str) -> bytes | None:
        path = self._places[what]
        try:
            return read_bytes(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            message = missing_message(what, name, self._paths.advice)
            self.add(Kind.MISSING, *message, file=path)
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            self.add(Kind.UNREADABLE, reason, "make it readable", file=path)
        return None

    def _check_image(self) -> ImageFile | None:
        """Goes through the image and notes its size."""
        content = self._read("image", self._entry.file_name)
        if content is None:
            return None
        try:
            image = _read_image(content)
        except masks.DECODING_ERRORS as error:
            fault = masks.decoding_fault(error)
            self._of_image(Kind(fault.kind), fault.reason, fault.fix)
            return None
        self._check_mode(image.mode)
        orientation = self._orientation(image.size, image.orientation)
        swaps = orientation in _SIDES_SWAPPED
        self._sizes["image"] = image.size[::-1] if swaps else image.size
        self._turns = image.orientation in _SIDES_SWAPPED
        return image._replace(orientation=orientation)

    def _check_mode(self, mode: str) -> None:
        if mode in _MODES:
            message = f"its mode is {mode}, not RGB"
            fix = "conversion encodes it again as RGB"
            self._of_image(_MODES[mode], message, fix, note=True)
        elif mode != "RGB":
            message = f"its mode must be RGB or one of {', '.join(_MODES)}; got {mode}"
            fix = "save it as an RGB image of 8 bits"
            self._of_image(Kind.NO_IMAGE, message, fix)

    def _orientation(self, stored: tuple[int, int], found: int) -> int:
        """The EXIF orientation to apply; notes it where there is one."""
        if found not in _MIRRORED_OR_TURNED:
            return 1
        upright = stored[::-1] if found in _SIDES_SWAPPED else stored
        choice, message = self._paths.exif, f"its EXIF orientation is {found}, "
        if choice == "auto" and upright == stored == self._size:
            message += (
                "and the size does not tell whether its mask was drawn on it as stored "
                "or as displayed"
            )
            fix = "look at one and give --exif ignore (as stored) or --exif apply"
            self._of_image(Kind.ORIENTATION, message, fix)
            return 1
        message += "which viewers apply and training does not"
        applies = choice == "apply" or (choice == "auto" and upright == self._size)
        fix = "conversion keeps the pixels as stored"
        if applies:
            fix = "conversion turns the pixels and encodes it again"
        self._of_image(Kind.ORIENTATION, message, fix, note=True)
        return found if applies else 1

    def _check_mask(self) -> bytes | None:
        """Decodes the PNG and compares ids and areas, if its size is right."""
        content = self._read("mask", self._entry.mask_name)
        if content is None:
            return None
        try:
            png = masks.check_mask(content)
            self._sizes["mask"] = (png.height, png.width)
            if self._sizes["mask"] == self._size:
                ids = masks.mask_ids(content)
                self.index = masks.segment_index(ids, self._entry.segments)
                self.areas = compare_segments(self, self._entry, ids, self.index)
        except ImageFault as fault:
            self.add(Kind(fault.kind), fault.reason, fault.fix)
        return content

    def _compare_sizes(self) -> None:
        """Notes where they differ from the json; once, if it alone is wrong."""
        wrong = {what: size for what, size in self._sizes.items() if size != self._size}
        agree = len(wrong) == 2 and len(set(wrong.values())) == 1
        if agree:
            wrong.pop("mask")
        for what, (height, width) in wrong.items():
            fix, arrived = "use the files the json was made for, or correct it", "got"
            if agree:
                fix, arrived = 'correct "height" and "width"', "image and mask agree on"
            elif what == "image" and self._turns and (width, height) == self._size:
                fix = "give --exif auto, which turns the images whose masks are turned"
            message = (
                f"image, mask and json must agree in height x width; {arrived} "
                f"{height}x{width} here and {self._size[0]}x{self._size[1]} in the json"
            )
            self.add(Kind.SIZE, message, fix, file=self._places[what])


def _read_image(content: bytes) -> ImageFile:
    """Goes through all bytes of an image; raises DECODING_ERRORS where they fail."""
    if not content:
        raise ImageFault(TRUNCATED, "it ends after 0 bytes")
    png = read_png(content) if is_png(content) else None
    if content.startswith(masks.JPEG_HEAD):
        _check_jpeg(content)
    with warnings.catch_warnings():
        # Of metadata that is damaged, on which nothing here depends.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            refuse_too_large(image.height, image.width)
            size, mode = (image.height, image.width), image.mode
            if png is not None and png.is_rgb:
                png.check_pixels()
            if png is None or png.interlaced or not png.is_rgb:
                # A JPEG at an eighth of its size: all its bytes are still gone
                # through, but few pixels are made of them.
                image.draft(mode, (1, 1))
                image.load()
            elif png.kinds.isdisjoint(_EXIF_CHUNKS):
                # Pillow would decode it to find no orientation.
                return ImageFile(content, "PNG", mode, 1, size)
            orientation = _exif_orientation(image)
            if orientation in _MIRRORED_OR_TURNED:
                image.load()  # for it may be turned
            # An MPO is a JPEG with further pictures behind the first.
            image_format = "JPEG" if image.format == "MPO" else image.format
    return ImageFile(content, image_format, mode, orientation, size)


def _exif_orientation(image: Image.Image) -> int:
    """What its EXIF says; 1, as stored, where that is damaged or missing."""
    with contextlib.suppress(*masks.DECODING_ERRORS):
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        return int(orientation) if orientation in _MIRRORED_OR_TURNED else 1
    return 1


def _check_jpeg(content: bytes) -> None:
    """Follows the markers of a JPEG (ITU-T T.81, annex B) to the end of the image.

    Pillow decodes nearly all that TensorFlow does, and no more: of 2,445 JPEGs damaged
    by the fuzz test that it takes, TensorFlow refuses 2. These have no end here.
    """
    place = len(masks.JPEG_HEAD) - 1
    while found := _MARKER.search(content, place):
        marker, place = content[found.end() - 1], found.end()
        if marker == _EOI:
            return
        if marker == _TEM:
            continue
        if marker == _SOI:
            raise ImageFault(DAMAGED, "another JPEG begins inside it")
        if marker in _OTHER_FRAMES:
            reason = (
                f"a JPEG must be baseline or progressive; got marker FF{marker:02X}, "
                "which TensorFlow does not decode"
            )
            raise ImageFault(DAMAGED, reason, "save it as baseline JPEG or PNG")
        length = int.from_bytes(content[place : place + 2], "big")
        if length < 2 <= len(content) - place:
            raise ImageFault(DAMAGED, "a segment of it has an impossible length")
        place += length
    raise ImageFault(TRUNCATED, "it is cut off: a JPEG must close with FF D9")
