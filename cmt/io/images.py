"""Image files as cameras, phones and microscopes write them, read with Pillow.

What this module takes, conversion, training, evaluation and prediction take alike: the
formats of FORMATS, any mode that has an RGB meaning, and the orientation of EXIF.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cmt.io.png import (
    DAMAGED,
    NO_IMAGE,
    TOO_LARGE,
    TRUNCATED,
    ImageFault,
    is_png,
    read_png,
    refuse_too_large,
)

# Those of Pillow's formats that images come in; others run programs or never end.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# What their names end in.
ENDINGS = (".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff")
ENDINGS += (".webp",)
JPEG_HEAD = b"\xff\xd8\xff"
MIRRORED_OR_TURNED = range(2, 9)
SIDES_SWAPPED = range(5, 9)
# What Pillow raises for files that are no images or damaged, and what we do.
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
ORIENTATION_TAG = 0x0112
# Pillow's modes that can be made RGB, after RGB itself.
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L")
_MODES = ("RGB", "L", "LA", "1", *SIXTEEN_BITS, "CMYK", "P", "PA", "RGBA", "RGBX")
_MODES += ("YCbCr", "HSV")
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

    @property
    def is_plain(self) -> bool:
        """Whether any decoder of JPEG and PNG gives its pixels: upright, RGB."""
        is_rgb = self.mode == "RGB" and self.format in ("JPEG", "PNG")
        return is_rgb and self.orientation == 1

    def decode(self) -> Image.Image:
        """`decode_rgb` of it, turned by the orientation to apply."""
        # In the format that was checked; JPEG is that of an MPO, too.
        return decode_rgb(self.content, [self.format], turns=self.orientation != 1)


def read_image(content: bytes) -> ImageFile:
    """Goes through all bytes of an image, of which few pixels are made.

    Raises:
      ImageFault: it is cut off, damaged, too large, or of another format or mode.
    """
    try:
        return _read_image(content)
    except DECODING_ERRORS as error:
        raise decoding_fault(error) from error


def _read_image(content: bytes) -> ImageFile:
    png = read_png(content) if is_png(content) else None
    if content.startswith(JPEG_HEAD):
        _check_jpeg(content)
    with _opened(content, FORMATS) as image:
        _check_mode(image)
        size, mode = (image.height, image.width), image.mode
        if png is not None and png.is_rgb:
            png.check_pixels()
        if png is None or png.interlaced or not png.is_rgb:
            # A JPEG at an eighth of its size: all its bytes are still gone through, but
            # few pixels are made of them.
            image.draft(mode, (1, 1))
            image.load()
        elif png.kinds.isdisjoint(_EXIF_CHUNKS):
            # Pillow would decode it to find no orientation.
            return ImageFile(content, "PNG", mode, 1, size)
        orientation = _exif_orientation(image)
        if orientation in MIRRORED_OR_TURNED:
            image.load()  # for it may be turned
        # An MPO is a JPEG with further pictures behind the first.
        image_format = "JPEG" if image.format == "MPO" else image.format
    return ImageFile(content, image_format, mode, orientation, size)


def decode_rgb(
    content: bytes, formats: Sequence[str] = FORMATS, *, turns: bool = True
) -> Image.Image:
    """Decodes an image with Pillow: in mode RGB, without opacity, of the first frame.

    Args:
      content: the file.
      formats: what it may be.
      turns: as its EXIF says.

    Raises:
      ImageFault: it is cut off, damaged, too large, or of another format or mode.
    """
    try:
        with _opened(content, formats) as image:
            _check_mode(image)
            if turns and _exif_orientation(image) != 1:
                image = ImageOps.exif_transpose(image)
            if image.mode not in SIXTEEN_BITS:
                return image.convert("RGB")
            # Pillow would cut values off at 255.
            upper = (np.asarray(image) >> 8).astype(np.uint8)
            return Image.fromarray(upper).convert("RGB")
    except DECODING_ERRORS as error:
        raise decoding_fault(error) from error


def _check_mode(image: Image.Image) -> None:
    if image.mode not in _MODES:
        raise ImageFault(
            NO_IMAGE,
            f"its mode must be RGB or one of {', '.join(_MODES[1:])}; got {image.mode}",
            "save it as an RGB image of 8 bits",
        )


@contextlib.contextmanager
def _opened(content: bytes, formats: Sequence[str]) -> Iterator[Image.Image]:
    """An image whose pixels may be read, of a size that is allowed."""
    if not content:
        raise ImageFault(TRUNCATED, "it ends after 0 bytes")
    with warnings.catch_warnings():
        # Of metadata that is damaged, on which nothing here depends.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content), formats=formats) as image:
            refuse_too_large(image.height, image.width)
            yield image


def decoding_fault(error: Exception) -> ImageFault:
    """Returns one of DECODING_ERRORS as what it means for the file."""
    if isinstance(error, ImageFault):
        return error
    if isinstance(error, UnidentifiedImageError):
        return ImageFault(NO_IMAGE, "it has no known image format")
    if isinstance(error, Image.DecompressionBombError):
        return ImageFault(TOO_LARGE, "it declares more pixels than Pillow reads")
    reason = next(iter(str(error).splitlines()), "it is damaged")
    return ImageFault(TRUNCATED if "truncated" in reason else DAMAGED, reason)


def _exif_orientation(image: Image.Image) -> int:
    """What its EXIF says; 1, as stored, where that is damaged or missing."""
    with contextlib.suppress(*DECODING_ERRORS):
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
        return int(orientation) if orientation in MIRRORED_OR_TURNED else 1
    return 1


def _check_jpeg(content: bytes) -> None:
    """Follows the markers of a JPEG (ITU-T T.81, annex B) to the end of the image.

    Pillow decodes nearly all that TensorFlow does, and no more: of 2,445 JPEGs damaged
    by the fuzz test that it takes, TensorFlow refuses 2. These have no end here.
    """
    place = len(JPEG_HEAD) - 1
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
