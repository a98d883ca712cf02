"""Label maps -> 16-bit grey PNG files.

Pillow tries every row filter on every row, which takes longer than all else about a
record; label maps are best predicted from the row above, so only that is written.
Format: https://www.w3.org/TR/png-3/.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FILTER_UP = 2
# 1 to 3 take half the time of 6 and 1.5 times the bytes, some 2 % of a record.
_COMPRESSION = 3


def encode_labels(labels: np.ndarray) -> bytes:
    """A [H, W] label map, class * 256 + instance, as 16-bit grey PNG."""
    height, width = labels.shape
    values = np.ascontiguousarray(labels, ">u2").view(np.uint8)
    rows = np.empty((height, 1 + 2 * width), np.uint8)
    rows[:, 0] = _FILTER_UP
    rows[0, 1:] = values[0]
    np.subtract(values[1:], values[:-1], out=rows[1:, 1:])
    # 16 bits, grey, and the only methods of compression, filtering and interlacing.
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    pixels = zlib.compress(rows, _COMPRESSION)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    length = struct.pack(">I", len(content))
    return length + kind + content + struct.pack(">I", checksum)
