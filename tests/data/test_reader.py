from __future__ import annotations

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.reader import example_reader, image_name
from cmt.data.record_index import index_records
from cmt.data.snapshot import snapshot
from cmt.data.tfrecord import encode_decoded, frame

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
    said = capfd.readouterr().err
    assert f"warning: {files[1]}: record 0 is damaged and skipped" in said


def test_classes_that_are_not_there_are_damage(files, tmp_path):
    example = read_all(index_records(files))[0]
    labels = example.labels.copy()
    labels[3, 5] = (CLASSES + 1) * 256
    example = example._replace(labels=labels)
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frame(encode_decoded(example)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="record 0"):
        read_all(index_records([str(path)]))
