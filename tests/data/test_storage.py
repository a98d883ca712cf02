from __future__ import annotations

import pytest

from cmt.data import storage


@pytest.fixture(params=["", "file://", "ram://"])
def root(request, tmp_path) -> str:
    folder = f"{request.param}{tmp_path}/root"
    storage.make_folder(folder)
    return folder


def write(path: str, content: bytes) -> None:
    with storage.writing(path) as file:
        file.write(content)


def test_files_come_and_go(root):
    path = storage.join(root, "a.bin")
    assert not storage.is_file(path) and storage.stamp(path) is None
    write(path, b"12345")
    assert storage.is_file(path) and not storage.is_folder(path)
    assert storage.is_folder(root) and not storage.is_file(root)
    assert storage.read_bytes(path) == b"12345"
    assert b"".join(storage.read_blocks(path, 2)) == b"12345"
    assert storage.stamp(path)[0] == 5
    assert list(storage.list_files(root)) == ["a.bin"]
    other = storage.join(root, "b.bin")
    write(other, b"old")
    storage.move(path, other)
    assert storage.read_bytes(other) == b"12345"
    assert list(storage.list_files(root)) == ["b.bin"]
    storage.remove(other)
    storage.remove(other)
    assert storage.list_files(root) == {}
    inner = storage.join(root, "inner")
    write(storage.join(inner, "c"), b"")
    storage.remove_folder(inner)
    storage.remove_folder(inner)
    assert not storage.is_folder(inner)
    assert storage.list_files(inner) == {}


def test_nothing_is_half_written(root):
    path = storage.join(root, "a.bin")
    write(path, b"old")
    with pytest.raises(RuntimeError), storage.writing(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert storage.read_bytes(path) == b"old"
    assert list(storage.list_files(root)) == ["a.bin"]


def test_errors_are_those_of_files(root):
    path = storage.join(root, "none")
    with pytest.raises(FileNotFoundError) as caught:
        storage.read_bytes(path)
    assert caught.value.filename == path
    with pytest.raises(FileNotFoundError):
        list(storage.read_blocks(path))
    write(path, b"{")
    with pytest.raises(ValueError):
        storage.read_json(path)


def test_sizes_of_local_files_are_listed(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "folder").mkdir()
    assert storage.list_files(tmp_path) == {"a": 3}
