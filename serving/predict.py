"""Panoptic maps of image files: pictures to look at, and COCO panoptic files."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from cmt.data.input.decode import decode_image
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.images import (
    ENDINGS,
    JPEG_HEAD,
    decode_rgb,
)
from cmt.data.panoptic.images import FORMATS as IMAGE_FORMATS
from cmt.data.panoptic.png import ImageFault
from cmt.data.panoptic.predictions import (
    PredictionWriter,
    segment_scores,
    write_predictions,
)
from cmt.errors import InputError
from cmt.io.files import atomic_write
from cmt.io.progress import track
from cmt.pictures.overlay import draw_overlay
from cmt.pictures.sheet import save_picture
from cmt.serving.mistaken import recognize
from cmt.serving.saved_model import Segmenter

FORMATS = ("overlay", "coco")
OVERLAYS_FOLDER = "overlays"
RESULTS_FILE = "predictions.json"

_NOT_IMAGES = (".textproto", ".index", ".data-", ".pb", ".keras", ".h5")


class Outcome(NamedTuple):
    """The results of predicting some image files.

    Attributes:
      images: the entries of predictions.json.
      unreadable: (file, reason) of the files that are no images.
    """

    images: list[dict[str, Any]]
    unreadable: list[tuple[Path, str]]


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


def parse_formats(text: str) -> list[str]:
    """Splits "overlay,coco".

    Raises:
      InputError: a format is unknown, or there is none.
    """
    formats = [name.strip() for name in text.split(",")]
    if not set(formats) <= set(FORMATS):
        raise InputError(
            f"--format must be one or more of {', '.join(FORMATS)}, separated by "
            f"commas; got '{text}'"
        )
    return formats


def predict_files(
    segmenter: Segmenter,
    files: Sequence[Path],
    output: Path | str,
    *,
    formats: Sequence[str] = FORMATS,
) -> Outcome:
    """Segments files one after the other and writes what was asked for.

    Below `output`: `overlays/*.png` for "overlay"; `panoptic.json` and
    `panoptic/*.png` for "coco"; always `predictions.json`, the segments of each image
    with class, score and area. Files that are no images are left out.

    Args:
      segmenter: from `cmt.serving.factory.open_model`.
      files: from `find_inputs`.
      output: the folder; what is there under these names is replaced.
      formats: of `FORMATS`.

    Raises:
      InputError: no file is an image; nothing is written or replaced then.
    """
    output = Path(output)
    outcome = Outcome([], [])
    if "coco" in formats:
        with write_predictions(output, segmenter.categories) as writer:
            _predict_all(segmenter, files, output, formats, outcome, writer)
    else:
        _predict_all(segmenter, files, output, formats, outcome, None)
    with atomic_write(output / RESULTS_FILE, "w") as file:
        json.dump({"images": outcome.images}, file, indent=1)
        file.write("\n")
    return outcome


def _predict_all(
    segmenter: Segmenter,
    files: Sequence[Path],
    output: Path,
    formats: Sequence[str],
    outcome: Outcome,
    writer: PredictionWriter | None,
) -> None:
    names = output_names(files)
    identities = image_ids(names)
    work = zip(files, names, identities, strict=True)
    for file, name, identity in track(work, description="predicting", total=len(files)):
        try:
            image, found = _segment_file(segmenter, file)
        except InputError as error:
            outcome.unreadable.append((file, str(error)))
            continue
        panoptic = found["panoptic"]
        entry = {"file": str(file), "image_id": identity, "size": list(panoptic.shape)}
        if "overlay" in formats:
            path = Path(OVERLAYS_FOLDER, f"{name}.png")
            picture = draw_overlay(image, panoptic, segmenter.categories)
            save_picture(output / path, picture)
            entry["overlay"] = path.as_posix()
        if writer is not None:
            scores = segment_scores(found["segment_ids"], found["scores"])
            writer.add(identity, f"{name}{file.suffix}", panoptic, scores)
        entry["segments"] = list(_segments(found, segmenter.categories))
        outcome.images.append(entry)
    if not outcome.images:
        named = [f"; {file}: {reason}" for file, reason in outcome.unreadable[:1]]
        raise InputError(
            f"none of {len(files)} files is an image that can be read{''.join(named)}; "
            f"give images of the formats {', '.join(IMAGE_FORMATS)}"
        )


def _segment_file(
    segmenter: Segmenter, file: Path
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Decodes a file, once, and segments it.

    Returns:
      The image [H, W, 3] uint8, and the outputs of the model for it.

    Raises:
      InputError: the file cannot be read; the message is the reason alone.
    """
    try:
        image = decode_file(file.read_bytes())
    except OSError as error:
        raise InputError(error.strerror or str(error)) from error
    except ImageFault as fault:
        raise InputError(fault.reason) from fault
    outputs = segmenter.run(image[tf.newaxis])
    return image, {key: value.numpy()[0] for key, value in outputs.items()}


def decode_file(content: bytes) -> np.ndarray:
    """Decodes what conversion takes, into the pixels that training and servers see.

    Returns:
      [H, W, 3] uint8 RGB, upright.

    Raises:
      ImageFault: it is no image, or damaged.
    """
    if content.startswith(JPEG_HEAD):
        # As servers do; the pixels are equal to those of Pillow.
        with contextlib.suppress(tf.errors.InvalidArgumentError):
            return decode_image(content).numpy()
    return np.asarray(decode_rgb(content))


def _segments(
    found: Mapping[str, np.ndarray], categories: Sequence[Category]
) -> Iterator[dict[str, Any]]:
    names = {category.id: category.name for category in categories}
    values, areas = np.unique(found["panoptic"], return_counts=True)
    area = dict(zip(values.tolist(), areas.tolist(), strict=True))
    for index in np.flatnonzero(found["segment_ids"]):
        category_id = int(found["category_ids"][index])
        yield {
            "id": int(found["segment_ids"][index]),
            "category_id": category_id,
            "category": names[category_id],
            "isthing": int(found["is_thing"][index]),
            "score": round(float(found["scores"][index]), 6),
            "area": area[int(found["segment_ids"][index])],
        }


def output_names(files: Sequence[Path]) -> list[str]:
    """Names each file's results: its stem, with "-2" and so on if that is taken."""
    names: dict[str, None] = {}
    for file in files:
        name, number = file.stem, 1
        while name in names:
            number += 1
            name = f"{file.stem}-{number}"
        names[name] = None
    return list(names)


def image_ids(names: Sequence[str]) -> list[int]:
    """Makes COCO image ids: the names, if they are different numbers, else 1, 2, ..."""
    if all(name.isdecimal() for name in names):
        numbers = [int(name) for name in names]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(names) + 1))
