"""Panoptic PNGs of every form that PNG has for colours are read, damaged ones told."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmt.data.panoptic.masks import color_ids, read_ids
from cmt.errors import InputError
from tests.data.file_mutations import chunk

IDS = np.random.default_rng(0).integers(0, 2**24, (9, 11))
COLORS = np.stack([IDS & 0xFF, IDS >> 8 & 0xFF, IDS >> 16], -1).astype(np.uint8)
# First row and column, and steps, of the passes of an interlaced PNG.
PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2)]
PASSES += [(0, 1, 2, 2), (1, 0, 2, 1)]


def rows(colors: np.ndarray, row_filter: int = 0) -> bytes:
    return b"".join(bytes([row_filter]) + row.tobytes() for row in colors)


def png(pixels: bytes, *, interlaced: bool = False, opacity: bool = False) -> bytes:
    height, width = IDS.shape
    kind = 6 if opacity else 2
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, interlaced)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def with_chunk(kind: bytes, content: bytes) -> bytes:
    """A mask with a chunk before its pixels."""
    plain = png(rows(COLORS))
    place = plain.index(b"IDAT") - 4
    return plain[:place] + chunk(kind, content) + plain[place:]


def saved(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLORS).save(buffer, "PNG", **options)
    return buffer.getvalue()


def interlaced() -> bytes:
    pieces = [COLORS[y::down, x::right] for y, x, down, right in PASSES]
    return png(b"".join(map(rows, pieces)), interlaced=True)


def with_opacity() -> bytes:
    opacity = np.arange(IDS.size, dtype=np.uint8).reshape(*IDS.shape, 1)
    return png(rows(np.concatenate([COLORS, opacity], -1)), opacity=True)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(png(rows(COLORS)), id="plain"),
        pytest.param(saved(), id="pillow"),
        pytest.param(saved(compress_level=0), id="stored"),
        pytest.param(interlaced(), id="interlaced"),
        pytest.param(with_opacity(), id="opacity"),
        pytest.param(with_chunk(b"tRNS", bytes(6)), id="transparent colour"),
        pytest.param(with_chunk(b"gAMA", struct.pack(">I", 45455)), id="gamma"),
        pytest.param(with_chunk(b"sBIT", b"\5\6\5"), id="significant bits"),
        pytest.param(with_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b")), id="text"),
    ],
)
def test_ids_are_those_of_the_colours(tmp_path: Path, content: bytes):
    path = tmp_path / "mask.png"
    path.write_bytes(content)
    found = read_ids(path)
    np.testing.assert_array_equal(found, IDS)
    assert found.dtype == np.int32
    assert color_ids(COLORS[0, 0]) == IDS[0, 0]


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(rows(COLORS, row_filter=7), id="filter that PNG does not have"),
        pytest.param(rows(COLORS[:-1]), id="a row short"),
    ],
)
def test_pixels_that_cannot_be_decoded_are_an_input_error(
    tmp_path: Path, pixels: bytes
):
    path = tmp_path / "mask.png"
    path.write_bytes(png(pixels))
    with pytest.raises(InputError, match="cannot be read: .*; download") as caught:
        read_ids(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
