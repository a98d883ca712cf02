"""The records of a split: encode and decode side by side.

Features are those of DeepLab2's COCO records. `encode_example` and `frame` need no
TensorFlow (they run in worker processes); `decode_example` is TensorFlow operations.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c
import numpy as np

from cmt.data.panoptic.png import MAX_PIXELS, MAX_SIDE
from cmt.io.png import encode_png
from cmt.labels import LABEL_DIVISOR, MAX_LABEL_PART

if TYPE_CHECKING:
    import tensorflow as tf

# Ending of the file beside a shard that says where its records begin.
INDEX_SUFFIX = ".index"
# What stands in a file around a record: its length, and two checksums.
FRAME_BYTES = 16

_IMAGE = "image/encoded"
_NAME = "image/filename"
_IMAGE_FORMAT = "image/format"
_HEIGHT = "image/height"
_WIDTH = "image/width"
_CHANNELS = "image/channels"
_LABELS = "image/segmentation/class/encoded"
_LABELS_FORMAT = "image/segmentation/class/format"
# Of a decoded copy: the record it was made from.
_SOURCE_RECORD = "snapshot/record"

_JPEG_HEAD = b"\xff\xd8\xff"
# As Pillow decodes, bit for bit; TensorFlow's default is off by up to 20 grey levels.
JPEG_DCT = "INTEGER_ACCURATE"
_PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # then width, height, kind
_GREY_16 = bytes((16, 0))  # bit depth and colour type of a PNG
_PNG_HEADER = len(_PNG_HEAD) + 13


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
        _NAME: name.encode(),
        _IMAGE: image,
        _IMAGE_FORMAT: image_format.encode(),
        _LABELS: encode_png(labels, compression=3),
        _LABELS_FORMAT: b"png",
    }
    return _encode(labels.shape, features)


def encode_decoded(example: Example) -> bytes:
    """A serialised tf.train.Example of NumPy arrays, as they are; its name is bytes."""
    features = {
        _NAME: example.name,
        _IMAGE: example.image.tobytes(),
        _IMAGE_FORMAT: b"raw",
        _LABELS: example.labels.astype("<i4").tobytes(),
        _LABELS_FORMAT: b"raw",
    }
    if example.record >= 0:
        features[_SOURCE_RECORD] = int(example.record)
    return _encode(example.labels.shape, features)


def _encode(size: tuple[int, int], features: dict[str, bytes | int]) -> bytes:
    features = {**features, _CHANNELS: 3, _HEIGHT: size[0], _WIDTH: size[1]}
    # Protobuf's own encoder gives the same bytes and saves 0.08 ms of the 9 ms that an
    # image of COCO takes. But its class for tf.train.Example comes with all of
    # TensorFlow, one of our own is 100 generated lines and 0.04 s at the start of each
    # worker process, and no version of it promises the bytes of another, which the
    # SHA-256 of shards and `--resume` need.
    entries = [_feature_entry(key, value) for key, value in sorted(features.items())]
    return _message(1, b"".join(entries))


def _feature_entry(key: str, value: bytes | int) -> bytes:
    """An entry of the map of tf.train.Features."""
    if isinstance(value, bytes):
        feature = _message(1, _message(1, value))  # bytes_list
    else:
        feature = _message(3, _message(1, _varint(value)))  # int64_list, packed
    return _message(1, _message(1, key.encode()) + _message(2, feature))


def _message(field: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
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


def decode_example(serialized: tf.Tensor, num_classes: int = MAX_LABEL_PART) -> Example:
    """Decodes a serialised example, of ours or of DeepLab2's, told by its features.

    Headers are compared with the declared size before anything is decoded, so that
    a few bytes cannot ask for gigabytes. What does not fit fails as an error of
    TensorFlow when it is run.

    Args:
      serialized: [] string, a tf.train.Example.
      num_classes: C; labels of other classes than 0..C do not fit.
    """
    # Here and not above: worker processes import this file.
    import tensorflow as tf

    text = tf.io.FixedLenFeature([], tf.string)
    number = tf.io.FixedLenFeature([], tf.int64)
    features = tf.io.parse_single_example(
        serialized,
        {
            _IMAGE: text,
            _IMAGE_FORMAT: tf.io.FixedLenFeature([], tf.string, ""),
            _NAME: text,
            _HEIGHT: number,
            _WIDTH: number,
            _LABELS: text,
            _LABELS_FORMAT: tf.io.FixedLenFeature([], tf.string, "raw"),
            _SOURCE_RECORD: tf.io.FixedLenFeature([], tf.int64, -1),
        },
    )
    size = tf.stack([features[_HEIGHT], features[_WIDTH]])
    possible = tf.reduce_all((size >= 1) & (size <= MAX_SIDE))
    possible &= size[0] * size[1] <= MAX_PIXELS
    size = _where(possible, size, "impossible size of a record:", size)
    size = tf.cast(size, tf.int32)
    image = _decode_image(features[_IMAGE], features[_IMAGE_FORMAT], size)
    labels = _decode_labels(features[_LABELS], features[_LABELS_FORMAT], size)
    largest = (num_classes + 1) * LABEL_DIVISOR - 1
    known = (tf.reduce_min(labels) >= 0) & (tf.reduce_max(labels) <= largest)
    labels = _where(known, labels, "labels must be 0 to", largest)
    return Example(
        name=features[_NAME],
        image=tf.reshape(image, [size[0], size[1], 3]),
        labels=tf.reshape(labels, [size[0], size[1]]),
        record=features[_SOURCE_RECORD],
    )


def _where(condition: tf.Tensor, value: tf.Tensor, rule: str, got: object) -> tf.Tensor:
    """`value`, but an error at run time where the condition does not hold.

    `got` is a number: TensorFlow cannot raise errors that quote arbitrary bytes.
    """
    import tensorflow as tf

    # What depends on the result waits for the check.
    check = tf.debugging.Assert(condition, [rule, got])
    with tf.control_dependencies([check]):
        return tf.identity(value)


def _decode_image(encoded: tf.Tensor, form: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """[H, W, 3] uint8 of a JPEG, a PNG, or the RGB bytes of a snapshot."""
    import tensorflow as tf

    def jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(encoded)[:2]
        same = tf.reduce_all(shape == size)
        checked = _where(same, encoded, "impossible JPEG size:", shape)
        return tf.io.decode_jpeg(checked, channels=3, dct_method=JPEG_DCT)

    def png() -> tf.Tensor:
        return tf.io.decode_png(_checked_png(encoded, size), channels=3)

    def raw() -> tf.Tensor:
        return tf.reshape(tf.io.decode_raw(encoded, tf.uint8), [size[0], size[1], 3])

    # Of files the first bytes tell; names of formats are often wrong.
    is_jpeg = tf.strings.substr(encoded, 0, len(_JPEG_HEAD)) == _JPEG_HEAD
    return tf.cond(form == "raw", raw, lambda: tf.cond(is_jpeg, jpeg, png))


def _decode_labels(encoded: tf.Tensor, form: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """[H, W] int32 of a 16-bit grey PNG, or of little-endian int32 numbers."""
    import tensorflow as tf

    def png() -> tf.Tensor:
        checked = _checked_png(encoded, size, _GREY_16)
        labels = tf.io.decode_png(checked, channels=1, dtype=tf.uint16)
        return tf.cast(labels[..., 0], tf.int32)

    def raw() -> tf.Tensor:
        labels = tf.io.decode_raw(encoded, tf.int32, little_endian=True)
        return tf.reshape(labels, size)

    known = (form == "raw") | (form == "png")
    form = _where(known, form, "impossible label format:", tf.strings.length(form))
    return tf.cond(form == "raw", raw, png)


def _checked_png(encoded: tf.Tensor, size: tf.Tensor, kind: bytes = b"") -> tf.Tensor:
    """A PNG whose header has this size, and bit depth and colour type if given."""
    import tensorflow as tf

    # substr fails where there are fewer bytes.
    long_enough = tf.strings.length(encoded) > _PNG_HEADER
    encoded = _where(long_enough, encoded, "impossible length of a PNG:", size)
    head = tf.strings.substr(encoded, 0, len(_PNG_HEAD))
    shape = tf.io.decode_raw(
        tf.strings.substr(encoded, len(_PNG_HEAD), 8), tf.int32, little_endian=False
    )[::-1]
    found = tf.strings.substr(encoded, len(_PNG_HEAD) + 8, len(kind))
    same = (head == _PNG_HEAD) & tf.reduce_all(shape == size) & (found == kind)
    return _where(same, encoded, "impossible PNG header:", shape)
