"""What is in a TFRecord file."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import tensorflow as tf


def read_records(path: pathlib.Path) -> Iterator[bytes]:
    """The records of a file, their checksums checked."""
    return tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
