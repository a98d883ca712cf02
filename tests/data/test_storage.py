from __future__ import annotations

import hashlib
import pathlib
import threading

import pytest

from cmt.errors import InputError
from cmt.io import storage
from cmt.io.files import atomic_write


@pytest.fixture(params=["", "file://", "ram://"])
def root(request, tmp_path) -> str:
    folder = f"{request.param}{tmp_path}/root"
    storage.make_folder(folder)
    return folder


def write(path: str, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def test_files_come_and_go(root, monkeypatch):
    monkeypatch.setattr(storage, "_BLOCK_BYTES", 2)
    path = storage.join(root, "a.bin")
    assert not storage.is_file(path) and storage.stamp(path) is None
    write(path, b"12345")
    assert storage.is_file(path) and not storage.is_folder(path)
    assert storage.is_folder(root) and not storage.is_file(root)
    assert storage.read_bytes(path) == b"12345"
    assert storage.sha256(path) == hashlib.sha256(b"12345").hexdigest()
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
    with pytest.raises(RuntimeError), atomic_write(path) as file:
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
        storage.sha256(path)
    write(path, b"{")
    with pytest.raises(ValueError):
        storage.read_json(path)


def test_sizes_of_local_files_are_listed(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "folder").mkdir()
    assert storage.list_files(tmp_path) == {"a": 3}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a/v-*.x", ["a/v-1.x", "a/v-2.x"]),
        ("*/v-*", ["a/v-1.x", "a/v-2.x", "b/v-1.x"]),
        ("?/v-[2-9].x", ["a/v-2.x"]),
        ("a/v-1.x", ["a/v-1.x"]),
        ("*", []),
        ("none/*", []),
        ("none", []),
    ],
)
def test_files_are_found_by_patterns_of_names_and_folders(root, pattern, found):
    for name in ("a/v-1.x", "a/v-2.x", "b/v-1.x", "b/inner/other"):
        write(storage.join(root, name), b"")
    paths = storage.find_files(storage.join(root, pattern))
    assert paths == [storage.join(root, name) for name in found]


def test_what_stands_in_a_path_is_no_pattern_if_it_is_there(tmp_path, monkeypatch):
    for folder in ("run[1]", "run1"):
        write(str(tmp_path / folder / "v-1.x"), b"")
    found = storage.find_files(tmp_path / "run[1]" / "v-*")
    assert found == [str(tmp_path / "run[1]" / "v-1.x")]
    write(str(tmp_path / "run1" / "v[1].x"), b"")
    assert storage.find_files(tmp_path / "run1" / "v[1].x") == [
        str(tmp_path / "run1" / "v[1].x")
    ]
    monkeypatch.chdir(tmp_path / "run1")
    assert storage.find_files("v-*") == ["v-1.x"]


@pytest.mark.parametrize("name", ["run[1]", "run*", "what?", "back\\slash"])
def test_a_plain_path_leads_to_the_same_file_and_is_no_pattern(tmp_path, name):
    (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / name / "inner" / "step-1.index").write_bytes(b"12")
    folder = storage.plain_path(tmp_path / name)
    prefix = storage.plain_path(tmp_path / name / "inner" / "step-1")
    missing = storage.plain_path(tmp_path / name / "not yet")
    for path, end in ((folder, ""), (prefix, "step-1"), (missing, "not yet")):
        assert not set(path) & set("*?[\\") and path.endswith(end)
    assert pathlib.Path(folder, "inner", "step-1.index").read_bytes() == b"12"
    assert pathlib.Path(f"{prefix}.index").read_bytes() == b"12"
    pathlib.Path(missing).mkdir()
    assert (tmp_path / name / "not yet").is_dir()


def test_other_paths_are_plain_as_they_are(tmp_path):
    for path in (tmp_path, tmp_path / "a" / "step-1", "gs://bucket/run[1]/step-1"):
        assert storage.plain_path(path) == str(path)


def test_many_remote_files_are_asked_for_at_a_time(root, monkeypatch):
    paths = [storage.join(root, name) for name in "abcdefgh"]
    for size, path in enumerate(paths[1:], 1):
        write(path, b"x" * size)
    # Ends only where all eight requests have begun.
    barrier, plain = threading.Barrier(8), storage.stamp

    def stamp(path):
        if storage.is_remote(path):
            barrier.wait(timeout=20)
        return plain(path)

    monkeypatch.setattr(storage, "stamp", stamp)
    found = storage.stamps(paths)
    assert found[0] is None
    assert [size for size, _ in found[1:]] == list(range(1, 8))


def test_paths_keep_their_scheme():
    assert storage.as_location("gs://bucket/a") == "gs://bucket/a"
    assert storage.as_location("a//b") == pathlib.Path("a/b")
    assert storage.split("gs://bucket/a/b") == ("gs://bucket/a", "b")
    assert storage.split("b") == (".", "b")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_no_content(root, mark):
    path = storage.join(root, "a.json")
    write(path, mark + '{"name": "\u00e4"}'.encode())
    assert storage.read_json(path) == {"name": "\u00e4"}


@pytest.mark.parametrize(
    "ask",
    [
        storage.is_file,
        storage.is_folder,
        storage.stamp,
        storage.list_files,
        storage.read_bytes,
        storage.make_folder,
    ],
)
def test_a_scheme_that_tensorflow_does_not_read_is_named(ask):
    """It is not taken for a place where nothing is."""
    with pytest.raises(InputError, match="reads no nowhere://, only .*gs://") as caught:
        ask("nowhere://bucket/coco")
    assert str(caught.value).startswith("nowhere://bucket/coco: ")
