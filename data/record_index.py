"""Where the records of TFRecord files begin, so that any one can be read alone.

The index of a shard is made once, by going from the head of one record to that of
the next, and kept beside the shard as `{shard}.index` where the folder is writable.
"""

from __future__ import annotations

import contextlib
import io
import logging
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import tensorflow as tf

from cmt.data import storage
from cmt.data.tfrecord import INDEX_SUFFIX, masked_crc32c
from cmt.errors import InputError

_logger = logging.getLogger(__name__)

_HEAD_BYTES = 12  # length, and its checksum
_FRAME_BYTES = 16  # the head, and the checksum of the content


class RecordIndex(NamedTuple):
    """The places of all records of some files, in order.

    Attributes:
      files: the files.
      file_numbers: [R] int64, index in `files`.
      offsets: [R] int64, bytes before the record in its file.
      lengths: [R] int64, bytes of its content.
      record_numbers: [R] int64, records before it in its file.
    """

    files: list[str]
    file_numbers: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    record_numbers: np.ndarray

    @property
    def num_records(self) -> int:
        """R, at least 1."""
        return len(self.offsets)

    def describe(self, record: int) -> str:
        """ "FILE: record NUMBER", as messages name a record."""
        file = self.files[self.file_numbers[record]]
        return f"{file}: record {self.record_numbers[record]}"


def index_records(
    files: Sequence[str], *, skip_damaged: bool = False, expected: dict | None = None
) -> RecordIndex:
    """Finds all records of some files.

    Args:
      files: paths TensorFlow can open.
      skip_damaged: leave out what follows damage in a file, with a warning.
      expected: records that a file should have, by path; files that are not in it
        may have any number.

    Raises:
      InputError: a file is cut off or damaged, has another number of records than
        expected (unless `skip_damaged`), or there is no record at all.
    """
    lengths = []
    for file in files:
        found = _lengths(file, skip_damaged)
        number = (expected or {}).get(file, len(found))
        if number != len(found):
            message = (
                f"{file}: has {len(found)} whole records, but its manifest says "
                f"{number}; convert the split again with --resume"
            )
            if not skip_damaged:
                raise InputError(f"{message}, or set data.skip_damaged_records")
            _logger.warning("%s", message)
        lengths.append(found)
    if not sum(map(len, lengths)):
        raise InputError(f"{files[0]}: no whole record in this split; convert it again")
    starts = [np.cumsum(one + _FRAME_BYTES) - one - _FRAME_BYTES for one in lengths]
    counts = [len(one) for one in lengths]
    return RecordIndex(
        files=list(files),
        file_numbers=np.repeat(np.arange(len(counts), dtype=np.int64), counts),
        offsets=np.concatenate(starts),
        lengths=np.concatenate(lengths),
        record_numbers=np.concatenate([np.arange(n, dtype=np.int64) for n in counts]),
    )


def _lengths(file: str, skip_damaged: bool) -> np.ndarray:
    """[R] int64: content bytes of the records of a file, from its index if current."""
    try:
        status = tf.io.gfile.stat(file)
        lengths = _read_index(file, status)
        if lengths is None:
            lengths, damage = _scan(file, status.length)
            if not damage:
                _write_index(file, lengths)
            elif not skip_damaged:
                raise InputError(
                    f"{damage}; convert the split again with --resume, or set "
                    "data.skip_damaged_records"
                )
            else:
                _logger.warning("%s; the rest of the file is left out", damage)
    except tf.errors.OpError as error:
        raise InputError(f"{file}: cannot be read ({error.message})") from error
    return lengths


def _scan(file: str, size: int) -> tuple[np.ndarray, str]:
    """Follows the heads; returns the lengths, and what is wrong or ""."""
    lengths: list[int] = []
    place = 0
    with _open(file) as opened:
        while place < size:
            opened.seek(place)
            head = opened.read(_HEAD_BYTES)
            damage = f"{file}: record {len(lengths)} is cut off or damaged"
            if len(head) < _HEAD_BYTES:
                return np.array(lengths, np.int64), damage
            length, checksum = struct.unpack("<QI", head)
            # Also keeps a reader from making room for a length that is not there.
            if (
                checksum != masked_crc32c(head[:8])
                or place + length + _FRAME_BYTES > size
            ):
                return np.array(lengths, np.int64), damage
            lengths.append(length)
            place += length + _FRAME_BYTES
    return np.array(lengths, np.int64), ""


def _open(file: str) -> IO[bytes] | tf.io.gfile.GFile:
    if storage.is_remote(file):
        return tf.io.gfile.GFile(file, "rb")
    return Path(file).open("rb")


def _read_index(file: str, status: object) -> np.ndarray | None:
    """The kept lengths, or None where they are missing or of another file."""
    path = file + INDEX_SUFFIX
    try:
        if tf.io.gfile.stat(path).mtime_nsec < status.mtime_nsec:
            return None
        lengths = np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False)
    except (tf.errors.OpError, OSError, ValueError, EOFError):
        return None
    if lengths.ndim != 1 or lengths.dtype != np.int64 or (lengths < 0).any():
        return None
    fits = int(lengths.sum()) + _FRAME_BYTES * len(lengths) == status.length
    return lengths if fits else None


def _write_index(file: str, lengths: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, lengths, allow_pickle=False)
    # What is marked as not to be written is left alone also by root.
    folder = Path(file).absolute().parent
    if not storage.is_remote(file) and not folder.stat().st_mode & stat.S_IWUSR:
        return
    # Where nothing can be written, the next run looks for the records again.
    with contextlib.suppress(OSError), storage.writing(file + INDEX_SUFFIX) as opened:
        opened.write(content.getvalue())
