"""The records of a split, encoded without TensorFlow, as worker processes do it.

Features are those of DeepLab2's COCO records; `reader.decode_example` decodes them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c
import numpy as np

from cmt.io.png import encode_png

if TYPE_CHECKING:
    import tensorflow as tf

# Ending of the file beside a shard that says where its records begin.
INDEX_SUFFIX = ".index"
# What stands in a file around a record: its length, and two checksums.
FRAME_BYTES = 16

IMAGE = "image/encoded"
NAME = "image/filename"
IMAGE_FORMAT = "image/format"
HEIGHT = "image/height"
WIDTH = "image/width"
_CHANNELS = "image/channels"
LABELS = "image/segmentation/class/encoded"
LABELS_FORMAT = "image/segmentation/class/format"
# Of a decoded copy: the record it was made from.
SOURCE_RECORD = "snapshot/record"


class Example(NamedTuple):
    """A decoded record.

    Attributes:
      name: string, the image's file name without extension.
      image, labels: [H, W, 3] uint8 RGB; [H, W] int32, class * 256 + instance, 0 void.
      record: int64, place among the records of the split; -1 where it is not known.
    """

    name: tf.Tensor
    image: tf.Tensor
    labels: tf.Tensor
    record: tf.Tensor | int = -1


def encode_example(
    *, name: str, image: bytes, image_format: str, labels: np.ndarray
) -> bytes:
    """A serialised tf.train.Example of an RGB image, "jpeg" or "png", and its labels.

    `labels` are [H, W], class * 256 + instance, below 65536; `name` is the image's file
    name without extension.
    """
    features = {
        NAME: name.encode(),
        IMAGE: image,
        IMAGE_FORMAT: image_format.encode(),
        LABELS: encode_png(labels, compression=3),
        LABELS_FORMAT: b"png",
    }
    return _encode(labels.shape, features)


def encode_decoded(example: Example) -> bytes:
    """A serialised tf.train.Example of NumPy arrays, as they are; its name is bytes."""
    features = {
        NAME: example.name,
        IMAGE: example.image.tobytes(),
        IMAGE_FORMAT: b"raw",
        LABELS: example.labels.astype("<i4").tobytes(),
        LABELS_FORMAT: b"raw",
    }
    if example.record >= 0:
        features[SOURCE_RECORD] = int(example.record)
    return _encode(example.labels.shape, features)


def _encode(size: tuple[int, int], features: dict[str, bytes | int]) -> bytes:
    features = {**features, _CHANNELS: 3, HEIGHT: size[0], WIDTH: size[1]}
    # Protobuf's own encoder gives the same bytes and saves 0.08 ms of the 9 ms that an
    # image of COCO takes. But its class for tf.train.Example comes with all of
    # TensorFlow, one of our own is 100 generated lines and 0.04 s at the start of each
    # worker process, and no version of it promises the bytes of another, which the
    # SHA-256 of shards and `--resume` need.
    entries = [_feature_entry(key, value) for key, value in sorted(features.items())]
    return _message(1, b"".join(entries))


# Forty of each for every record.
_BYTES = [bytes((value,)) for value in range(0x80)]
_TAGS = {field: bytes((field << 3 | 2,)) for field in (1, 2, 3)}


def _feature_entry(key: str, value: bytes | int) -> bytes:
    """An entry of the map of tf.train.Features."""
    if isinstance(value, bytes):
        feature = _message(1, _message(1, value))  # bytes_list
    else:
        feature = _message(3, _message(1, _varint(value)))  # int64_list, packed
    return _message(1, _message(1, key.encode()) + _message(2, feature))


def _message(field: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _TAGS[field] + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if value <= 0x7F:
        return _BYTES[value]
    encoded = b""
    while value > 0x7F:
        encoded += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return encoded + bytes((value,))


def frame(record: bytes) -> bytes:
    """A record as it stands in a TFRecord file: length, checksums and content."""
    length = struct.pack("<Q", len(record))
    checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, record)]
    return b"".join((length, checksums[0], record, checksums[1]))


def masked_crc32c(data: bytes) -> int:
    """CRC-32C of `data`, as TFRecord files store it."""
    value = google_crc32c.value(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
