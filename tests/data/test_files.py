from __future__ import annotations

import errno
import os
import stat

import pytest

from cmt.errors import InputError
from cmt.io.files import atomic_directory, atomic_write


def test_atomic_write_keeps_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with atomic_write(path, "w") as file:
        file.write("old é")
    with pytest.raises(RuntimeError), atomic_write(path, "w") as file:
        file.write("new")
        assert path.read_text(encoding="utf-8") == "old é"
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "old é"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_atomic_directory_appears_at_once_and_whole(tmp_path):
    path = tmp_path / "out"
    with atomic_directory(path) as folder:
        (folder / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_directory_leaves_nothing_when_the_block_fails(tmp_path):
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "out"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_atomic_directory_refuses_what_is_there_unless_told(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    with atomic_directory(path) as folder:  # an empty folder is nothing
        (folder / "old").touch()
    with pytest.raises(InputError, match="already exists"), atomic_directory(path):
        pass
    with atomic_directory(path, overwrite=True) as folder:
        (folder / "new").touch()
    assert [entry.name for entry in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("atomic", [atomic_write, atomic_directory])
def test_the_new_name_is_put_on_disk(tmp_path, monkeypatch, atomic):
    """Once it is there, and in the folder that holds it."""
    synced = []

    def sync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            synced.append((os.fstat(handle).st_ino, (tmp_path / "out").exists()))

    monkeypatch.setattr(os, "fsync", sync)
    with atomic(tmp_path / "out"):
        pass
    assert synced == [(tmp_path.stat().st_ino, True)]


@pytest.mark.parametrize("atomic", [atomic_write, atomic_directory])
def test_errors_of_writing_name_the_file(tmp_path, atomic):
    path = tmp_path / "out"
    with pytest.raises(OSError, match="No space left") as caught, atomic(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(path)
    with pytest.raises(OSError, match="No space left") as caught, atomic(path):
        raise OSError(errno.ENOSPC, "No space left on device", "another")
    assert caught.value.filename == "another"
    # Without a number it is a message of its own.
    with pytest.raises(OSError, match="^not an image$"), atomic(path):
        raise OSError("not an image")
