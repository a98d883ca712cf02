"""Damaged records: what the fuzz test feeds to the reader."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from PIL import Image

from cmt.data.records.tfrecord import Example, encode_decoded, encode_example, frame

IMAGE = "image/encoded"
LABELS = "image/segmentation/class/encoded"
LABELS_FORMAT = "image/segmentation/class/format"
SIZES = ("image/height", "image/width")
NUM_CLASSES = 11
HEIGHT, WIDTH = 23, 37


def seeds() -> list[bytes]:
    """Good records: JPEG or PNG with PNG labels, raw labels, a snapshot's."""
    rng = np.random.default_rng(0)
    # Smooth, so that a JPEG of it is like a photo's.
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([rows * 9, columns * 6, rows + columns], -1).astype(np.uint8)
    labels = rng.integers(0, 3, (HEIGHT, WIDTH)) + 256 * (rows // 5)
    files = {}
    for kind in ("JPEG", "PNG"):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind)
        files[kind.lower()] = buffer.getvalue()
    records = [
        encode_example(name="a", image=file, image_format=kind, labels=labels)
        for kind, file in files.items()
    ]
    raw = tf.train.Example.FromString(records[0])
    set_bytes(raw, LABELS, labels.astype("<i4").tobytes())
    set_bytes(raw, LABELS_FORMAT, b"raw")
    records.append(raw.SerializeToString())
    records.append(encode_decoded(Example(b"a", image, labels, record=0)))
    return records


def set_bytes(example: tf.train.Example, key: str, value: bytes) -> None:
    example.features.feature[key].bytes_list.value[:] = [value]


def get_bytes(example: tf.train.Example, key: str) -> bytes:
    return example.features.feature[key].bytes_list.value[0]


def png_with_size(png: bytes, height: int, width: int) -> bytes:
    """Another size in the header, with the right checksum."""
    header = struct.pack(">II", width, height) + png[24:29]
    checksum = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return png[:16] + header + checksum + png[33:]


def jpeg_with_size(jpeg: bytes, height: int, width: int) -> bytes:
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


def resized(content: bytes, height: int, width: int) -> bytes:
    if content[:3] == b"\xff\xd8\xff":
        return jpeg_with_size(content, height % 65536, width % 65536)
    if content[:4] == b"\x89PNG":
        return png_with_size(content, height % 2**31, width % 2**31)
    return content


def flip_bits(rng: np.random.Generator, content: bytes) -> bytes:
    damaged = bytearray(content)
    for place in rng.integers(0, len(content), rng.integers(1, 9)):
        damaged[place] ^= 1 << rng.integers(8)
    return bytes(damaged)


def cut(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: rng.integers(0, len(content))]


def move(rng: np.random.Generator, content: bytes) -> bytes:
    """A slice is left out, or stands twice."""
    first, last = sorted(rng.integers(0, len(content), 2))
    return content[: rng.choice([first, last])] + content[first:]


def noise(rng: np.random.Generator, content: bytes) -> bytes:
    return rng.bytes(rng.integers(0, len(content)))


BYTES = (flip_bits, cut, move, noise)


def _change_file(rng: np.random.Generator, example: tf.train.Example) -> None:
    key = rng.choice([IMAGE, LABELS])
    change = BYTES[rng.integers(len(BYTES))]
    set_bytes(example, key, change(rng, get_bytes(example, key)))


def _change_type(rng: np.random.Generator, example: tf.train.Example) -> None:
    feature = example.features.feature[rng.choice(sorted(example.features.feature))]
    kind = rng.integers(5)
    if kind == 0:
        feature.int64_list.value[:] = rng.integers(-9, 9, rng.integers(4)).tolist()
    elif kind == 1:
        feature.float_list.value[:] = [float(rng.normal())]
    elif kind == 2:
        feature.bytes_list.value[:] = [rng.bytes(5)] * rng.integers(3)
    elif kind == 3:
        feature.Clear()
    else:
        del example.features.feature[rng.choice(sorted(example.features.feature))]


def _change_size(rng: np.random.Generator, example: tf.train.Example) -> None:
    """Other sizes in the features, the files' headers, or all of them."""
    huge = [int(2 ** rng.uniform(0, 63)), -1, 0, 1, HEIGHT, WIDTH, 8192, 2**31 - 1]
    size = [int(rng.choice(huge)) for _ in SIZES]
    what = rng.integers(1, 8)
    if what & 1:
        for key, value in zip(SIZES, size, strict=True):
            example.features.feature[key].int64_list.value[:] = [value]
    for bit, key in ((2, IMAGE), (4, LABELS)):
        if what & bit:
            set_bytes(example, key, resized(get_bytes(example, key), *size))


def _change_kind(rng: np.random.Generator, example: tf.train.Example) -> None:
    """A file of another kind, or of another size, in the place of one."""
    height, width = rng.choice([1, HEIGHT, WIDTH], 2)
    mode = rng.choice(["L", "RGB", "RGBA", "P", "I;16", "1"])
    picture = Image.new(mode, (int(width), int(height)))
    kinds = ["PNG"] if mode == "I;16" else ["PNG", "GIF", "BMP", "TIFF"]
    kinds += ["JPEG"] if mode in ("L", "RGB") else []
    buffer = io.BytesIO()
    picture.save(buffer, rng.choice(kinds))
    set_bytes(example, rng.choice([IMAGE, LABELS]), buffer.getvalue())


def _change_format(rng: np.random.Generator, example: tf.train.Example) -> None:
    key = rng.choice([LABELS_FORMAT, "image/format"])
    set_bytes(example, key, rng.choice([b"raw", b"png", b"jpeg", b"gif", b""]))


EXAMPLES: tuple[Callable[[np.random.Generator, tf.train.Example], None], ...] = (
    _change_file,
    _change_type,
    _change_size,
    _change_kind,
    _change_format,
)


def mutated_record(rng: np.random.Generator, good: list[bytes]) -> bytes:
    """A damaged serialised example."""
    record = good[rng.integers(len(good))]
    number = rng.integers(len(BYTES) + 3 * len(EXAMPLES))
    if number < len(BYTES):
        return BYTES[number](rng, record)
    example = tf.train.Example.FromString(record)
    for _ in range(rng.integers(1, 3)):
        try:
            EXAMPLES[number % len(EXAMPLES)](rng, example)
        except (IndexError, ValueError):
            break  # What was to be changed is not there any more.
    return example.SerializeToString()


def mutated_file(rng: np.random.Generator, good: list[bytes]) -> bytes:
    """A damaged TFRecord file."""
    content = b"".join(frame(record) for record in good)
    kind = rng.integers(len(BYTES) + 1)
    if kind < len(BYTES):
        return BYTES[kind](rng, content)
    # A length that is not true, with the right checksum.
    length = struct.pack("<Q", int(2 ** rng.uniform(0, 63)))
    return frame(good[0]) + length + frame(length)[-4:] + content
