"""Files on this machine, and anywhere else `tf.io.gfile` reaches (gs://...).

TensorFlow is imported at the first path with a scheme, so that worker processes
which read local files start at once and stay small.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import glob
import hashlib
import json
import os
import posixpath
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from cmt.errors import InputError
from cmt.io.files import atomic_write

Location = Path | str

# File of a folder that one process has for itself.
LOCK = ".lock"
# Requests at a time to what is not on this machine: most of each is waiting.
_REQUESTS = 32


def is_remote(path: Location) -> bool:
    """Whether the path has a scheme, such as gs://."""
    return "://" in str(path)


def as_location(path: Location) -> Location:
    """A `Path` of a local path; others as they are, since `Path` would damage them."""
    return str(path) if is_remote(path) else Path(path)


def join(folder: Location, name: str) -> str:
    """The path of a file of a folder."""
    return posixpath.join(str(folder), name)


def split(path: Location) -> tuple[str, str]:
    """The folder of a path, "." where it names none, and the name."""
    folder, name = posixpath.split(str(path))
    return folder or ".", name


@functools.cache
def _gfile() -> Any:
    import tensorflow as tf

    return tf.io.gfile


@contextlib.contextmanager
def _as_os_errors(path: Location) -> Iterator[None]:
    """Turns TensorFlow's errors into those that opening a local file raises.

    Raises:
      InputError: TensorFlow knows no file system of this scheme; where it only asks
        whether there is something, it would say that there is not.
    """
    import tensorflow as tf

    scheme = str(path).partition("://")[0]
    known = tf.io.gfile.get_registered_schemes()
    if scheme not in known:
        told = ", ".join(f"{name}://" for name in sorted(known) if name)
        raise InputError(
            f"{path}: TensorFlow here reads no {scheme}://, only {told}; copy the "
            "files to one of these, or to this machine"
        )
    try:
        yield
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(2, "No such file", str(path)) from error
    except tf.errors.PermissionDeniedError as error:
        raise PermissionError(13, "Permission denied", str(path)) from error
    except tf.errors.OpError as error:
        reason = str(error.message).splitlines()[0]
        raise OSError(5, f"cannot be reached: {reason}", str(path)) from error


def read_bytes(path: Location) -> bytes:
    """The whole file.

    Raises:
      OSError: it is missing or cannot be read.
    """
    if not is_remote(path):
        with open(path, "rb") as file:  # noqa: PTH123 (ten times faster to open)
            return file.read()
    with _as_os_errors(path), _gfile().GFile(str(path), "rb") as file:
        return file.read()


def read_blocks(path: Location, size: int = 2**20) -> Iterator[bytes]:
    """The file in pieces, for what need not be in memory at once.

    Raises:
      OSError: it is missing or cannot be read.
    """
    if not is_remote(path):
        with Path(path).open("rb") as file:
            while block := file.read(size):
                yield block
        return
    with _as_os_errors(path), _gfile().GFile(str(path), "rb") as file:
        while block := file.read(size):
            yield block


def read_json(path: Location) -> Any:
    """The content of a json file, in UTF-8, with or without a byte order mark.

    Raises:
      OSError: it is missing or cannot be read.
      ValueError: it is no json.
    """
    return json.loads(read_bytes(path).decode("utf-8-sig"))


