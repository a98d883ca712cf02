"""Files on this machine, and anywhere else `tf.io.gfile` reads (gs://...).

TensorFlow is imported at the first path with a scheme, so that worker processes
which read local files start at once and stay small. Why not `etils.epath`: tried with
etils 1.15, it knows neither ram:// nor file://, has times in whole seconds (`--resume`
compares nanoseconds), lets most errors of TensorFlow through, takes 43 us for the size
and time of a local file (here 7), and adds 0.15 s to the start of a worker process.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import glob
import hashlib
import json
import os
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from cmt.errors import InputError

Location = Path | str

# Requests at a time to what is not on this machine: most of each is waiting.
_REQUESTS = 32
_BLOCK_BYTES = 2**20
# What makes a path a pattern to TensorFlow.
_PATTERN_LETTERS = "*?[\\"


def is_remote(path: Location) -> bool:
    """Whether the path has a scheme, such as gs://."""
    return "://" in str(path)


def as_location(path: Location) -> Location:
    """A `Path` of a local path; others as they are, since `Path` would damage them."""
    return str(path) if is_remote(path) else Path(path)


def is_below(name: str) -> bool:
    """Whether a file name is a path, and one below the folder of the files."""
    leads_out = posixpath.normpath(name).split("/")[0] == ".."
    return not (leads_out or posixpath.isabs(name) or "://" in name or "\0" in name)


def join(folder: Location, name: str) -> str:
    """The path of a file of a folder."""
    return posixpath.join(str(folder), name)


def split(path: Location) -> tuple[str, str]:
    """The folder of a path, "." where it names none, and the name."""
    folder, name = posixpath.split(str(path))
    return folder or ".", name


@contextlib.contextmanager
def _remote(path: Location) -> Iterator[Any]:
    """`tf.io.gfile`, whose errors become those of local files.

    Raises:
      InputError: TensorFlow knows no file system of this scheme; where it is only
        asked whether there is something, it would answer that there is not.
    """
    import tensorflow as tf

    scheme = str(path).partition("://")[0]
    known = tf.io.gfile.get_registered_schemes()
    if scheme not in known:
        listed = ", ".join(f"{name}://" for name in sorted(known) if name)
        raise InputError(
            f"{path}: TensorFlow here reads no {scheme}://, only {listed}; copy the "
            "files to one of these, or to this machine"
        )
    try:
        yield tf.io.gfile
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(2, "No such file", str(path)) from error
    except tf.errors.PermissionDeniedError as error:
        raise PermissionError(13, "Permission denied", str(path)) from error
    except tf.errors.OpError as error:
        reason = str(error.message).splitlines()[0]
        raise OSError(5, f"cannot be reached: {reason}", str(path)) from error


def _ask(function: str, path: Location, *others: object, **options: bool) -> Any:
    """The result of a function of `tf.io.gfile` for a path with a scheme."""
    with _remote(path) as gfile:
        return getattr(gfile, function)(str(path), *others, **options)


@contextlib.contextmanager
def open_file(path: Location, mode: str = "rb") -> Iterator[IO]:
    """Opens a file as `open` does; text is UTF-8.

    Raises:
      OSError: it is missing or cannot be read or written, at any time in the block.
    """
    if is_remote(path):
        with _remote(path) as gfile, gfile.GFile(str(path), mode) as file:
            yield file
        return
    encoding = None if "b" in mode else "utf-8"
    with open(path, mode, encoding=encoding) as file:  # noqa: PTH123 (faster)
        yield file


def read_bytes(path: Location) -> bytes:
    """The whole file.

    Raises:
      OSError: it is missing or cannot be read.
    """
    # Two for each image of a data set: a context of our own costs as much again.
    with open_file(path) if is_remote(path) else open(path, "rb") as file:  # noqa: PTH123
        return file.read()


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
    with open_file(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def is_file(path: Location) -> bool:
    """Whether there is a file of this name."""
    if is_remote(path):
        return _ask("exists", path) and not _ask("isdir", path)
    return Path(path).is_file()


def is_folder(path: Location) -> bool:
    """Whether there is a folder of this name."""
    return _ask("isdir", path) if is_remote(path) else Path(path).is_dir()


def stamp(path: Location) -> tuple[int, int] | None:
    """Size in bytes and time of the last change in ns; None if there is no file."""
    try:
        if is_remote(path):
            status = _ask("stat", path)
            return int(status.length), int(getattr(status, "mtime_nsec", 0))
        status = os.stat(path)  # noqa: PTH116 (faster)
        return status.st_size, status.st_mtime_ns
    except FileNotFoundError:
        return None


def stamps(paths: Sequence[Location]) -> list[tuple[int, int] | None]:
    """`stamp` of each path, many at a time where each costs a request."""
    return _each(stamp, paths)


def list_files(folder: Location) -> dict[str, int | None]:
    """Names of the files right in a folder, and their bytes; {} if there is none.

    The size is None where only a request for each file would tell it.
    """
    if is_remote(folder):
        names = _ask("listdir", folder) if is_folder(folder) else []
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
        with contextlib.suppress(FileNotFoundError):
            found = _ask("glob", pattern)
    else:
        folder, name = posixpath.split(pattern)
        found = glob.glob(join(glob.escape(folder), name))  # noqa: PTH207
        # Where there is no such folder, its name is a pattern, too. (`Path` would
        # want it cut into root and rest.)
        found = found or glob.glob(pattern)  # noqa: PTH207
    fits = _each(is_file, found)
    return sorted(path for path, fit in zip(found, fits, strict=True) if fit)


def plain_path(path: Location) -> str:
    """A path of the same file or folder that TensorFlow does not take for a pattern.

    It cannot read a checkpoint or a SavedModel below a folder such as run[1]. A link to
    the folder, which lives as long as this process, stands for it.
    """
    path = str(path)
    if is_remote(path):
        return path
    folder = path if is_folder(path) else split(path)[0]
    if not any(letter in folder for letter in _PATTERN_LETTERS):
        return path
    return _link(os.path.abspath(folder)) + path[len(folder) :]  # noqa: PTH100


@functools.lru_cache
def _link(folder: str) -> str:
    """A link to a folder; its own path has no letters of patterns."""
    temporary = tempfile.mkdtemp(prefix="cmt-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    link = Path(temporary, "link")
    link.symlink_to(folder, target_is_directory=True)
    return str(link)


def _each(function: Callable[[str], Any], paths: Sequence[Location]) -> list[Any]:
    """`function` of each path, many at a time where each costs requests."""
    if not any(map(is_remote, paths)):
        return [function(path) for path in paths]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(function, paths))


def move(source: Location, target: Location) -> None:
    """Gives a file or a folder another name, replacing the file that had it."""
    if is_remote(target):
        _ask("rename", source, str(target), overwrite=True)
        return
    Path(source).replace(target)
    # Or a crash of the machine could undo it; not all file systems can be asked.
    with contextlib.suppress(OSError):
        folder = os.open(Path(target).parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove(path: Location) -> None:
    """Removes a file if it is there."""
    with contextlib.suppress(FileNotFoundError):
        if is_remote(path):
            _ask("remove", path)
        else:
            Path(path).unlink()


def make_folder(path: Location) -> None:
    """Makes a folder and those above it, where they are missing."""
    if is_remote(path):
        _ask("makedirs", path)
    else:
        Path(path).mkdir(parents=True, exist_ok=True)


def remove_folder(path: Location) -> None:
    """Removes a folder and all in it, if it is there."""
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError):
        _ask("rmtree", path)
