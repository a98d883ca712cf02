"""Checks of the files of one image against its entry in the json."""

from __future__ import annotations

import numpy as np

from cmt.data.checks.pixels import compare_boxes, compare_segments
from cmt.data.checks.problems import Found, Kind
from cmt.data.panoptic import masks
from cmt.data.panoptic.json import PanopticImage
from cmt.data.panoptic.registry import Paths
from cmt.io.images import (
    MIRRORED_OR_TURNED,
    SIDES_SWAPPED,
    SIXTEEN_BITS,
    ImageFile,
    read_image,
)
from cmt.io.png import ImageFault
from cmt.io.storage import join, read_bytes

# Pillow's modes besides RGB, and the note on each; Kind.NOT_RGB on others.
_MODES = dict.fromkeys(("L", "LA", "1", *SIXTEEN_BITS), Kind.GREY)
_MODES |= {"CMYK": Kind.CMYK}


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

    def of_image(self, kind: Kind, message: str, fix: str, note: bool = False) -> None:
        """Adds a problem of the image file."""
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
            image = read_image(content)
        except ImageFault as fault:
            self.of_image(Kind(fault.kind), fault.reason, fault.fix)
            return None
        if image.mode != "RGB":
            message = f"its mode is {image.mode}, not RGB"
            fix = "conversion encodes it again as RGB"
            kind = _MODES.get(image.mode, Kind.NOT_RGB)
            self.of_image(kind, message, fix, note=True)
        orientation = self._orientation(image.size, image.orientation)
        swaps = orientation in SIDES_SWAPPED
        self._sizes["image"] = image.size[::-1] if swaps else image.size
        self._turns = image.orientation in SIDES_SWAPPED
        return image._replace(orientation=orientation)

    def _orientation(self, stored: tuple[int, int], found: int) -> int:
        """The EXIF orientation to apply; notes it where there is one."""
        if found not in MIRRORED_OR_TURNED:
            return 1
        upright = stored[::-1] if found in SIDES_SWAPPED else stored
        choice, message = self._paths.exif, f"its EXIF orientation is {found}, "
        if choice == "auto" and upright == stored == self._size:
            message += (
                "and the size does not tell whether its mask was drawn on it as stored "
                "or as displayed"
            )
            fix = "look at one and give --exif ignore (as stored) or --exif apply"
            self.of_image(Kind.ORIENTATION, message, fix)
            return 1
        message += "which viewers apply and training does not"
        applies = choice == "apply" or (choice == "auto" and upright == self._size)
        fix = "conversion keeps the pixels as stored"
        if applies:
            fix = "conversion turns the pixels and encodes it again"
        self.of_image(Kind.ORIENTATION, message, fix, note=True)
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
                ids = masks.color_ids(masks.decode_mask(content, png))
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
