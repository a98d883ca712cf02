"""Writing files so that nothing is ever half-written under its final name."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cmt.errors import InputError


def _temporary_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _sync(path: Path) -> None:
    """Asks the system to put a folder's entries on disk, where it can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _name_file(error: BaseException, path: Path) -> None:
    """Completes the errors of writing, which unlike those of opening name no file."""
    if isinstance(error, OSError) and error.errno and error.filename is None:
        error.filename = str(path)


@contextlib.contextmanager
def atomic_write(path: Path | str, mode: str = "wb") -> Iterator[IO]:
    """Opens a temporary file beside `path` and renames it when the block ends.

    If the block raises, the temporary file is removed and `path` is untouched.

    Args:
      path: the final name; missing parent folders are made.
      mode: "wb" for bytes, "w" for UTF-8 text.

    Raises:
      OSError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(path)
    encoding = None if "b" in mode else "utf-8"
    try:
        with temporary.open(mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        _name_file(error, path)
        raise
    _sync(path.parent)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(path)
    temporary.mkdir()
    try:
        yield temporary
        _refuse_existing(path, overwrite)
        _replace_directory(temporary, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _name_file(error, path)
        raise
    _sync(path.parent)


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
        new.rename(path)
        return
    old = _temporary_beside(path)
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)
