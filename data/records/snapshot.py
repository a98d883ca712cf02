"""A decoded copy of a split on a fast disk, made once: no decoding while training."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

from cmt.data.records.index import RecordIndex, index_records
from cmt.data.records.reader import example_reader
from cmt.data.records.tfrecord import Example, encode_decoded
from cmt.errors import InputError
from cmt.io import storage
from cmt.io.files import atomic_directory, locked
from cmt.io.progress import track
from cmt.io.tuning import untuned

_FILE = "examples.tfrecord"
# Of what the file holds; others are made again.
_FORMAT = 2
# What follows the name of a copy in which some records stand in for damaged ones.
_PATCHED = "-skipped"


def snapshot(
    index: RecordIndex,
    folder: Path | str,
    *,
    num_classes: int,
    skip_damaged: bool = False,
) -> RecordIndex:
    """The index of a decoded copy of some records, which is made if it is missing.

    Each set of files has a folder of its own in `folder`, on this machine; files that
    change get a new one, and so does a copy with others in place of damaged records.
    An image takes 7 bytes a pixel. Of processes that need the same copy at the same
    time, one makes it and the others wait.

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
    folder, name = Path(folder), _digest(index)
    whole, patched = folder / name / _FILE, folder / f"{name}{_PATCHED}" / _FILE
    if not whole.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        busy = f"waiting for another process that makes {whole.parent}"
        with locked(folder / f".{name}.lock", busy, wait=True):
            # What killed processes have left of it.
            for unfinished in folder.glob(f".{name}*.partial"):
                shutil.rmtree(unfinished, ignore_errors=True)
            if not (whole.is_file() or (skip_damaged and patched.is_file())):
                read = example_reader(
                    index, num_classes=num_classes, skip_damaged=skip_damaged
                )
                numbers = tf.data.Dataset.range(index.num_records)
                # One at a time is written, so few have to wait.
                examples = untuned(numbers.map(read, 2)).as_numpy_iterator()
                made = patched if skip_damaged else whole
                with atomic_directory(made.parent) as temporary:
                    replaced = _write(temporary / _FILE, examples, index.num_records)
                if skip_damaged and not replaced:
                    storage.move(patched.parent, whole.parent)
    copy = whole if whole.is_file() else patched
    return index_records(
        [str(copy)],
        expected={str(copy): index.num_records},
        remedy=f"delete {copy.parent}, and the next run makes this copy again",
    )


def _write(path: Path, examples: Iterable[Example], total: int) -> int:
    """Writes the copy; returns how many records are there in place of others."""
    replaced = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        tracked = track(examples, description="snapshot", total=total)
        for number, example in enumerate(tracked):
            writer.write(encode_decoded(example))
            replaced += int(example.record != number)
    return replaced


def _digest(index: RecordIndex) -> str:
    """Of the files, as far as it can be known without reading them."""
    digest = hashlib.sha256(repr((_FORMAT, index.num_records)).encode())
    for file in index.files:
        digest.update(repr((file, *(storage.stamp(file) or ()))).encode())
    return digest.hexdigest()[:16]
