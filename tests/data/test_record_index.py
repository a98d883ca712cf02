from __future__ import annotations

import os
import pathlib
import struct

import pytest
import tensorflow as tf

from cmt.data.records.index import INDEX_SUFFIX, index_records
from cmt.data.records.tfrecord import frame
from cmt.errors import InputError

RECORDS = [b"one", b"", b"three" * 100, b"four"]


@pytest.fixture
def path(tmp_path) -> str:
    file = tmp_path / "x-00000-of-00001.tfrecord"
    file.write_bytes(b"".join(map(frame, RECORDS)))
    return str(file)


def damage(path: str, place: int) -> None:
    with pathlib.Path(path).open("r+b") as file:
        file.seek(place)
        value = file.read(1)
        file.seek(place)
        file.write(bytes([value[0] ^ 1]))


def test_records_are_where_the_index_says(path, tmp_path):
    other = tmp_path / "y.tfrecord"
    other.write_bytes(frame(b"fifth"))
    index = index_records([path, str(other)], expected={path: 4})
    contents = [tf.io.gfile.GFile(file, "rb").read() for file in index.files]
    found = [
        contents[file][offset + 12 : offset + 12 + length]
        for file, offset, length in zip(
            index.file_numbers, index.offsets, index.lengths, strict=True
        )
    ]
    assert found == [*RECORDS, b"fifth"]
    assert index.record_numbers.tolist() == [0, 1, 2, 3, 0]
    assert index.describe(4) == f"{other}: record 0"


def test_the_index_is_made_once_and_again_when_the_file_changes(path):
    first = index_records([path])
    kept = path + INDEX_SUFFIX
    assert first.lengths.tolist() == [len(record) for record in RECORDS]
    # What is kept is used: heads that nobody reads any more may be damaged.
    times = pathlib.Path(path).stat()
    damage(path, 3)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert index_records([path]).offsets.tolist() == first.offsets.tolist()

    pathlib.Path(path).write_bytes(frame(b"new"))
    assert index_records([path]).lengths.tolist() == [3]
    good = pathlib.Path(kept).read_bytes()
    pathlib.Path(kept).write_bytes(b"no index")
    assert index_records([path]).lengths.tolist() == [3]
    assert pathlib.Path(kept).read_bytes() == good


def test_nothing_is_needed_but_the_shard(path, tmp_path):
    tmp_path.chmod(0o555)
    assert index_records([path]).num_records == 4
    assert not pathlib.Path(path + INDEX_SUFFIX).exists()


def test_other_file_systems():
    path = "ram://records/x.tfrecord"
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(b"".join(map(frame, RECORDS)))
    lengths = [len(record) for record in RECORDS]
    assert index_records([path]).lengths.tolist() == lengths
    assert tf.io.gfile.exists(path + INDEX_SUFFIX)
    assert index_records([path]).lengths.tolist() == lengths


def test_damage_is_named_or_left_out(path, caplog):
    second = 16 + len(RECORDS[0])
    damage(path, second + 9)  # the checksum of a length
    with pytest.raises(InputError, match=r"tfrecord: record 1 is cut off or damaged"):
        index_records([path])
    assert not pathlib.Path(path + INDEX_SUFFIX).exists()
    index = index_records([path], skip_damaged=True)
    assert index.lengths.tolist() == [3]
    assert "record 1 is cut off or damaged" in caplog.text


@pytest.mark.parametrize("length", [2**63, 2**40, 1000])
def test_lengths_that_are_not_there(tmp_path, length):
    path = tmp_path / "x.tfrecord"
    head = struct.pack("<Q", length)
    path.write_bytes(frame(b"one") + head + frame(head)[-4:] + b"content")
    with pytest.raises(InputError, match="record 1 is cut off"):
        index_records([str(path)])


def test_a_shard_cut_off_between_records(path):
    with pytest.raises(InputError, match="4 whole records, but its manifest says 5"):
        index_records([path], expected={path: 5})
    assert index_records([path], expected={path: 5}, skip_damaged=True).num_records == 4
    pathlib.Path(path).write_bytes(b"")
    with pytest.raises(InputError, match="no whole record"):
        index_records([path])
    with pytest.raises(InputError, match="cannot be read"):
        index_records([path + "x"])
