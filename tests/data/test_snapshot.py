"""Copies of records, on disk and in memory: used, and told apart."""

from __future__ import annotations

import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.input.open import Data
from cmt.data.records import snapshot
from cmt.data.records.index import index_records
from cmt.data.records.reader import example_reader
from cmt.data.records.tfrecord import Example, encode_decoded, frame
from cmt.errors import InputError
from cmt.protos import data_pb2

CLASSES = 10


@pytest.fixture
def files(shards, tmp_path) -> list[str]:
    folder = tmp_path / "shards"
    folder.mkdir()
    shutil.copy(shards / "train.manifest.json", folder)
    paths = sorted(shards.glob("train-*.tfrecord"))
    return [str(shutil.copy(path, folder)) for path in paths]


def spoil(files: list[str]) -> None:
    """Overwrites the contents of all records; size and time stay the same."""
    for file in files:
        status = pathlib.Path(file).stat()
        pathlib.Path(file).write_bytes(b"\0" * status.st_size)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def config(files) -> data_pb2.DataConfig:
    pattern = str(pathlib.Path(files[0]).parent / "train-*.tfrecord")
    config = data_pb2.DataConfig(
        train=data_pb2.DatasetConfig(tfrecords=pattern), parallel_calls=2
    )
    config.crop_height_pixels = config.crop_width_pixels = 33
    return config


@pytest.mark.parametrize("option", ["snapshot_folder", "cache_records"])
def test_what_is_kept_is_what_is_read(config, files, tmp_path, option):
    """Also when the shards can be read no more; damage in them can be left out."""
    value = str(tmp_path / "snap") if option == "snapshot_folder" else True
    setattr(config, option, value)
    with pathlib.Path(files[1]).open("r+b") as file:
        file.seek(100)
        file.write(b"damage")
    config.skip_damaged_records = True
    dataset = Data(config).train.batches(global_batch_size=4, seed=1)
    first = [part.numpy() for part in tf.nest.flatten(next(iter(dataset)))]
    spoil(files)
    read = example_reader(index_records(files), num_classes=CLASSES)
    with pytest.raises(tf.errors.InvalidArgumentError, match="cannot be read"):
        read(tf.constant(0, tf.int64))
    if option == "snapshot_folder":  # by the next run, too
        dataset = Data(config).train.batches(global_batch_size=4, seed=1)
    again = [part.numpy() for part in tf.nest.flatten(next(iter(dataset)))]
    for part, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(part, other)


def make(files: list[str], folder: pathlib.Path, **options) -> pathlib.Path:
    skip = options.get("skip_damaged", False)
    index = index_records(files, skip_damaged=skip)
    (path,) = snapshot.snapshot(index, folder, num_classes=CLASSES, **options).files
    return pathlib.Path(path)


@pytest.fixture
def small(tmp_path) -> list[str]:
    """Two files with three records, which are made and read fast."""
    paths = []
    for number, count in enumerate((2, 1)):
        examples = [
            Example(
                b"%d" % k,
                np.full((3, 4, 3), 10 * k + number, np.uint8),
                np.full((3, 4), 256, np.int32),
            )
            for k in range(count)
        ]
        path = tmp_path / f"x-0000{number}-of-00002.tfrecord"
        path.write_bytes(b"".join(frame(encode_decoded(one)) for one in examples))
        paths.append(str(path))
    return paths


def change_time(path: str) -> None:
    os.utime(path, ns=(1, 10**18))


def change_size(path: str) -> None:
    status = pathlib.Path(path).stat()
    example = Example(b"n", np.zeros((5, 4, 3), np.uint8), np.zeros((5, 4), np.int32))
    count = 2 if "00000-of" in path else 1
    pathlib.Path(path).write_bytes(frame(encode_decoded(example)) * count)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    # Not that of the records before, which is as new.
    pathlib.Path(f"{path}.index").unlink(missing_ok=True)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("change", [change_time, change_size])
def test_changed_files_have_another_copy(small, which, change):
    first = snapshot._digest(index_records(small))
    assert snapshot._digest(index_records(small)) == first
    change(small[which])
    assert snapshot._digest(index_records(small)) != first


