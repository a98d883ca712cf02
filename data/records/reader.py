"""Record number -> decoded example, in TensorFlow operations.

Any record is read alone, at its place in its file: an epoch in any order, and a run
that goes on in the middle of one, read nothing they do not need.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from cmt.data.records import tfrecord
from cmt.data.records.index import RecordIndex
from cmt.data.records.tfrecord import FRAME_BYTES, Example
from cmt.errors import InputError, tensorflow_reason
from cmt.io.decode import JPEG_DCT, checked
from cmt.io.images import JPEG_HEAD
from cmt.io.png import HEAD, MAX_PIXELS, MAX_SIDE
from cmt.io.tuning import untuned
from cmt.labels import LABEL_DIVISOR, MAX_LABEL_PART

ReadExample = Callable[[tf.Tensor], Example]

_PNG_HEAD = HEAD + b"\0\0\0\rIHDR"  # then width, height, kind
_PNG_HEADER = len(_PNG_HEAD) + 13
_GREY_16 = bytes((16, 0))  # bit depth and colour type of a PNG
# Records tried in place of a damaged one, where damage is skipped.
_ATTEMPTS = 8


def example_reader(
    index: RecordIndex,
    *,
    num_classes: int,
    skip_damaged: bool = False,
    in_memory: bool = False,
) -> ReadExample:
    """Makes the function that reads and decodes one record.

    Args:
      num_classes: C; labels of other classes count as damage.
      skip_damaged: in place of a damaged record the next whole one is read, and a
        warning names it; `Example.record` says which one it is. The result depends
        on the record number alone: a file that cannot be opened is no damage.
      in_memory: read all records now and keep them, still encoded.

    Returns:
      [] int64 record number -> Example, in TensorFlow operations, for
      `tf.data.Dataset.map`. A record that is damaged, or none of what the features
      promise, ends it with an error that names file and record; a file that cannot
      be opened, with TensorFlow's, which names the file and says why.
    """
    records = _Records(index)
    content = _keep(records, index.num_records) if in_memory else records.content

    def read(number: tf.Tensor) -> Example:
        def attempt(count: tf.Tensor) -> tf.data.Dataset:
            if skip_damaged:
                records.warn_of(number + count - 1, count > 0)
            place = (number + count) % index.num_records

            def decode(place: tf.Tensor) -> Example:
                example = decode_example(content(place), num_classes)
                # A decoded copy knows what it was made from, and has as many records.
                copied = (example.record >= 0) & (example.record < index.num_records)
                return example._replace(record=tf.where(copied, example.record, place))

            found = _unless_damaged(place, decode)
            if in_memory:
                return found
            return found.concatenate(records.opened(place).map(records.fail))

        attempts = tf.data.Dataset.range(_ATTEMPTS if skip_damaged else 1)
        examples = attempts.flat_map(attempt)
        failed = tf.data.Dataset.from_tensors(number).map(records.fail)
        return examples.concatenate(failed).take(1).get_single_element()

    return read


def _keep(records: _Records, count: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Reads all records; damaged ones are kept as empty."""

    def first(number: tf.Tensor) -> tf.Tensor:
        found = _unless_damaged(number, records.content)
        found = found.concatenate(records.opened(number).map(lambda _: ""))
        found = found.concatenate(tf.data.Dataset.from_tensors(""))
        return found.take(1).get_single_element()

    numbers = tf.data.Dataset.range(count)
    kept = untuned(numbers.map(first, tf.data.AUTOTUNE).batch(count))
    kept = kept.get_single_element()
    return lambda number: kept[number]


def read_record(index: RecordIndex, record: int) -> tf.Tensor:
    """[] string: one record as it stands, now and not in a pipeline.

    Raises:
      tf.errors.OpError: it is cut off, or does not fit its checksum.
    """
    return _Records(index).content(tf.constant(record, tf.int64))


def image_name(index: RecordIndex, record: int) -> str:
    """The name of a record's image; "damaged" where it cannot be read."""
    try:
        return _name(read_record(index, record)).numpy().decode(errors="replace")
    except tf.errors.OpError:
        return "damaged"


def image_names(index: RecordIndex, count: int) -> list[str]:
    """The names of the images of the first records, without decoding the images.

    Raises:
      tf.errors.OpError: a record cannot be read.
    """
    records, numbers = _Records(index), tf.data.Dataset.range(count)
    names = numbers.map(lambda n: _name(records.content(n)), tf.data.AUTOTUNE)
    names = untuned(names).as_numpy_iterator()
    return [name.decode(errors="replace") for name in names]


