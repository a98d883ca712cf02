from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.records import snapshot as snapshots
from cmt.data.records.index import index_records
from cmt.data.records.reader import example_reader, image_name
from cmt.data.records.snapshot import snapshot
from cmt.data.records.tfrecord import encode_decoded, frame

CLASSES = 10


@pytest.fixture
def files(shards, tmp_path) -> list[str]:
    paths = sorted(shards.glob("train-*.tfrecord"))
    return [str(shutil.copy(path, tmp_path)) for path in paths]


def read_all(index, **options) -> list:
    read = example_reader(index, num_classes=CLASSES, **options)
    return list(tf.data.Dataset.range(index.num_records).map(read).as_numpy_iterator())


def equal(some, others) -> bool:
    pairs = zip(some, others, strict=True)
    return all(
        one.name == two.name
        and np.array_equal(one.image, two.image)
        and np.array_equal(one.labels, two.labels)
        for one, two in pairs
    )


def overwrite(file: str, place: int, content: bytes) -> None:
    """Changes a file behind the back of its index."""
    with pathlib.Path(file).open("r+b") as opened:
        opened.seek(place)
        opened.write(content)


def test_every_record_is_read_alone(files):
    index = index_records(files)
    examples = read_all(index)
    names = [example.name.decode() for example in examples]
    assert names == [f"{number:012d}" for number in range(1, 25)]
    assert [image_name(index, k) for k in (0, 23)] == [names[0], names[23]]
    assert equal(examples, read_all(index, in_memory=True))


def test_a_snapshot_holds_the_same_examples(files, tmp_path):
    index = index_records(files)
    copy = snapshot(index, tmp_path / "snap", num_classes=CLASSES)
    assert equal(read_all(index), read_all(copy))
    (path,) = copy.files
    written = pathlib.Path(path).stat().st_mtime_ns
    assert snapshot(index, tmp_path / "snap", num_classes=CLASSES).files == [path]
    assert pathlib.Path(path).stat().st_mtime_ns == written
    # Other shards have another one.
    overwrite(files[0], 100, b"xx")
    index = index_records(files)
    other = snapshot(index, tmp_path / "snap", num_classes=CLASSES, skip_damaged=True)
    assert other.files != [path]


@pytest.mark.parametrize("in_memory", [False, True])
def test_damage_is_named_or_skipped(files, in_memory, capfd):
    whole = read_all(index_records(files))
    index = index_records(files)
    second_file = int(np.flatnonzero(index.file_numbers == 1)[0])
    # The last record of a file and the first of the next one.
    for record in (second_file - 1, second_file):
        place = int(index.offsets[record]) + 200
        overwrite(index.files[index.file_numbers[record]], place, b"damage")
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        read_all(index, in_memory=in_memory)
    last = index.record_numbers[second_file - 1]
    assert f"{files[0]}: record {last} cannot be read or decoded" in str(error.value)
    assert "skip_damaged_records" in str(error.value)

    examples = read_all(index, in_memory=in_memory, skip_damaged=True)
    expected = list(whole)
    expected[second_file - 1] = expected[second_file] = whole[second_file + 1]
    assert equal(examples, expected)
    read = [example.record for example in examples]
    places = np.arange(24)
    places[[second_file - 1, second_file]] = second_file + 1
    assert read == places.tolist()
    said = capfd.readouterr().err
    assert f"warning: {files[1]}: record 0 is damaged and skipped" in said


def test_a_snapshot_knows_what_it_was_made_from(files, tmp_path):
    index = index_records(files)
    overwrite(files[0], int(index.offsets[2]) + 200, b"damage")
    copy = snapshot(index, tmp_path / "snap", num_classes=CLASSES, skip_damaged=True)
    examples = read_all(copy)
    assert [example.record for example in examples] == [0, 1, 3, *range(3, 24)]
    # Damage of the copy itself does not hide that.
    overwrite(copy.files[0], int(copy.offsets[0]) + 200, b"damage")
    first = read_all(copy, skip_damaged=True)[0]
    assert (first.record, first.name) == (1, examples[1].name)
    # Another's number, which is none here, is not taken for it.
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frame(encode_decoded(examples[2])))
    assert read_all(index_records([str(path)]))[0].record == 0


@pytest.mark.parametrize("killed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_processes_that_need_a_snapshot_make_it_once(
    files, tmp_path, monkeypatch, killed
):
    index = index_records(files)
    written, plain = [], snapshots._write
    unfinished = tmp_path / "snap" / f".{snapshots._digest(index)}.0123.partial"

    def write(path, *arguments):
        assert not unfinished.exists()
        written.append(path)
        time.sleep(0.5)  # time for the other one to be in its way
        plain(path, *arguments)

    def make(_):
        return snapshot(index, tmp_path / "snap", num_classes=CLASSES)

    monkeypatch.setattr(snapshots, "_write", write)
    if killed:
        unfinished.mkdir(parents=True)
        (unfinished / "examples.tfrecord").write_bytes(b"half")
    with ThreadPoolExecutor(2) as pool:
        copies = list(pool.map(make, range(2)))
    assert len(written) == 1
    assert copies[0].files == copies[1].files
    assert equal(read_all(copies[1]), read_all(index))
    assert not list((tmp_path / "snap").glob("*.partial"))


_SNAPSHOT = """
import sys
from cmt.data.records.index import index_records
from cmt.data.records.snapshot import snapshot
print(snapshot(index_records(sys.argv[2:]), sys.argv[1], num_classes=10).num_records)
"""


@pytest.mark.slow
def test_real_processes_that_need_a_snapshot(files, tmp_path):
    command = [sys.executable, "-c", _SNAPSHOT, tmp_path / "snap", *files]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    done = [process.communicate(timeout=120) for process in started]
    assert [out for out, _ in done] == [b"24\n", b"24\n"], done
    assert len(list((tmp_path / "snap").glob("*/examples.tfrecord"))) == 1


def test_classes_that_are_not_there_are_damage(files, tmp_path):
    example = read_all(index_records(files))[0]
    labels = example.labels.copy()
    labels[3, 5] = (CLASSES + 1) * 256
    example = example._replace(labels=labels)
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frame(encode_decoded(example)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="record 0"):
        read_all(index_records([str(path)]))
