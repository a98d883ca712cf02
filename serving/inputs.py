"""The image files that the arguments of `cmt predict` stand for, and their pixels."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmt.errors import InputError
from cmt.io.images import ENDINGS, decode_rgb
from cmt.serving.mistaken import recognize

_NOT_IMAGES = (".textproto", ".index", ".data-", ".pb", ".keras", ".h5")


def find_inputs(inputs: Sequence[str]) -> list[Path]:
    """Finds the image files that arguments stand for, without repetition.

    Args:
      inputs: files; folders, for the images right in them, by their names; glob
        patterns; "-" for any of these on standard input, one a line. Hidden files, such
        as the "._" ones of macOS, are found by their own names alone.

    Raises:
      InputError: a file is missing, a folder has no image, or a pattern fits nothing.
    """
    found: dict[Path, None] = {}
    for given in inputs:
        for item in _read_names() if given == "-" else [given]:
            found.update(dict.fromkeys(_files_of(item)))
    return list(found)


def _read_names() -> list[str]:
    """The lines of standard input, or what stands between its zero bytes."""
    content = sys.stdin.buffer.read()
    separator = b"\0" if b"\0" in content else b"\n"
    names = [name.removesuffix(b"\r") for name in content.split(separator)]
    if not any(names):
        raise InputError(
            "-: standard input names no image; it must hold a path a line, such as"
            " from `find photos -name '*.jpg'`"
        )
    return [os.fsdecode(name) for name in names if name]


def _files_of(item: str) -> list[Path]:
    path = Path(item)
    if path.is_file():
        if path.suffix.startswith(_NOT_IMAGES):
            _refuse_mistaken(item)
        return [path]
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if _has_image_name(file)]
        if not files:
            _refuse_mistaken(item)
            inner = next(filter(_has_image_name, path.rglob("*")), None)
            if inner is not None:
                pattern = Path(glob.escape(str(path)), "**", "*")
                raise InputError(
                    f"{item}: its images are in subfolders, such as {inner.parent}; "
                    f"give the pattern '{pattern}' for all of them"
                )
            raise InputError(
                f"{item}: no image in this folder; its images must be right in it and "
                f"end in {', '.join(ENDINGS)}"
            )
        return files
    if any(_is_pattern(part) for part in path.parts):
        files = [file for file in _matches(path) if _has_image_name(file)]
        if not files:
            raise InputError(f"{item}: no image fits this pattern")
        return files
    _refuse_mistaken(item)
    raise InputError(f"{item}: no such file or folder")


def _refuse_mistaken(item: str) -> None:
    mistaken = recognize(item)
    if mistaken is not None:
        raise InputError(
            f"{item} is {mistaken.what}, and INPUTS are images, folders of them or "
            "patterns on this machine, after the model"
        )


def _is_pattern(part: str) -> bool:
    return any(character in part for character in "*?[")


def _matches(pattern: Path) -> list[Path]:
    """Returns the files that fit a pattern; ** stands for folders at any depth.

    A folder that is there is meant by its name, such as holiday[1].
    """
    parts, first = pattern.parts, 0
    while not _is_pattern(parts[first]) or Path(*parts[: first + 1]).is_dir():
        first += 1
        if first == len(parts):
            return []
    return sorted(Path(*parts[:first]).glob(str(Path(*parts[first:]))))


def _has_image_name(path: Path) -> bool:
    is_hidden = path.name.startswith(".")
    return path.suffix.lower() in ENDINGS and not is_hidden and path.is_file()


def decode_file(content: bytes) -> np.ndarray:
    """Decodes what conversion takes, into the pixels that training and servers see.

    Returns:
      [H, W, 3] uint8 RGB, upright.

    Raises:
      ImageFault: it is no image, or damaged.
    """
    return np.asarray(decode_rgb(content))