def _name(serialized: tf.Tensor) -> tf.Tensor:
    features = {tfrecord.NAME: tf.io.FixedLenFeature([], tf.string)}
    return tf.io.parse_single_example(serialized, features)[tfrecord.NAME]


def why_damaged(index: RecordIndex, record: int, num_classes: int) -> str:
    """What is wrong with a record, "" if nothing.

    Raises:
      InputError: its file cannot be opened.
    """
    try:
        serialized = read_record(index, record)
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        return "its content does not fit its checksum"
    except tf.errors.OpError as error:
        raise InputError(
            f"{index.describe(record)} cannot be read ({tensorflow_reason(error)}); "
            "put the file back where it was, or make it readable"
        ) from error
    try:
        decode_example(serialized, num_classes)
    except tf.errors.OpError as error:
        return tensorflow_reason(error)
    except UnicodeDecodeError:  # TensorFlow's message quotes what it cannot parse.
        return "it is no tf.train.Example"
    return ""


class _Records:
    """The records of an index, by numbers that are tensors."""

    def __init__(self, index: RecordIndex):
        self._index = RecordIndex(*map(tf.constant, index))

    def content(self, number: tf.Tensor) -> tf.Tensor:
        """[] string: a serialised record, whose checksums are compared."""
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=self._file(number),
            compression_type="",
            # All of the record, and nothing behind it.
            buffer_size=self._index.lengths[number] + FRAME_BYTES,
            byte_offsets=self._index.offsets[number],
        )
        spec = tf.TensorSpec([], tf.string)
        dataset = tf.data.experimental.from_variant(variant, spec)
        return dataset.take(1).get_single_element()

    def opened(self, number: tf.Tensor) -> tf.data.Dataset:
        """No element [] int64, but TensorFlow's error where the file does not open."""
        file = self._file(number)
        first_byte = tf.data.FixedLengthRecordDataset(file, 1, buffer_size=1)
        return first_byte.take(1).skip(1).map(lambda _: number)

    def _file(self, number: tf.Tensor) -> tf.Tensor:
        return self._index.files[self._index.file_numbers[number]]

    def _name(self, number: tf.Tensor) -> tf.Tensor:
        record = tf.strings.as_string(self._index.record_numbers[number])
        return tf.strings.join([self._file(number), ": record ", record])

    def warn_of(self, number: tf.Tensor, condition: tf.Tensor) -> None:
        """Says on standard error that a record is skipped, where `condition`."""
        name = self._name(number % tf.size(self._index.offsets, tf.int64))
        line = tf.strings.join(["warning: ", name, " is damaged and skipped"])
        tf.cond(condition, lambda: tf.print(line, output_stream=sys.stderr), tf.no_op)

    def fail(self, number: tf.Tensor) -> Example:
        """An example that cannot be made: running it raises an error."""
        name, remedy = self._name(number), self._index.remedy
        message = name + " cannot be read or decoded; " + remedy
        check = tf.debugging.Assert(False, [message], summarize=1)
        with tf.control_dependencies([check]):
            return Example(
                name=tf.identity(message),
                image=tf.zeros([1, 1, 3], tf.uint8),
                labels=tf.zeros([1, 1], tf.int32),
                record=tf.identity(number),
            )


def _unless_damaged(
    number: tf.Tensor, function: Callable[[tf.Tensor], Any]
) -> tf.data.Dataset:
    """What a function makes of a number; no element where it fails.

    Of one element, the map is past it when it has failed. A dataset of records is
    not past a file that does not open, and `ignore_errors` would ask for ever.
    """
    found = tf.data.Dataset.from_tensors(number).map(function)
    return found.apply(tf.data.Dataset.ignore_errors)


