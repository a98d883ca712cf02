"""A decoded copy of a split on a fast disk, made once: no decoding while training."""

from __future__ import annotations

import hashlib
from pathlib import Path

import tensorflow as tf

from cmt.data.files import atomic_directory
from cmt.data.progress import track
from cmt.data.reader import example_reader
from cmt.data.record_index import RecordIndex, index_records
from cmt.data.tfrecord import Example, encode_decoded

_FILE = "examples.tfrecord"


def snapshot(
    index: RecordIndex,
    folder: Path | str,
    *,
    num_classes: int,
    skip_damaged: bool = False,
) -> RecordIndex:
    """The index of a decoded copy of some records, which is made if it is missing.

    Each set of files has a folder of its own in `folder`; files that change get a
    new one. An image takes 7 bytes a pixel.

    Args:
      index: the records.
      folder: where snapshots are.
      num_classes: see `example_reader`.
      skip_damaged: see `example_reader`.

    Raises:
      InputError: the copy is damaged.
      tf.errors.OpError: a record is damaged.
      OSError: the disk is full, or the folder cannot be written to.
    """
    path = Path(folder) / _digest(index, skip_damaged) / _FILE
    if not path.is_file():
        read = example_reader(index, num_classes=num_classes, skip_damaged=skip_damaged)
        numbers = tf.data.Dataset.range(index.num_records)
        # One at a time is written, so few have to wait.
        examples = numbers.map(read, 2).as_numpy_iterator()
        with atomic_directory(path.parent) as temporary:
            _write(temporary / _FILE, examples, index.num_records)
    return index_records([str(path)], expected={str(path): index.num_records})


def _write(path: Path, examples: object, total: int) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in track(examples, description="snapshot", total=total):
            writer.write(encode_decoded(Example(*example)))


def _digest(index: RecordIndex, skip_damaged: bool) -> str:
    """Of the files, as far as it can be known without reading them."""
    digest = hashlib.sha256(repr((index.num_records, skip_damaged)).encode())
    for file in index.files:
        stat = tf.io.gfile.stat(file)
        digest.update(repr((file, stat.length, stat.mtime_nsec)).encode())
    return digest.hexdigest()[:16]
