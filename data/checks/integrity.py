"""Whether the bytes of a JPEG or PNG are whole, as strictly as TensorFlow takes it.

Pillow reads files that lack their end or do not fit their checksums; TensorFlow's
decoders refuse them, in the middle of training. Both files are sequences of pieces
with a kind and a length, so going through them costs little.
Formats: https://www.w3.org/TR/png-3/ and ITU-T T.81, annex B.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from cmt.data.panoptic.annotations import MAX_PIXELS, MAX_SIDE

TRUNCATED, DAMAGED, NO_IMAGE = "truncated file", "damaged file", "not an image"
TOO_LARGE = "too large"
_AGAIN = "download or make it again"

_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_CHUNK_BYTES = 12  # of length, kind and checksum
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# Of a PNG, by colour type.
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_RGB = 2
_LARGEST_FILTER = 4
# First row and column, and steps, of the passes of an interlaced PNG.
_PASSES = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
# Decompressed at a time; it grows by at most a factor of 1032.
_PIECE = 2**16

JPEG_HEAD = b"\xff\xd8\xff"
# Between segments and in the pixels: not stuffing, and no restart.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_SOI, _EOI, _TEM = 0xD8, 0xD9, 0x01
# Frames that are not baseline, extended or progressive.
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF)


class ImageFault(ValueError):
    """A file that no training can use.

    Attributes:
      kind: of the problem.
      reason: what is wrong with the file.
      fix: what to do.
    """

    def __init__(self, kind: str, reason: str, fix: str = _AGAIN):
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.fix = fix


class Png(NamedTuple):
    """A PNG whose chunks are whole.

    Attributes:
      height: in pixels.
      width: in pixels.
      depth: bits a channel.
      color_type: 2 for RGB.
      interlaced: in seven passes.
      kinds: of its chunks.
      pixels: contents of the chunks with the compressed pixels.
    """

    height: int
    width: int
    depth: int
    color_type: int
    interlaced: bool
    kinds: frozenset[bytes]
    pixels: list[memoryview]

    @property
    def is_rgb(self) -> bool:
        """Whether it has three channels, of 8 or 16 bits."""
        return self.color_type == _RGB

    def check_pixels(self) -> None:
        """Decompresses the pixels, which must be as many as declared.

        Raises:
          ImageFault: they are fewer, or damaged.
        """
        row, expected = self._sizes()
        total = 0
        stream = zlib.decompressobj()
        try:
            for piece in self._pieces():
                rows = stream.decompress(piece)
                filters = rows[: max(expected - total, 0)][-total % row :: row]
                if not self.interlaced and max(filters, default=0) > _LARGEST_FILTER:
                    raise ImageFault(DAMAGED, "a row of it has an impossible filter")
                total += len(rows)
                if stream.eof or total > 2 * expected + _PIECE:
                    break
        except zlib.error as error:
            reason = f"its pixels cannot be decompressed ({error})"
            raise ImageFault(DAMAGED, reason) from error
        # A few bytes more do not trouble TensorFlow.
        if total < expected or not stream.eof:
            end = "" if stream.eof else ", without end"
            raise ImageFault(
                DAMAGED,
                f"its pixels must take {expected} bytes; got {total}{end}",
            )

    def _sizes(self) -> tuple[int, int]:
        """Bytes of a row, and of all rows, with the filter that each begins with."""
        bits = self.depth * _CHANNELS[self.color_type]
        row = 1 + (self.width * bits + 7) // 8
        if not self.interlaced:
            return row, row * self.height
        total = 0
        for top, left, down, right in _PASSES:
            rows = -(-(self.height - top) // down)
            columns = -(-(self.width - left) // right)
            if rows > 0 and columns > 0:
                total += rows * (1 + (columns * bits + 7) // 8)
        return row, total

    def _pieces(self) -> Iterator[memoryview]:
        for chunk in self.pixels:
            for start in range(0, len(chunk), _PIECE):
                yield chunk[start : start + _PIECE]


def refuse_too_large(height: int, width: int) -> None:
    """So that a few bytes cannot ask for gigabytes.

    Raises:
      ImageFault: the size is beyond that of records.
    """
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise ImageFault(
            TOO_LARGE,
            f"it must have at most {MAX_PIXELS} pixels and {MAX_SIDE} a side; got "
            f"{height}x{width}",
            "make it smaller",
        )


def check_whole(content: bytes) -> Png | None:
    """Goes through the pieces of a JPEG or PNG; other files are only told apart.

    Args:
      content: a file.

    Returns:
      The PNG, if it is one.

    Raises:
      ImageFault: the file is cut off or damaged.
    """
    if not content:
        raise ImageFault(TRUNCATED, "it ends after 0 bytes")
    if content.startswith(_PNG_HEAD):
        return read_png(content)
    if content.startswith(JPEG_HEAD):
        _check_jpeg(content)
    return None


def _check_jpeg(content: bytes) -> None:
    """Follows the markers to the end of the image."""
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
            raise ImageFault(
                DAMAGED,
                f"a JPEG must be baseline or progressive; got marker FF{marker:02X}, "
                "which TensorFlow does not decode",
                "save it as baseline JPEG or PNG",
            )
        length = int.from_bytes(content[place : place + 2], "big")
        if length < 2 <= len(content) - place:
            raise ImageFault(DAMAGED, "a segment of it has an impossible length")
        place += length
    raise ImageFault(TRUNCATED, "it is cut off: a JPEG must close with FF D9")


def read_png(content: bytes) -> Png:
    """Goes through the chunks of a PNG; what follows the last one is ignored.

    Raises:
      ImageFault: it is no PNG, cut off, or a chunk is damaged or out of place.
    """
    if not content.startswith(_PNG_HEAD):
        if _PNG_HEAD.startswith(content):
            raise ImageFault(TRUNCATED, f"it ends after {len(content)} bytes")
        raise ImageFault(NO_IMAGE, "it is no PNG")
    header, kinds, pixels, previous = b"", set(), [], b""
    for kind, chunk in _chunks(content):
        name = kind.decode()
        if (kind == b"IHDR") == bool(previous):
            raise ImageFault(DAMAGED, "chunk IHDR must come first, and once")
        if kind == b"IHDR":
            header = bytes(chunk)
        elif kind == b"IDAT":
            if pixels and previous != b"IDAT":
                raise ImageFault(DAMAGED, "other chunks come between its pixels")
            pixels.append(chunk)
        elif kind == b"PLTE" and (kind in kinds or not chunk):
            raise ImageFault(DAMAGED, "its palette is empty or comes twice")
        elif kind[:1].isupper() and kind not in _CRITICAL:
            raise ImageFault(DAMAGED, f"chunk {name} is none of the format")
        kinds.add(kind)
        previous = kind
    if not pixels:
        raise ImageFault(DAMAGED, "it has no pixels (no chunk IDAT)")
    return _with_header(header, frozenset(kinds), pixels)


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of every chunk, with the right checksum, up to IEND."""
    view = memoryview(content)
    place, kind = len(_PNG_HEAD), b""
    while kind != b"IEND":
        if place + _CHUNK_BYTES > len(content):
            raise ImageFault(TRUNCATED, "it is cut off: a PNG must close with IEND")
        length, kind = _CHUNK.unpack_from(content, place)
        if not kind.isalpha():
            raise ImageFault(DAMAGED, f"a chunk of it has no name; got {kind!r}")
        name = kind.decode()
        end = place + _CHUNK_BYTES + length
        if end > len(content):
            raise ImageFault(TRUNCATED, f"it is cut off inside chunk {name}")
        checksum = int.from_bytes(view[end - 4 : end], "big")
        if zlib.crc32(view[place + 4 : end - 4]) != checksum:
            raise ImageFault(DAMAGED, f"chunk {name} does not fit its checksum")
        yield kind, view[place + 8 : end - 4]
        place = end


def _with_header(
    header: bytes, kinds: frozenset[bytes], pixels: list[memoryview]
) -> Png:
    if len(header) != 13:
        raise ImageFault(DAMAGED, f"its header must have 13 bytes; got {len(header)}")
    width, height, depth, color, *methods = struct.unpack(">IIBBBBB", header)
    possible = depth in _DEPTHS.get(color, ()) and methods in ([0, 0, 0], [0, 0, 1])
    if not (possible and width and height):
        raise ImageFault(DAMAGED, "its header has values that the format lacks")
    return Png(height, width, depth, color, bool(methods[2]), kinds, pixels)