def test_other_files_have_another_copy(small, tmp_path):
    """Also those of other names, or in another order, with the same times and sizes."""
    moved = tmp_path / "moved"
    moved.mkdir()
    copies = [str(shutil.copy2(file, moved)) for file in small]
    sets = [small, small[::-1], small[:1], copies]
    digests = {snapshot._digest(index_records(some)) for some in sets}
    assert len(digests) == 4


def test_fewer_records_of_the_same_files_are_another_copy(small):
    """An index can leave out what follows damage, in files that have not changed."""
    index = index_records(small)
    shorter = index._replace(
        file_numbers=index.file_numbers[:2],
        offsets=index.offsets[:2],
        lengths=index.lengths[:2],
        record_numbers=index.record_numbers[:2],
    )
    assert snapshot._digest(index) != snapshot._digest(shorter)


@pytest.mark.slow
def test_only_replaced_records_make_another_copy(small, tmp_path):
    folder = tmp_path / "snap"
    # One copy will do for both, whichever is made first.
    first = make(small, folder, skip_damaged=True)
    assert make(small, folder) == first == make(small, folder, skip_damaged=True)
    assert len(list(folder.glob("*/*.tfrecord"))) == 1
    shutil.rmtree(folder)
    assert make(small, folder) == first == make(small, folder, skip_damaged=True)
    assert len(list(folder.glob("*/*.tfrecord"))) == 1

    # The copy holds the next whole record in place of the damaged one.
    with pathlib.Path(small[0]).open("r+b") as file:
        file.seek(40)
        file.write(b"damage")
    change_time(small[0])
    copy = make(small, folder, skip_damaged=True)
    assert copy != first
    read = example_reader(index_records([str(copy)]), num_classes=CLASSES)
    names = [read(tf.constant(k, tf.int64)).name.numpy() for k in range(3)]
    assert names == [b"1", b"1", b"0"]
    # It is not that of a run that skips nothing, but that of the next that skips.
    with pytest.raises(tf.errors.InvalidArgumentError, match="record 0 cannot be read"):
        make(small, folder)
    written = copy.stat().st_mtime_ns
    assert make(small, folder, skip_damaged=True) == copy
    assert copy.stat().st_mtime_ns == written


@pytest.mark.slow
def test_damage_of_a_copy_is_mended_by_making_it_again(config, files, tmp_path):
    config.snapshot_folder = str(tmp_path / "snap")

    def first_batch() -> list[np.ndarray]:
        dataset = Data(config).train.batches(global_batch_size=24, seed=1)
        return [part.numpy() for part in tf.nest.flatten(next(iter(dataset)))]

    expected = first_batch()
    (copy,) = (tmp_path / "snap").glob("*/examples.tfrecord")
    told = f"delete {copy.parent}, and the next run makes this copy again"
    place = int(index_records([str(copy)]).offsets[3])
    with copy.open("r+b") as file:
        file.seek(place + 200)
        file.write(b"damage")
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        first_batch()
    assert f"{copy}: record 3 cannot be read or decoded; {told}" in str(error.value)
    for end in (place, place + 5):  # between two records, and in the midst of one
        copy.write_bytes(copy.read_bytes()[:end])
        with pytest.raises(InputError) as refused:
            first_batch()
        assert str(refused.value).startswith(f"{copy}: ")
        assert str(refused.value).endswith(told)
        assert "convert" not in str(refused.value)
        copy.write_bytes(copy.read_bytes() + b"0" * 10)
    shutil.rmtree(copy.parent)
    for part, other in zip(first_batch(), expected, strict=True):
        np.testing.assert_array_equal(part, other)


def test_a_copy_is_made_once_whole_or_not_at_all(small, tmp_path, monkeypatch):
    folder = tmp_path / "snap"
    plain, written = snapshot.encode_decoded, []

    def cut_off(example):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(example)
        return plain(example)

    monkeypatch.setattr(snapshot, "encode_decoded", cut_off)
    with pytest.raises(KeyboardInterrupt):
        make(small, folder)
    monkeypatch.undo()
    assert not list(folder.rglob("*.tfrecord"))
    path = make(small, folder)
    before = path.stat().st_mtime_ns
    assert make(small, folder) == path
    assert path.stat().st_mtime_ns == before
    # Cut off between two records, it is no longer what was made.
    path.write_bytes(path.read_bytes()[: int(index_records([str(path)]).offsets[2])])
    with pytest.raises(InputError, match="3"):
        make(small, folder)
