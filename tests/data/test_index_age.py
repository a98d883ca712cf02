"""Which index is taken for that of the file it is beside."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest

from cmt.data.record_index import index_records
from cmt.data.tfrecord import frame
from cmt.errors import InputError


@pytest.fixture
def path(tmp_path) -> str:
    """Three records of 5, 2 and 8 bytes, and an index that says 7, 3 and 5."""
    file = tmp_path / "x-00000-of-00001.tfrecord"
    file.write_bytes(b"".join(map(frame, (b"12345", b"12", b"12345678"))))
    write_index(str(file), np.array([7, 3, 5], np.int64))
    return str(file)


def write_index(path: str, lengths: np.ndarray) -> None:
    with pathlib.Path(path + ".index").open("wb") as file:
        np.save(file, lengths)


def at(path: str, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


@pytest.mark.parametrize(
    ("of_index", "lengths"),
    # Copies and coarse clocks make both times one: as old is not older.
    [(999, [5, 2, 8]), (1000, [7, 3, 5]), (1001, [7, 3, 5])],
)
def test_an_index_older_than_its_file_is_not_used(path, of_index, lengths):
    """Though it would fit by its sum."""
    at(path, 1000)
    at(path + ".index", of_index)
    assert index_records([path]).lengths.tolist() == lengths
    # The new one takes its place.
    assert np.load(path + ".index").tolist() == lengths


@pytest.mark.parametrize(
    "lengths",
    [
        np.array([7, 3, 6], np.int64),  # one byte too many
        np.zeros(0, np.int64),
        np.array([31, -16, 0], np.int64),
        np.array([[7], [3], [5]], np.int64),
        np.array([7, 3, 5], np.int32),
        np.array([7, 3, 5], np.float64),
    ],
)
def test_an_index_that_cannot_be_is_not_used(path, lengths):
    write_index(path, lengths)
    at(path, 1000)
    assert index_records([path]).lengths.tolist() == [5, 2, 8]


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_last_record_without_its_end_is_damage(path, cut):
    """Wherever in the last record the file ends."""
    content = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(content[:-cut])
    pathlib.Path(path + ".index").unlink()
    with pytest.raises(InputError, match="record 2 is cut off or damaged"):
        index_records([path])
    found = index_records([path], skip_damaged=True)
    assert found.lengths.tolist() == [5, 2]
    assert found.offsets.tolist() == [0, 21]
