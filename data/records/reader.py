"""Record number -> decoded example, in TensorFlow operations.

Any record is read alone, at its place in its file: an epoch in any order, and a run
that goes on in the middle of one, read nothing they do not need.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from cmt.data.records.index import RecordIndex
from cmt.data.records.tfrecord import FRAME_BYTES, Example, decode_example
from cmt.errors import InputError, tensorflow_reason

ReadExample = Callable[[tf.Tensor], Example]

# Records tried in place of a damaged one, where damage is skipped.
_ATTEMPTS = 8
_SPECS = Example(
    name=tf.TensorSpec([], tf.string),
    image=tf.TensorSpec([None, None, 3], tf.uint8),
    labels=tf.TensorSpec([None, None], tf.int32),
    record=tf.TensorSpec([], tf.int64),
)


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
        example = examples.concatenate(failed).take(1).get_single_element()
        pairs = zip(example, _SPECS, strict=True)
        return Example(*(tf.ensure_shape(value, spec.shape) for value, spec in pairs))

    return read


def _keep(records: _Records, count: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Reads all records; damaged ones are kept as empty."""

    def first(number: tf.Tensor) -> tf.Tensor:
        found = _unless_damaged(number, records.content)
        found = found.concatenate(records.opened(number).map(lambda _: ""))
        found = found.concatenate(tf.data.Dataset.from_tensors(""))
        return found.take(1).get_single_element()

    numbers = tf.data.Dataset.range(count)
    kept = numbers.map(first, tf.data.AUTOTUNE).batch(count).get_single_element()
    return lambda number: kept[number]


def read_record(index: RecordIndex, record: int) -> tf.Tensor:
    """[] string: one record as it stands, now and not in a pipeline.

    Raises:
      tf.errors.OpError: it is cut off, or does not fit its checksum.
    """
    return _Records(index).content(tf.constant(record, tf.int64))


def image_name(index: RecordIndex, record: int) -> str:
    """The name of a record's image; "damaged" where it cannot be read."""
    features = {"image/filename": tf.io.FixedLenFeature([], tf.string)}
    try:
        found = tf.io.parse_single_example(read_record(index, record), features)
    except tf.errors.OpError:
        return "damaged"
    return found["image/filename"].numpy().decode(errors="replace")


def image_names(index: RecordIndex, count: int) -> list[str]:
    """The names of the images of the first records, without decoding the images.

    Raises:
      tf.errors.OpError: a record cannot be read.
    """
    features = {"image/filename": tf.io.FixedLenFeature([], tf.string)}
    records = _Records(index)

    def name(number: tf.Tensor) -> tf.Tensor:
        example = tf.io.parse_single_example(records.content(number), features)
        return example["image/filename"]

    numbers = tf.data.Dataset.range(count).map(name, tf.data.AUTOTUNE)
    return [name.decode(errors="replace") for name in numbers.as_numpy_iterator()]


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
