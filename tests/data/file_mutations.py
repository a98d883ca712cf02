"""Damaged images and masks: what the fuzz test feeds to the checks of files."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 23, 37
_HEAD = 8  # bytes of a PNG before its first chunk
_CHUNK_BYTES = 12
_KINDS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tEXt", b"tRNS", b"eXIf", b"XXXX")
_SIDES = (0, 1, HEIGHT, WIDTH, 8192, 65_501, 100_000, 2**31 - 1)
_JPEG_MARKERS = (0xC0, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1)
_EXIF = Image.Exif()
_EXIF[0x0112] = 6

Mutation = Callable[[np.random.Generator, bytes], bytes]


def picture() -> np.ndarray:
    """[H, W, 3], smooth, so that a JPEG of it is like a photo's."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows * 9, columns * 6, rows + columns], -1).astype(np.uint8)


def saved(mode: str, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def good_images() -> list[bytes]:
    """Images that are kept as they are, and some that are encoded again."""
    return [
        saved("RGB", "JPEG"),
        saved("RGB", "JPEG", quality=95, subsampling=0),
        saved("RGB", "JPEG", progressive=True),
        saved("RGB", "JPEG", restart_marker_rows=1),
        saved("RGB", "PNG"),
        saved("RGB", "PNG", exif=_EXIF),
        png_of_depth_16(),
        saved("RGB", "JPEG", exif=_EXIF),
        saved("CMYK", "JPEG"),
        saved("L", "JPEG"),
        saved("P", "PNG"),
        saved("RGBA", "PNG"),
        saved("RGB", "BMP"),
        saved("RGB", "GIF"),
        saved("RGB", "TIFF", compression="tiff_lzw"),
        saved("RGB", "WEBP"),
    ]


def good_mask() -> tuple[bytes, np.ndarray]:
    """A mask and its ids."""
    ids = np.repeat(np.arange(1, HEIGHT + 1), WIDTH).reshape(HEIGHT, WIDTH) * 70_000
    planes = [ids & 0xFF, ids >> 8 & 0xFF, ids >> 16 & 0xFF]
    buffer = io.BytesIO()
    Image.fromarray(np.stack(planes, -1).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue(), ids


def png_of_depth_16() -> bytes:
    rows = b"".join(b"\0" + np.repeat(row, 2).tobytes() for row in picture())
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG, with the right checksum."""
    checksum = zlib.crc32(kind + content)
    return (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    )


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content of the chunks of a good PNG."""
    found, place = [], _HEAD
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        found.append((png[place + 4 : place + 8], png[place + 8 : place + 8 + length]))
        place += _CHUNK_BYTES + length
    return found


def change_chunks(rng: np.random.Generator, png: bytes) -> bytes:
    """Chunks left out, added, moved or changed, with the right checksums."""
    some = chunks(png)
    for _ in range(rng.integers(1, 3)):
        place = int(rng.integers(len(some)))
        kind, content = some[place]
        other = int(rng.integers(len(some) + 1))
        case = rng.integers(8)
        if case == 0 and len(some) > 1:
            some.pop(place)
        elif case == 1:
            some.insert(other, some[place])
        elif case == 2:
            some.insert(other, (_KINDS[rng.integers(len(_KINDS))], rng.bytes(6)))
        elif case == 3:
            some[place] = (_KINDS[rng.integers(len(_KINDS))], content)
        elif case == 4 and content:
            some[place] = (kind, content[: rng.integers(len(content))])
        elif case == 5 and content:
            damaged = bytearray(content)
            damaged[rng.integers(len(content))] = rng.integers(256)
            some[place] = (kind, bytes(damaged))
        elif case == 6:
            cut = int(rng.integers(len(content) + 1))
            some[place : place + 1] = [(kind, content[:cut]), (kind, content[cut:])]
        elif kind == b"IDAT":
            some[place] = (kind, change_rows(rng, content))
    return png[:_HEAD] + b"".join(chunk(*one) for one in some)


def change_rows(rng: np.random.Generator, compressed: bytes) -> bytes:
    """More, fewer or other bytes in the stream of a PNG's pixels."""
    try:
        rows = bytearray(zlib.decompress(compressed))
    except zlib.error:
        return compressed
    case = rng.integers(5)
    if case == 0:
        rows += rng.bytes(rng.integers(1, 200))
    elif case == 1:
        del rows[rng.integers(len(rows)) :]
    elif case == 2:
        rows[rng.integers(len(rows))] = rng.integers(256)
    elif case == 3:
        rows[0] = rng.integers(256)
    content = zlib.compress(bytes(rows), int(rng.integers(10)))
    return content[: -int(rng.integers(1, 6))] if case == 4 else content


def change_header(rng: np.random.Generator, content: bytes) -> bytes:
    """Other sizes and kinds in the header, some of them huge."""
    if content[:4] == b"\x89PNG":
        header = bytearray(content[16:29])
        if rng.integers(2):
            size = [int(side) for side in rng.choice(_SIDES, 2)]
            header[:8] = struct.pack(">II", *size)
        else:
            header[rng.integers(8, 13)] = rng.integers(5)
        return content[:_HEAD] + chunk(b"IHDR", bytes(header)) + content[33:]
    places = [
        place
        for place in range(len(content) - 1)
        if content[place] == 0xFF and content[place + 1] in _JPEG_MARKERS
    ]
    if content[:2] != b"\xff\xd8" or not places:
        return content
    damaged = bytearray(content)
    place = int(rng.choice(places)) + int(rng.integers(20))
    damaged[min(place, len(damaged) - 1)] = rng.integers(256)
    return bytes(damaged)


def add_behind(rng: np.random.Generator, content: bytes) -> bytes:
    return content + rng.bytes(rng.integers(1, 50))


def mutated(
    rng: np.random.Generator, content: bytes, on_bytes: tuple[Mutation, ...]
) -> bytes:
    """A damaged file.

    Args:
      rng: of the damage.
      content: a good file.
      on_bytes: damages that know nothing of the format.
    """
    own = [change_header, add_behind]
    if content[:4] == b"\x89PNG":
        own += [change_chunks] * 4
    choices = [*on_bytes, *own]
    return choices[rng.integers(len(choices))](rng, content)