def sha256(path: Location) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
      OSError: it is missing or cannot be read.
    """
    digest = hashlib.sha256()
    for block in read_blocks(path):
        digest.update(block)
    return digest.hexdigest()


def is_file(path: Location) -> bool:
    """Whether there is a file of this name."""
    if not is_remote(path):
        return Path(path).is_file()
    with _as_os_errors(path):
        return _gfile().exists(str(path)) and not _gfile().isdir(str(path))


def is_folder(path: Location) -> bool:
    """Whether there is a folder of this name."""
    if not is_remote(path):
        return Path(path).is_dir()
    with _as_os_errors(path):
        return _gfile().isdir(str(path))


def stamp(path: Location) -> tuple[int, int] | None:
    """Size in bytes and time of the last change in ns; None if there is no file."""
    if is_remote(path):
        try:
            with _as_os_errors(path):
                status = _gfile().stat(str(path))
        except FileNotFoundError:
            return None
        return int(status.length), int(getattr(status, "mtime_nsec", 0))
    try:
        status = os.stat(path)  # noqa: PTH116 (called for every file of a data set)
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def stamps(paths: Sequence[Location]) -> list[tuple[int, int] | None]:
    """`stamp` of each path, many at a time where each costs a request."""
    return _each(stamp, paths)


def list_files(folder: Location) -> dict[str, int | None]:
    """Names of the files right in a folder, and their bytes; {} if there is none.

    The size is None where only a request for each file would tell it.
    """
    if is_remote(folder):
        if not is_folder(folder):
            return {}
        with _as_os_errors(folder):
            names = _gfile().listdir(str(folder))
        return {name: None for name in sorted(names) if not name.endswith("/")}
    try:
        with os.scandir(folder) as entries:
            files = [entry for entry in entries if entry.is_file()]
            return {entry.name: entry.stat().st_size for entry in files}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def find_files(pattern: Location) -> list[str]:
    """The files that fit a pattern, sorted.

    `*`, `?` and `[...]` stand for parts of the names of files and of folders. A path
    that is there as it stands is taken so.

    Args:
      pattern: local or with a scheme.
    """
    pattern = str(pattern)
    if is_file(pattern):
        return [pattern]
    if is_remote(pattern):
        found = []
        with contextlib.suppress(FileNotFoundError), _as_os_errors(pattern):
            found = _gfile().glob(pattern)
    else:
        folder, name = posixpath.split(pattern)
        found = glob.glob(join(glob.escape(folder), name))  # noqa: PTH207
        # Where there is no such folder, its name is a pattern, too. (`Path` would
        # want it cut into root and rest.)
        found = found or glob.glob(pattern)  # noqa: PTH207
    return sorted(
        path for path, fits in zip(found, _each(is_file, found), strict=True) if fits
    )


def _each(function: Callable[[str], Any], paths: Sequence[Location]) -> list[Any]:
    """`function` of each path, many at a time where each costs requests."""
    if not any(map(is_remote, paths)):
        return [function(path) for path in paths]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(function, paths))


@contextlib.contextmanager
def writing(path: Location) -> Iterator[IO[bytes]]:
    """Opens a file that gets its name when the block ends, and only if it does well.

    Raises:
      OSError: the place cannot be written to.
    """
    if not is_remote(path):
        with atomic_write(path) as file:
            yield file
        return
    folder, name = split(path)
    temporary = join(folder, f".{name}.{secrets.token_hex(4)}.partial")
    make_folder(folder)
    try:
        with _as_os_errors(path):
            with _gfile().GFile(temporary, "wb") as file:
                yield file
            _gfile().rename(temporary, str(path), overwrite=True)
    except BaseException:
        remove(temporary)
        raise


def write_json(path: Location, content: Any) -> None:
    """Writes a json file as `writing` does."""
    with writing(path) as file:
        file.write(json.dumps(content, indent=1).encode("utf-8"))


def move(source: Location, target: Location) -> None:
    """Gives a file another name, replacing what had it."""
    if not is_remote(target):
        Path(source).replace(target)
        return
    with _as_os_errors(source):
        _gfile().rename(str(source), str(target), overwrite=True)


def remove(path: Location) -> None:
    """Removes a file if it is there."""
    if not is_remote(path):
        Path(path).unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError), _as_os_errors(path):
        _gfile().remove(str(path))


def make_folder(path: Location) -> None:
    """Makes a folder and those above it, where they are missing."""
    if not is_remote(path):
        Path(path).mkdir(parents=True, exist_ok=True)
        return
    with _as_os_errors(path):
        _gfile().makedirs(str(path))


def remove_folder(path: Location) -> None:
    """Removes a folder and all in it, if it is there."""
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError), _as_os_errors(path):
        _gfile().rmtree(str(path))


def missing_folders(path: Location) -> list[Path]:
    """A local folder and those above it that are not there, the innermost first."""
    if is_remote(path):
        return []
    return [
        folder for folder in (Path(path), *Path(path).parents) if not folder.exists()
    ]


def remove_empty(folders: list[Path]) -> None:
    """Removes those of the folders that are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def locked(folder: Location) -> Iterator[None]:
    """Keeps other processes of this machine out of a folder, as long as this one lives.

    Raises:
      InputError: another process is in it.
    """
    if is_remote(folder):
        yield
        return
    with Path(folder, LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: another process is writing this split; wait for it, or "
                "give another --output"
            ) from None
        yield
