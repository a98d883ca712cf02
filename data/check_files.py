"""Checks of the files of one image against its entry in the json."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cmt.data.coco import PanopticImage, read_ids, segment_index
from cmt.data.problems import Problem
from cmt.errors import InputError


class CheckedFiles(NamedTuple):
    """What the files of an image hold.

    Attributes:
      problems: all faults found; if any, the rest may be None.
      image_format: "JPEG", "PNG" or another name of Pillow's.
      image_mode: Pillow's mode, such as "RGB".
      index: [H, W] index of the segment that owns the pixel, -1 for void.
    """

    problems: list[Problem]
    image_format: str | None
    image_mode: str | None
    index: np.ndarray | None


def check_files(
    image_folder: Path, mask_folder: Path, entry: PanopticImage
) -> CheckedFiles:
    """Reads the image and the mask of `entry` in full and compares."""
    problems: list[Problem] = []
    image_format, image_mode = _check_image(
        image_folder / entry.file_name, entry, problems
    )
    index = _check_mask(mask_folder / entry.mask_name, entry, problems)
    return CheckedFiles(problems, image_format, image_mode, index)


def _check_image(
    path: Path, entry: PanopticImage, problems: list[Problem]
) -> tuple[str | None, str | None]:
    if not path.is_file():
        problems.append(
            Problem(
                "missing file",
                str(path),
                None,
                f"no such image, though the json names {entry.file_name}",
                "put it there or check the images folder",
            )
        )
        return None, None
    try:
        with Image.open(path) as image:
            image.load()
            found, image_format, mode = image.size, image.format, image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        problems.append(
            Problem(
                "not an image",
                str(path),
                None,
                f"cannot be read as an image: {_first_line(error)}",
                "download or make it again",
            )
        )
        return None, None
    _check_size(path, (found[1], found[0]), entry, problems)
    return image_format, mode


def _check_mask(
    path: Path, entry: PanopticImage, problems: list[Problem]
) -> np.ndarray | None:
    if not path.is_file():
        problems.append(
            Problem(
                "missing file",
                str(path),
                None,
                f"no such mask, though the json names {entry.mask_name}",
                "put it there or check the masks folder",
            )
        )
        return None
    try:
        ids = read_ids(path)
    except InputError as error:
        message = str(error).removeprefix(f"{path}: ")
        problems.append(
            Problem(
                "not an image",
                str(path),
                None,
                _first_line(message),
                "download or make it again",
            )
        )
        return None
    _check_size(path, ids.shape, entry, problems)
    return _check_segments(path, ids, entry, problems)


def _check_segments(
    path: Path, ids: np.ndarray, entry: PanopticImage, problems: list[Problem]
) -> np.ndarray:
    """Index of the segment of each pixel; notes ids and areas that disagree."""
    index = segment_index(ids, entry.segments)
    for unknown in np.unique(ids[index == -2]).tolist():
        problems.append(
            Problem(
                "id not in json",
                str(path),
                unknown,
                f"{int((ids == unknown).sum())} pixels have an id that the json does "
                "not list for this image",
                'add it to "segments_info" or set the pixels to 0',
            )
        )
    areas = np.bincount(index.ravel() + 2, minlength=len(entry.segments) + 2)[2:]
    for segment, area in zip(entry.segments, areas.tolist(), strict=True):
        if area == 0:
            problems.append(
                Problem(
                    "id not in PNG",
                    str(path),
                    segment.id,
                    "the json lists it, but no pixel has this id",
                    'remove it from "segments_info" or draw it',
                )
            )
        elif area != segment.area:
            problems.append(
                Problem(
                    "area",
                    str(path),
                    segment.id,
                    f'"area" must be the number of pixels; got {segment.area} in the '
                    f"json and {area} in the PNG",
                    f'set "area" to {area}',
                )
            )
    return index


def _check_size(
    path: Path,
    found: tuple[int, ...],
    entry: PanopticImage,
    problems: list[Problem],
) -> None:
    if tuple(found) != (entry.height, entry.width):
        problems.append(
            Problem(
                "size",
                str(path),
                None,
                "image, mask and json must agree in height x width; got "
                f"{found[0]}x{found[1]} here and {entry.height}x{entry.width} in the "
                "json",
                "use the files the json was made for, or correct the json",
            )
        )


def _first_line(error: object) -> str:
    return str(error).splitlines()[0] if str(error) else "it is damaged"
