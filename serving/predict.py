"""Panoptic maps of image files: pictures to look at, COCO panoptic files, raw arrays.

Files are read, and results are drawn and written, in threads beside the network, which
gets images of one size together.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.predictions import (
    PredictionWriter,
    segment_scores,
    write_predictions,
)
from cmt.errors import InputError
from cmt.io.files import atomic_write
from cmt.io.images import FORMATS as IMAGE_FORMATS
from cmt.io.parallel import threaded_map
from cmt.io.png import ImageFault
from cmt.io.progress import track
from cmt.labels import count_values
from cmt.pictures.overlay import draw_overlay, load_libraries
from cmt.pictures.sheet import save_picture
from cmt.serving.inputs import decode_file
from cmt.serving.saved_model import Segmenter

# What --format takes, and the ending of the overlays it asks for.
_OVERLAYS = {"overlay": ".png", "overlay-jpeg": ".jpg"}
FORMATS = (*_OVERLAYS, "coco", "npz")
DEFAULT_FORMATS = ("overlay", "coco")
OVERLAYS_FOLDER, ARRAYS_FOLDER = "overlays", "npz"
RESULTS_FILE, PAGE_FILE = "predictions.json", "index.html"

# The network gets no more images together, nor more pixels of its own size: networks on
# large images gain nothing, and need memory for each.
_BATCH_IMAGES, _BATCH_PIXELS = 8, 2**20
# Decoded images wait for others of their size, up to so many pixels.
_WAITING_PIXELS = 2**25


class Outcome(NamedTuple):
    """The results of predicting some image files.

    Attributes:
      images: the entries of "images" in predictions.json.
      unreadable: (file, reason) of the files that are no images.
    """

    images: list[dict[str, Any]]
    unreadable: list[tuple[Path, str]]

    def to_json(self) -> dict[str, Any]:
        """Returns the content of predictions.json."""
        skipped = [{"file": str(f), "reason": why} for f, why in self.unreadable]
        return {"images": self.images, "skipped": skipped}


class _Picture(NamedTuple):
    """A decoded image, [H, W, 3] uint8, of the file with that number."""

    number: int
    image: np.ndarray


class _Found(NamedTuple):
    """A picture with the outputs of the model for it."""

    picture: _Picture
    outputs: Mapping[str, np.ndarray]


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


def check_formats(formats: Sequence[str], *, page: bool) -> None:
    """Checks that a page has overlays to show.

    Raises:
      InputError: it has none.
    """
    if page and not set(_OVERLAYS) & set(formats):
        raise InputError(
            "--html shows overlays, and --format must have overlay or overlay-jpeg; "
            f"got {','.join(formats)}; add one"
        )


def predict_files(
    segmenter: Segmenter,
    files: Sequence[Path],
    output: Path | str,
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
    page: bool = False,
) -> Outcome:
    """Segments files and writes what was asked for.

    Below `output`: `overlays/*.png` for "overlay", `overlays/*.jpg` for "overlay-jpeg",
    `panoptic.json` and `panoptic/*.png` for "coco", `npz/*.npz` for "npz"; always
    `predictions.json`, the segments of each image with class, score and area. Files
    that are no images are left out.

    Args:
      segmenter: from `cmt.serving.factory.open_model`.
      files: from `find_inputs`.
      output: the folder; what is there under these names is replaced.
      formats: of `FORMATS`.
      page: also write `index.html`, which shows the overlays.

    Raises:
      InputError: no file is an image, and nothing is written or replaced; or the page
        has no overlays to show.
    """
    check_formats(formats, page=page)
    output = Path(output)
    coco = contextlib.nullcontext()
    if "coco" in formats:
        coco = write_predictions(output, segmenter.categories)
    with coco as writer:
        results = _Results(files, output, formats, segmenter.categories, writer)
        outcome = _predict_all(segmenter, files, results)
    with atomic_write(output / RESULTS_FILE, "w") as file:
        json.dump(outcome.to_json(), file, indent=1)
        file.write("\n")
    if page:
        _write_page(output / PAGE_FILE, outcome)
    return outcome


def _write_page(path: Path, outcome: Outcome) -> None:
    """Writes a page of overlays with their segments, of which a class can be chosen."""
    from cmt.pictures.page import write_page  # Jinja2.

    names = {
        s["category_id"]: s["category"] for i in outcome.images for s in i["segments"]
    }
    classes = sorted(names.items(), key=lambda item: item[1].casefold())
    content = outcome.to_json()
    write_page(
        path, "cmt.serving", "predictions.html.jinja", classes=classes, **content
    )


def _predict_all(
    segmenter: Segmenter, files: Sequence[Path], results: _Results
) -> Outcome:
    unreadable: dict[int, str] = {}
    pictures = _readable(threaded_map(_read, enumerate(files)), unreadable)
    found = _segment_batches(segmenter, pictures)
    written = threaded_map(results.write, found)
    entries: dict[int, dict[str, Any]] = {}
    # Closed, and with it its threads, before anything of theirs is removed.
    with contextlib.closing(written):
        for number, entry in track(written, description="predicting", total=len(files)):
            entries[number] = entry
    reasons = [(files[number], unreadable[number]) for number in sorted(unreadable)]
    if not entries:
        named = [f"; {file}: {reason}" for file, reason in reasons[:1]]
        raise InputError(
            f"none of {len(files)} files is an image that can be read{''.join(named)}; "
            f"give images of the formats {', '.join(IMAGE_FORMATS)}"
        )
    return Outcome([entries[number] for number in sorted(entries)], reasons)


def _read(numbered: tuple[int, Path]) -> tuple[int, np.ndarray | str]:
    """Reads and decodes a file: its number, and the image or why there is none."""
    number, file = numbered
    return number, read_image(file)


def read_image(file: Path) -> np.ndarray | str:
    """Reads an image, [H, W, 3] uint8, or says why it is none."""
    try:
        return decode_file(file.read_bytes())
    except OSError as error:
        return error.strerror or str(error)
    except ImageFault as fault:
        return fault.reason


def _readable(
    read: Iterator[tuple[int, np.ndarray | str]], unreadable: dict[int, str]
) -> Iterator[_Picture]:
    """Passes images on, and puts the reason of each that is none in `unreadable`."""
    for number, image in read:
        if isinstance(image, str):
            unreadable[number] = image
        else:
            yield _Picture(number, image)


def _batches(pictures: Iterator[_Picture], most: int) -> Iterator[tuple[_Picture, ...]]:
    """Groups pictures of one size, at most `most` together and few waiting.

    The first is alone, so that there is something to see soon.
    """
    waiting: dict[tuple[int, ...], list[_Picture]] = {}
    pixels, together = 0, 1
    for picture in pictures:
        size = picture.image.shape
        waiting.setdefault(size, []).append(picture)
        pixels += size[0] * size[1]
        while waiting:
            fullest = max(waiting, key=lambda size: len(waiting[size]))
            if len(waiting[fullest]) < together and pixels <= _WAITING_PIXELS:
                break
            batch = waiting.pop(fullest)
            pixels -= len(batch) * fullest[0] * fullest[1]
            together = most
            yield tuple(batch)
    yield from map(tuple, waiting.values())


def _segment_batches(
    segmenter: Segmenter, pictures: Iterator[_Picture]
) -> Iterator[_Found]:
    crop_height, crop_width = segmenter.crop_size
    most = max(1, min(_BATCH_IMAGES, _BATCH_PIXELS // (crop_height * crop_width)))
    for batch in _batches(pictures, most):
        images = np.stack([picture.image for picture in batch])
        outputs = segmenter.run(images)
        outputs = {name: np.asarray(value) for name, value in outputs.items()}
        for index, picture in enumerate(batch):
            yield _Found(picture, {name: v[index] for name, v in outputs.items()})


class _Results:
    """Writes what was found in images, in any order and from several threads."""

    def __init__(
        self,
        files: Sequence[Path],
        output: Path,
        formats: Sequence[str],
        categories: Sequence[Category],
        coco: PredictionWriter | None,
    ):
        self._files, self._output = files, output
        self._formats, self._categories = formats, categories
        self._endings = [_OVERLAYS[name] for name in formats if name in _OVERLAYS]
        if self._endings:
            # Beside the first answer of the network, which takes longer.
            threading.Thread(target=load_libraries).start()
        self._coco = coco
        self._names = output_names(files)
        self._image_ids = image_ids(self._names)

    def write(self, found: _Found) -> tuple[int, dict[str, Any]]:
        """Writes one image's files; returns its number and entry."""
        (number, image), outputs = found
        name, panoptic = self._names[number], outputs["panoptic"]
        file, image_id = self._files[number], self._image_ids[number]
        entry = {"file": str(file), "image_id": image_id, "size": list(panoptic.shape)}
        if self._endings:
            picture = draw_overlay(image, panoptic, self._categories)
            paths = [
                Path(OVERLAYS_FOLDER, f"{name}{ending}") for ending in self._endings
            ]
            for path in paths:
                save_picture(self._output / path, picture)
            entry["overlay"] = paths[0].as_posix()
        if "npz" in self._formats:
            path = Path(ARRAYS_FOLDER, f"{name}.npz")
            with atomic_write(self._output / path) as stream:
                np.savez_compressed(stream, **outputs)
            entry["arrays"] = path.as_posix()
        if self._coco is not None:
            scores = segment_scores(outputs["segment_ids"], outputs["scores"])
            file_name = f"{name}{file.suffix}"
            # Listed in the order of the files.
            self._coco.add(image_id, file_name, panoptic, scores, place=number)
        entry["segments"] = list(_segments(outputs, self._categories))
        return number, entry


def _segments(
    outputs: Mapping[str, np.ndarray], categories: Sequence[Category]
) -> Iterator[dict[str, Any]]:
    names = {category.id: category.name for category in categories}
    values, areas = count_values(outputs["panoptic"])
    area = dict(zip(values.tolist(), areas.tolist(), strict=True))
    for index in np.flatnonzero(outputs["segment_ids"]):
        category_id = int(outputs["category_ids"][index])
        yield {
            "id": int(outputs["segment_ids"][index]),
            "category_id": category_id,
            "category": names[category_id],
            "isthing": int(outputs["is_thing"][index]),
            "score": round(float(outputs["scores"][index]), 6),
            "area": area[int(outputs["segment_ids"][index])],
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
