"""Writing files so that nothing is ever half-written under its final name."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cmt.errors import InputError
from cmt.io import storage
from cmt.io.storage import Location

_logger = logging.getLogger(__name__)


def _temporary_beside(path: Location) -> str:
    folder, name = storage.split(path)
    return storage.join(folder, f".{name}.{secrets.token_hex(4)}.partial")


def _name_file(error: BaseException, path: Location) -> None:
    """Completes the errors of writing, which unlike those of opening name no file."""
    if isinstance(error, OSError) and error.errno and error.filename is None:
        error.filename = str(path)


@contextlib.contextmanager
def atomic_write(path: Location, mode: str = "wb") -> Iterator[IO]:
    """Opens a temporary file beside `path` and renames it when the block ends.

    If the block raises, the temporary file is removed and `path` is untouched.

    Args:
      path: the final name, local or with a scheme; missing parent folders are made.
      mode: "wb" for bytes, "w" for UTF-8 text.

    Raises:
      OSError: the folder cannot be written to, or the disk is full.
    """
    folder, temporary = storage.split(path)[0], _temporary_beside(path)
    is_local = not storage.is_remote(path)
    storage.make_folder(folder)
    try:
        with storage.open_file(temporary, mode) as file:
            yield file
            if is_local:
                file.flush()
                os.fsync(file.fileno())
        storage.move(temporary, path)
    except BaseException as error:
        storage.remove(temporary)
        _name_file(error, path)
        raise


def write_json(path: Location, content: Any) -> None:
    """Writes a json file as `atomic_write` does."""
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1).encode("utf-8"))


@contextlib.contextmanager
def atomic_directory(path: Path | str, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `path` and renames it when the block ends.

    If the block raises, the temporary folder is removed and `path` is untouched.

    Args:
      path: the final name; missing parent folders are made.
      overwrite: replace what is at `path`. An empty folder counts as nothing.

    Raises:
      InputError: `path` exists and `overwrite` is off.
      OSError: the parent folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    _refuse_existing(path, overwrite)
    temporary = Path(_temporary_beside(path))
    temporary.mkdir(parents=True)
    try:
        yield temporary
        _refuse_existing(path, overwrite)
        _replace_directory(temporary, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _name_file(error, path)
        raise


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if overwrite or not path.exists():
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    raise InputError(
        f"{path}: already exists and would be replaced; give another folder, or "
        "overwrite it on purpose"
    )


def _replace_directory(new: Path, path: Path) -> None:
    if not path.exists():
        storage.move(new, path)
        return
    old = path.rename(_temporary_beside(path))
    try:
        storage.move(new, path)
    except BaseException:
        old.rename(path)
        raise
    remove = shutil.rmtree if old.is_dir() else Path.unlink
    with contextlib.suppress(OSError):
        remove(old)


@contextlib.contextmanager
def locked(path: Path | str, busy: str, *, wait: bool = False) -> Iterator[None]:
    """Keeps other processes of this machine out, as long as this one lives.

    Args:
      path: the file that stands for what is locked; it is made and stays, since a
        process could else wait for a file that others no longer see.
      busy: what is wrong, and what to do, where another process is in.
      wait: wait for that process to end, with `busy` as a warning.

    Raises:
      InputError: another process is in, and `wait` is off.
    """
    with Path(path).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise InputError(busy) from None
            _logger.warning("%s", busy)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
