"""Where the records of TFRecord files begin, so that any one can be read alone.

The index of a shard is made once, by going from the head of one record to that of
the next, and kept beside the shard as `{shard}.index` where the folder is writable.
"""

from __future__ import annotations

import contextlib
import logging
import stat
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cmt.data.records.tfrecord import FRAME_BYTES, INDEX_SUFFIX, masked_crc32c
from cmt.errors import InputError
from cmt.io import storage
from cmt.io.files import atomic_write

_logger = logging.getLogger(__name__)

_HEAD_BYTES = 12  # length, and its checksum
_CONVERT_AGAIN = (
    "convert the split again with --resume, or set data.skip_damaged_records"
)
_INDEX_FORMAT = b"CMTIDX\0\2"  # its last byte counts the formats there have been
_INDEX_HEAD = struct.Struct("<8sqq")


class RecordIndex(NamedTuple):
    """The places of all records of some files, in order.

    Attributes:
      file_numbers, offsets: [R] int64, each record's file, and bytes before it there.
      lengths, record_numbers: [R] int64, its bytes, and records before it there.
      remedy: what to do about damage in the files, for messages.
    """

    files: list[str]
    file_numbers: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    record_numbers: np.ndarray
    remedy: str = _CONVERT_AGAIN

    @property
    def num_records(self) -> int:
        """R, at least 1."""
        return len(self.offsets)

    def describe(self, record: int) -> str:
        """File and number of a record, as messages name it."""
        file = self.files[self.file_numbers[record]]
        return f"{file}: record {self.record_numbers[record]}"


def index_records(
    files: Sequence[str],
    *,
    skip_damaged: bool = False,
    expected: Mapping[str, int] | None = None,
    remedy: str = _CONVERT_AGAIN,
) -> RecordIndex:
    """Finds all records of some files, paths that TensorFlow can open.

    Args:
      skip_damaged: leave out what follows damage in a file, with a warning.
      expected: records that a file should have, by path; files that are not in it
        may have any number.
      remedy: what to do about damage, for messages.

    Raises:
      InputError: a file is cut off or damaged, has another number of records than
        expected (unless `skip_damaged`), or there is no record at all.
    """
    lengths = []
    for file in files:
        found = _lengths(file, skip_damaged, remedy)
        number = (expected or {}).get(file, len(found))
        if number != len(found):
            message = f"{file}: has {len(found)} whole records, but its manifest says "
            if not skip_damaged:
                raise InputError(f"{message}{number}; {remedy}")
            _logger.warning("%s%s", message, number)
        lengths.append(found)
    if not sum(map(len, lengths)):
        raise InputError(f"{files[0]}: no whole record in this split; {remedy}")
    starts = [np.cumsum(one + FRAME_BYTES) - one - FRAME_BYTES for one in lengths]
    counts = [len(one) for one in lengths]
    return RecordIndex(
        files=list(files),
        file_numbers=np.repeat(np.arange(len(counts), dtype=np.int64), counts),
        offsets=np.concatenate(starts),
        lengths=np.concatenate(lengths),
        record_numbers=np.concatenate([np.arange(n, dtype=np.int64) for n in counts]),
        remedy=remedy,
    )


def _lengths(file: str, skip_damaged: bool, remedy: str) -> np.ndarray:
    """[R] int64: content bytes of the records of a file, from its index if current."""
    try:
        stamp = storage.stamp(file)
        if stamp is None:
            raise FileNotFoundError(2, "No such file", file)
        lengths = _read_index(file, stamp)
        if lengths is not None:
            return lengths
        lengths, damage = _scan(file, stamp[0])
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    if not damage:
        _write_index(file, _index_content(lengths, stamp))
    elif not skip_damaged:
        raise InputError(f"{damage}; {remedy}")
    else:
        _logger.warning("%s; the rest of the file is left out", damage)
    return lengths


def _scan(file: str, size: int) -> tuple[np.ndarray, str]:
    """Follows the heads; returns the lengths, and what is wrong or ""."""
    lengths: list[int] = []
    place, damage = 0, ""
    with storage.open_file(file) as opened:
        while place < size:
            opened.seek(place)
            head = opened.read(_HEAD_BYTES).ljust(_HEAD_BYTES, b"\0")
            length, checksum = struct.unpack("<QI", head)
            end = place + length + FRAME_BYTES
            # Also keeps a reader from making room for a length that is not there.
            if checksum != masked_crc32c(head[:8]) or end > size:
                damage = f"{file}: record {len(lengths)} is cut off or damaged"
                break
            lengths.append(length)
            place = end
    return np.array(lengths, np.int64), damage


def _read_index(file: str, stamp: tuple[int, int]) -> np.ndarray | None:
    """The kept lengths, or None where they are missing or of another file."""
    try:
        content = storage.read_bytes(file + INDEX_SUFFIX)
    except OSError:
        return None
    lengths = np.frombuffer(content[_INDEX_HEAD.size : -4], np.uint8)
    lengths = lengths[: len(lengths) // 8 * 8].view("<i8").astype(np.int64)
    # Compared as a whole, no byte of it can be another.
    return lengths if content == _index_content(lengths, stamp) else None


def _index_content(lengths: np.ndarray, stamp: tuple[int, int]) -> bytes:
    """Size and time of the shard, the lengths of its records, and a checksum."""
    head = _INDEX_HEAD.pack(_INDEX_FORMAT, *stamp)
    content = head + lengths.astype("<i8").tobytes()
    return content + struct.pack("<I", masked_crc32c(content))


def _write_index(file: str, content: bytes) -> None:
    # What is marked as not to be written is left alone also by root.
    folder = Path(file).absolute().parent
    if not storage.is_remote(file) and not folder.stat().st_mode & stat.S_IWUSR:
        return
    # Where nothing can be written, the next run looks for the records again.
    with contextlib.suppress(OSError), atomic_write(file + INDEX_SUFFIX) as opened:
        opened.write(content)
