"""Which index is taken for that of the file it is beside."""

from __future__ import annotations

import io
import os
import pathlib
import random

import numpy as np
import pytest

from cmt.data.records import index as record_index
from cmt.data.records.index import index_records
from cmt.data.records.tfrecord import frame
from cmt.errors import InputError

CONTENTS = (b"12345", b"12", b"12345678")


@pytest.fixture
def path(tmp_path) -> str:
    """Three records of 5, 2 and 8 bytes, with their index."""
    file = tmp_path / "x-00000-of-00001.tfrecord"
    file.write_bytes(b"".join(map(frame, CONTENTS)))
    index_records([str(file)])
    return str(file)


@pytest.fixture
def scanned(monkeypatch) -> list[str]:
    """The files that are searched for records."""
    files, plain = [], record_index._scan

    def scan(file: str, size: int):
        files.append(file)
        return plain(file, size)

    monkeypatch.setattr(record_index, "_scan", scan)
    return files


def at(path: str, nanoseconds: int) -> None:
    os.utime(path, ns=(nanoseconds, nanoseconds))


@pytest.mark.parametrize("age", [-1, 1, 10**9])
def test_a_file_of_another_time_is_searched_again(path, scanned, age):
    """Though it has as many bytes; times that are set, by a copy, may also go back."""
    index = pathlib.Path(path + ".index")
    time = pathlib.Path(path).stat().st_mtime_ns
    pathlib.Path(path).write_bytes(b"".join(map(frame, CONTENTS[::-1])))
    at(path, time + age)
    at(str(index), time + 10**12)
    assert index_records([path]).lengths.tolist() == [8, 2, 5]
    assert scanned == [path]
    # The new index takes the place of the other.
    assert index_records([path]).lengths.tolist() == [8, 2, 5]
    assert scanned == [path]


def test_the_time_of_the_index_does_not_matter(path, scanned):
    at(path + ".index", 1)
    assert index_records([path]).lengths.tolist() == [5, 2, 8]
    assert not scanned


def test_a_file_of_another_size_is_searched_again(path, scanned):
    time = pathlib.Path(path).stat().st_mtime_ns
    pathlib.Path(path).write_bytes(b"".join(map(frame, CONTENTS[:2])))
    at(path, time)
    assert index_records([path]).lengths.tolist() == [5, 2]
    assert scanned == [path]


def mutated(content: bytes, seed: int) -> bytes:
    """Bits turned, bytes lost, added or doubled."""
    draw = random.Random(seed)
    place = draw.randrange(len(content))
    kind = seed % 4
    if kind == 0:
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        return bytes(changed)
    if kind == 1:
        return content[:place]
    if kind == 2:
        return content + draw.randbytes(1 + place)
    return content[:place] + draw.randbytes(8) + content[place:]


def test_a_damaged_index_is_made_again(path, scanned):
    index = pathlib.Path(path + ".index")
    good = index.read_bytes()
    for seed in range(400):
        index.write_bytes(mutated(good, seed))
        assert index_records([path]).lengths.tolist() == [5, 2, 8], seed
        assert len(scanned) == seed + 1
        assert index.read_bytes() == good, seed


def test_an_index_of_numpy_is_made_again(path, scanned):
    """As they were once: nothing in them tells of damage."""
    content = io.BytesIO()
    np.save(content, np.array([7, 3, 5], np.int64))
    pathlib.Path(path + ".index").write_bytes(content.getvalue())
    assert index_records([path]).lengths.tolist() == [5, 2, 8]
    assert scanned == [path]


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
