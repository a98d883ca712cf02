"""Conversions that are cut off, and go on."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil

import pytest

from cmt.data.convert.shards import LOCK, read_receipt
from cmt.errors import InputError
from cmt.io import storage
from cmt.io.files import atomic_write, locked
from tests.data.conversions import convert


def listing(folder: pathlib.Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


@pytest.mark.parametrize("moved", range(4))
def test_cut_off_while_shards_are_put_in_place(broken, tmp_path, monkeypatch, moved):
    options = dict(**broken, split="val", shards=2, workers=1)
    convert(**options, output=tmp_path / "reference")
    output = tmp_path / "output"
    convert(**{**options, "shards": 3}, output=output, keep_crowd=True)
    plain, calls = storage.move, []

    def move(source, target):
        if pathlib.Path(target).parent == output:
            if len(calls) == moved:
                raise KeyboardInterrupt
            calls.append(target)
        plain(source, target)

    monkeypatch.setattr(storage, "move", move)
    if moved < 3:  # two shards and the manifest
        with pytest.raises(KeyboardInterrupt):
            convert(**options, output=output, overwrite=True)
        assert not (output / "val.manifest.json").exists()
        monkeypatch.setattr(storage, "move", plain)
        convert(**options, output=output, resume=True)
    else:
        convert(**options, output=output, overwrite=True)
    assert listing(output) == listing(tmp_path / "reference")


def test_after_a_fault_finished_shards_are_kept_for_resume(broken, tmp_path):
    path = broken["images"] / "000000000005.jpg"
    content = path.read_bytes()
    options = dict(**broken, split="val", shards=3, workers=1)
    convert(**options, output=tmp_path / "reference")
    status = path.stat()
    path.write_bytes(content[:100])
    output = tmp_path / "output"
    with pytest.raises(InputError, match="finished shards are kept for --resume"):
        convert(**options, output=output)
    assert not list(output.glob("*.tfrecord"))
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    made = read_receipt(output / ".val.partial" / "val-00000-of-00003.tfrecord")
    convert(**options, output=output, resume=True)
    assert listing(output) == listing(tmp_path / "reference")
    assert made.shard.sha256 == listing(output)["val-00000-of-00003.tfrecord"]


def test_a_damaged_record_or_shard_is_made_again(broken, tmp_path):
    options = dict(**broken, split="val", shards=3, workers=1)
    convert(**options, output=tmp_path / "reference")
    output = tmp_path / "output"
    convert(**options, output=output)
    work = output / ".val.partial"
    work.mkdir()
    name = "val-00000-of-00003.tfrecord"
    shutil.move(output / name, work / name)
    (work / name).write_bytes(b"cut")
    (work / f"{name}.json").write_text('{"shard": ')
    (work / f".{name}.0123.partial").write_bytes(b"cut")
    convert(**options, output=output, resume=True)
    assert listing(output) == listing(tmp_path / "reference")


def test_two_conversions_of_a_split_keep_apart(broken, tmp_path):
    options = dict(**broken, output=tmp_path / "output", split="val", workers=1)
    work = tmp_path / "output" / ".val.partial"
    work.mkdir(parents=True)
    (work / "others").touch()
    with (
        locked(work / LOCK, "busy"),
        pytest.raises(InputError, match="another process is writing this split"),
    ):
        convert(**options)
    assert (work / "others").exists()
    convert(**options)
    assert not work.exists()


@pytest.fixture
def cut_off(broken, tmp_path):
    """Options of a conversion that left two of three shards behind, and its folder."""
    path = broken["images"] / "000000000005.jpg"
    content, status = path.read_bytes(), path.stat()
    options = dict(**broken, output=tmp_path / "out", split="val", shards=3, workers=1)
    path.write_bytes(content[:100])
    with pytest.raises(InputError):
        convert(**options)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    work = tmp_path / "out" / ".val.partial"
    assert len(list(work.glob("*.tfrecord"))) == 2
    return options, work


def test_finished_shards_are_not_deleted_unasked(cut_off):
    options, work = cut_off
    before = listing(work)
    with pytest.raises(InputError) as caught:
        convert(**options)
    message = str(caught.value)
    assert str(work) in message and "\n" not in message
    assert "--resume" in message and "--overwrite" in message
    assert listing(work) == before
    assert [path.name for path in options["output"].iterdir()] == [work.name]
    convert(**options, overwrite=True)
    assert not work.exists()
    assert len(list(options["output"].glob("*.tfrecord"))) == 3


def test_of_remote_shards_none_is_deleted_unasked(broken):
    output = "ram:///unasked/out"
    work = f"{output}/.val.partial"
    with atomic_write(f"{work}/val-00000-of-00002.tfrecord.json") as file:
        file.write(b"{}")
    options = dict(**broken, output=output, split="val", workers=1)
    with pytest.raises(InputError, match="holds finished shards"):
        convert(**options)
    assert list(storage.list_files(work)) == ["val-00000-of-00002.tfrecord.json"]
    convert(**options, overwrite=True)
    assert not storage.is_folder(work)


def test_indices_of_shards_that_are_replaced_go(broken, tmp_path):
    output = tmp_path / "out"
    options = dict(**broken, output=output, split="val", workers=1)
    other = tmp_path / "out" / "val-x-00000-of-00003.tfrecord.index"
    for first, second in ((3, 2), (2, 2)):
        convert(**options, shards=first, overwrite=True)
        for number in range(first):
            path = output / f"val-{number:05d}-of-{first:05d}.tfrecord.index"
            path.write_bytes(b"of the old records")
        other.touch()
        convert(**options, shards=second, overwrite=True, keep_crowd=True)
        assert list(output.glob("*.index")) == [other]


def test_indices_of_shards_that_stay_stay(broken, tmp_path):
    output = tmp_path / "out"
    options = dict(**broken, output=output, split="val", shards=3, workers=1)
    convert(**options)
    indices = [output / f"val-0000{n}-of-00003.tfrecord.index" for n in range(3)]
    for path in indices:
        path.touch()
    (broken["masks"] / "000000000001.png").touch()
    convert(**options, resume=True)
    assert [path.exists() for path in indices] == [False, True, True]


def test_a_finished_shard_that_is_out_of_date_does_not_replace_a_current_one(
    cut_off, tmp_path
):
    options, work = cut_off
    kept = {path.name: path.read_bytes() for path in work.iterdir()}
    path = options["images"] / "000000000001.jpg"
    path.write_bytes(path.read_bytes() + b"more")
    convert(**options, overwrite=True)
    before = listing(options["output"])
    work.mkdir()
    for name, shard in kept.items():
        (work / name).write_bytes(shard)
    convert(**options, resume=True)
    assert listing(options["output"]) == before
