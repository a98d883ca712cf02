"""The records of a split: encode and decode side by side.

Features are those of DeepLab2's COCO records. `encode_example` and `frame` need no
TensorFlow (they run in worker processes); `decode_example` is TensorFlow operations.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from cmt.data.crc32c import masked_crc32c
from cmt.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

_IMAGE = "image/encoded"
_NAME = "image/filename"
_IMAGE_FORMAT = "image/format"
_HEIGHT = "image/height"
_WIDTH = "image/width"
_CHANNELS = "image/channels"
_LABELS = "image/segmentation/class/encoded"
_LABELS_FORMAT = "image/segmentation/class/format"


class Example(NamedTuple):
    """A decoded record.

    Attributes:
      name: string, the image's file name without extension.
      image: [H, W, 3] uint8 RGB.
      labels: [H, W] int32, class * 256 + instance, 0 for void.
    """

    name: tf.Tensor
    image: tf.Tensor
    labels: tf.Tensor


def encode_labels(labels: np.ndarray) -> bytes:
    """A [H, W] label map, class * 256 + instance, as 16-bit grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray(labels.astype(np.uint16)).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def encode_example(
    *, name: str, image: bytes, image_format: str, labels: np.ndarray
) -> bytes:
    """A serialised tf.train.Example.

    Args:
      name: the image's file name without extension.
      image: the encoded file, three channels of 8 bit.
      image_format: "jpeg" or "png".
      labels: [H, W], class * 256 + instance, below 65536.
    """
    height, width = labels.shape
    features = {
        _CHANNELS: 3,
        _IMAGE: image,
        _NAME: name.encode(),
        _IMAGE_FORMAT: image_format.encode(),
        _HEIGHT: height,
        _LABELS: encode_labels(labels),
        _LABELS_FORMAT: b"png",
        _WIDTH: width,
    }
    entries = [_feature_entry(key, value) for key, value in sorted(features.items())]
    return _message(1, b"".join(entries))


def _feature_entry(key: str, value: bytes | int) -> bytes:
    """An entry of the map<string, Feature> of tf.train.Features."""
    if isinstance(value, bytes):
        feature = _message(1, _message(1, value))  # bytes_list
    else:
        feature = _message(3, _message(1, _varint(value)))  # int64_list, packed
    return _message(1, _message(1, key.encode()) + _message(2, feature))


def _message(field: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def frame(record: bytes) -> bytes:
    """A record as it stands in a TFRecord file: length, checksums and content."""
    length = struct.pack("<Q", len(record))
    return b"".join(
        (
            length,
            struct.pack("<I", masked_crc32c(length)),
            record,
            struct.pack("<I", masked_crc32c(record)),
        )
    )


def read_records(path: Path | str) -> Iterator[bytes]:
    """The serialised examples of a TFRecord file, without TensorFlow.

    Raises:
      InputError: the file is missing, cut off or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such TFRecord file")
    with path.open("rb") as file:
        number = 0
        while head := file.read(12):
            length = _checked(head[:8], head[8:], path, number)
            (size,) = struct.unpack("<Q", length)
            yield _checked(file.read(size), file.read(4), path, number)
            number += 1


def _checked(content: bytes, checksum: bytes, path: Path, number: int) -> bytes:
    if len(checksum) != 4 or struct.unpack("<I", checksum)[0] != masked_crc32c(content):
        raise InputError(
            f"{path}: record {number} is cut off or damaged; convert the split again"
        )
    return content


def decode_example(serialized: tf.Tensor) -> Example:
    """Decodes a serialised example, of ours or of DeepLab2's (raw int32 labels)."""
    # Here and not above: worker processes import this file.
    import tensorflow as tf

    from cmt.data.preprocess import decode_image

    text = tf.io.FixedLenFeature([], tf.string)
    features = tf.io.parse_single_example(
        serialized,
        {
            _IMAGE: text,
            _NAME: text,
            _LABELS: text,
            _LABELS_FORMAT: tf.io.FixedLenFeature([], tf.string, "raw"),
        },
    )
    image = decode_image(features[_IMAGE])

    def decode_png() -> tf.Tensor:
        labels = tf.io.decode_png(features[_LABELS], channels=1, dtype=tf.uint16)
        return tf.cast(labels[..., 0], tf.int32)

    def decode_raw() -> tf.Tensor:
        labels = tf.io.decode_raw(features[_LABELS], tf.int32, little_endian=True)
        return tf.reshape(labels, tf.shape(image)[:2])

    labels = tf.cond(features[_LABELS_FORMAT] == "raw", decode_raw, decode_png)
    return Example(
        name=features[_NAME],
        image=image,
        labels=tf.ensure_shape(labels, [None, None]),
    )
