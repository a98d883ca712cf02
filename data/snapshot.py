"""A decoded copy of a split on a fast disk, made once: no decoding while training."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow as tf

from cmt.data import storage
from cmt.data.files import atomic_directory
from cmt.data.progress import track
from cmt.data.reader import example_reader
from cmt.data.record_index import RecordIndex, index_records
from cmt.data.tfrecord import Example, encode_decoded
from cmt.errors import InputError

_logger = logging.getLogger(__name__)

_FILE = "examples.tfrecord"
# Of what the file holds; others are made again.
_FORMAT = 2


def snapshot(
    index: RecordIndex,
    folder: Path | str,
    *,
    num_classes: int,
    skip_damaged: bool = False,
) -> RecordIndex:
    """The index of a decoded copy of some records, which is made if it is missing.

    Each set of files has a folder of its own in `folder`; files that change get a
    new one. An image takes 7 bytes a pixel. Of processes that need the same copy at
    the same time, one makes it and the others wait.

    Args:
      index: the records.
      folder: where snapshots are, on this machine.
      num_classes: see `example_reader`.
      skip_damaged: see `example_reader`.

    Raises:
      InputError: the copy is damaged, or the folder is not on this machine.
      tf.errors.OpError: a record is damaged.
      OSError: the disk is full, or the folder cannot be written to.
    """
    if storage.is_remote(folder):
        raise InputError(
            f"data.snapshot_folder must be a folder of this machine, because it is "
            f"there to be fast; got {folder}; give a local one"
        )
    path = Path(folder) / _digest(index, skip_damaged) / _FILE
    if not path.is_file():
        with _alone(path.parent):
            if not path.is_file():
                read = example_reader(
                    index, num_classes=num_classes, skip_damaged=skip_damaged
                )
                numbers = tf.data.Dataset.range(index.num_records)
                # One at a time is written, so few have to wait.
                examples = numbers.map(read, 2).as_numpy_iterator()
                with atomic_directory(path.parent) as temporary:
                    _write(temporary / _FILE, examples, index.num_records)
    return index_records([str(path)], expected={str(path): index.num_records})


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits until no other process makes this snapshot, and keeps others from it.

    What killed processes have left of it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not removed, or one process could wait for a file that others no longer see.
    with path.with_name(f".{path.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _logger.warning("waiting for another process that makes %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        for unfinished in path.parent.glob(f".{path.name}.*.partial"):
            shutil.rmtree(unfinished, ignore_errors=True)
        yield


def _write(path: Path, examples: Iterable[Example], total: int) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in track(examples, description="snapshot", total=total):
            writer.write(encode_decoded(example))


def _digest(index: RecordIndex, skip_damaged: bool) -> str:
    """Of the files, as far as it can be known without reading them."""
    known = (_FORMAT, index.num_records, skip_damaged)
    digest = hashlib.sha256(repr(known).encode())
    for file in index.files:
        stat = tf.io.gfile.stat(file)
        digest.update(repr((file, stat.length, stat.mtime_nsec)).encode())
    return digest.hexdigest()[:16]