def decode_example(serialized: tf.Tensor, num_classes: int = MAX_LABEL_PART) -> Example:
    """Decodes a serialised example, of ours or of DeepLab2's, told by its features.

    Headers are compared with the declared size before anything is decoded, so that
    a few bytes cannot ask for gigabytes. What does not fit fails as an error of
    TensorFlow when it is run.

    Args:
      serialized: [] string, a tf.train.Example.
      num_classes: C; labels of other classes than 0..C do not fit.
    """
    text = tf.io.FixedLenFeature([], tf.string)
    number = tf.io.FixedLenFeature([], tf.int64)
    features = tf.io.parse_single_example(
        serialized,
        {
            tfrecord.IMAGE: text,
            tfrecord.IMAGE_FORMAT: tf.io.FixedLenFeature([], tf.string, ""),
            tfrecord.NAME: text,
            tfrecord.HEIGHT: number,
            tfrecord.WIDTH: number,
            tfrecord.LABELS: text,
            tfrecord.LABELS_FORMAT: tf.io.FixedLenFeature([], tf.string, "raw"),
            tfrecord.SOURCE_RECORD: tf.io.FixedLenFeature([], tf.int64, -1),
        },
    )
    size = tf.stack([features[tfrecord.HEIGHT], features[tfrecord.WIDTH]])
    possible = tf.reduce_all((size >= 1) & (size <= MAX_SIDE))
    possible &= size[0] * size[1] <= MAX_PIXELS
    size = checked(size, possible, ["impossible size of a record:", size])
    size = tf.cast(size, tf.int32)
    kinds = features[tfrecord.IMAGE_FORMAT], features[tfrecord.LABELS_FORMAT]
    image = _decode_image(features[tfrecord.IMAGE], kinds[0], size)
    labels = _decode_labels(features[tfrecord.LABELS], kinds[1], size)
    largest = (num_classes + 1) * LABEL_DIVISOR - 1
    known = (tf.reduce_min(labels) >= 0) & (tf.reduce_max(labels) <= largest)
    labels = checked(labels, known, ["labels must be 0 to", largest])
    return Example(
        name=features[tfrecord.NAME],
        image=tf.reshape(image, [size[0], size[1], 3]),
        labels=tf.reshape(labels, [size[0], size[1]]),
        record=features[tfrecord.SOURCE_RECORD],
    )


def _decode_image(encoded: tf.Tensor, form: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """[H, W, 3] uint8 of a JPEG, a PNG, or the RGB bytes of a snapshot."""

    def jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(encoded)[:2]
        same = tf.reduce_all(shape == size)
        content = checked(encoded, same, ["impossible JPEG size:", shape])
        return tf.io.decode_jpeg(content, channels=3, dct_method=JPEG_DCT)

    def png() -> tf.Tensor:
        return tf.io.decode_png(_checked_png(encoded, size), channels=3)

    def raw() -> tf.Tensor:
        return tf.reshape(tf.io.decode_raw(encoded, tf.uint8), [size[0], size[1], 3])

    # Of files the first bytes tell; names of formats are often wrong.
    is_jpeg = tf.strings.substr(encoded, 0, len(JPEG_HEAD)) == JPEG_HEAD
    return tf.cond(form == "raw", raw, lambda: tf.cond(is_jpeg, jpeg, png))


def _decode_labels(encoded: tf.Tensor, form: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """[H, W] int32 of a 16-bit grey PNG, or of little-endian int32 numbers."""

    def png() -> tf.Tensor:
        content = _checked_png(encoded, size, _GREY_16)
        labels = tf.io.decode_png(content, channels=1, dtype=tf.uint16)
        return tf.cast(labels[..., 0], tf.int32)

    def raw() -> tf.Tensor:
        labels = tf.io.decode_raw(encoded, tf.int32, little_endian=True)
        return tf.reshape(labels, size)

    known = (form == "raw") | (form == "png")
    got = ["impossible label format:", tf.strings.length(form)]
    form = checked(form, known, got)
    return tf.cond(form == "raw", raw, png)


def _checked_png(encoded: tf.Tensor, size: tf.Tensor, kind: bytes = b"") -> tf.Tensor:
    """A PNG whose header has this size, and bit depth and colour type if given."""
    # substr fails where there are fewer bytes.
    long_enough = tf.strings.length(encoded) > _PNG_HEADER
    got = ["impossible length of a PNG:", size]
    encoded = checked(encoded, long_enough, got)
    head = tf.strings.substr(encoded, 0, len(_PNG_HEAD))
    shape = tf.io.decode_raw(
        tf.strings.substr(encoded, len(_PNG_HEAD), 8), tf.int32, little_endian=False
    )[::-1]
    found = tf.strings.substr(encoded, len(_PNG_HEAD) + 8, len(kind))
    same = (head == _PNG_HEAD) & tf.reduce_all(shape == size) & (found == kind)
    return checked(encoded, same, ["impossible PNG header:", shape])
