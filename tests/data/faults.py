"""A data set to be damaged, and ways to do it."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from cmt.data.checks.report import Validation, validate
from cmt.data.panoptic.masks import read_ids, write_ids
from cmt.data.panoptic.registry import Paths

Sources = dict[str, pathlib.Path]
ALWAYS = {"category ids with gaps"}  # what the scenes have


class DataSet:
    """The scenes, to be damaged."""

    def __init__(self, sources: Sources):
        self.sources = sources
        self.content = json.loads(sources["annotations"].read_text())
        self.stuff = {c["id"] for c in self.content["categories"] if not c["isthing"]}

    def image(self, number: int = 1) -> pathlib.Path:
        return self.sources["images"] / f"{number:012d}.jpg"

    def mask(self, number: int = 1) -> pathlib.Path:
        return self.sources["masks"] / f"{number:012d}.png"

    def infos(self, number: int = 1) -> list[dict[str, Any]]:
        return self.content["annotations"][number - 1]["segments_info"]

    def info(self, *, thing: bool) -> dict[str, Any]:
        return next(
            info
            for number in range(1, 7)
            for info in self.infos(number)
            if (info["category_id"] not in self.stuff) == thing
        )

    def change_ids(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        write_ids(self.mask(), change(read_ids(self.mask())))

    def found(
        self, *, strict: bool = False, exif: str = "auto", **options: Any
    ) -> Validation:
        self.sources["annotations"].write_text(json.dumps(self.content))
        paths = Paths(**self.sources, strict=strict, exif=exif)
        return validate(paths, workers=1, **options)


# What destroys annotations that are there, and so no fix may ask for.
HARMFUL = ("remove", "delete", "to 0 ", "set the pixels")


# What is planted, the one kind of problem, how often, a part of its line.
Fault = tuple[Callable[[DataSet], object], str, int, str]


def check(data: DataSet, fault: Fault) -> None:
    """Exactly the one kind is reported, with a fix that loses nothing."""
    plant, kind, times, line = fault
    plant(data)
    found = data.found(strict=True)
    assert found.kinds() == {kind: times}, [problem.line for problem in found.problems]
    assert line in found.problems[0].line
    for problem in found.problems:
        assert "\n" not in problem.line
        assert not any(word in problem.fix for word in HARMFUL)


def cut(path: pathlib.Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def flip_byte(path: pathlib.Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def turned(image: pathlib.Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(image).save(image, exif=exif)


def saved_as(image: pathlib.Path, mode: str) -> None:
    Image.open(image).convert(mode).save(image)


def category_without_id(data: DataSet) -> None:
    """One that segments have."""
    used = data.infos()[0]["category_id"]
    next(c for c in data.content["categories"] if c["id"] == used).pop("id")


def second_stuff(data: DataSet) -> None:
    """Half of a stuff segment gets an id of its own, rightly drawn and described."""
    ids = read_ids(data.mask())
    info = next(i for i in data.infos() if i["category_id"] in data.stuff)
    rows, columns = np.nonzero(ids == info["id"])
    half = len(rows) // 2
    ids[rows[:half], columns[:half]] = 777
    write_ids(data.mask(), ids)
    info.pop("bbox", None)
    new = {**info, "id": 777, "area": half}
    info["area"] = len(rows) - half
    data.infos().append(new)


def exchange(data: DataSet) -> None:
    shutil.copy(data.mask(2), data.mask(1))


def bgr(data: DataSet) -> None:
    colors = np.asarray(Image.open(data.mask()))
    Image.fromarray(np.ascontiguousarray(colors[..., ::-1])).save(data.mask())


def interpolated(data: DataSet) -> None:
    mask = Image.open(data.mask())
    small = mask.resize((40, 40), Image.Resampling.BILINEAR)
    small.resize(mask.size, Image.Resampling.BILINEAR).save(data.mask())


def crowded(data: DataSet, counts: dict[int, int]) -> None:
    """The first image gets so many things of one pixel, by category."""
    ids = read_ids(data.mask())
    total = sum(counts.values())
    ids[:] = 0
    ids.flat[:total] = np.arange(1, total + 1)
    write_ids(data.mask(), ids)
    categories = [number for number, count in counts.items() for _ in range(count)]
    data.infos()[:] = [
        {"id": index + 1, "category_id": category, "area": 1, "iscrowd": 0}
        for index, category in enumerate(categories)
    ]


def things(data: DataSet) -> list[int]:
    """Ids of the thing categories."""
    return [c["id"] for c in data.content["categories"] if c["isthing"]]


def more_categories(data: DataSet, total: int) -> None:
    categories = data.content["categories"]
    categories += [
        {"id": 1000 + number, "name": f"c{number}", "isthing": 1}
        for number in range(total - len(categories))
    ]


def upright_not_square(data: DataSet) -> None:
    """The first image is stored turned, its EXIF says so, its mask is upright."""
    ids = read_ids(data.mask())[:, :60]
    write_ids(data.mask(), ids)
    numbers, counts = np.unique(ids, return_counts=True)
    areas = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    kept = [info for info in data.infos() if info["id"] in areas]
    for info in kept:
        info["area"] = areas[info["id"]]
        info.pop("bbox")
    data.infos()[:] = kept
    data.content["images"][0].update(height=65, width=60)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (65, 60)).save(data.image(), exif=exif)


def instances(data: DataSet) -> None:
    for annotation in data.content["annotations"]:
        annotation.pop("segments_info")
        annotation.update(bbox=[0, 0, 1, 1], segmentation=[], category_id=1)
    for category in data.content["categories"]:
        category.pop("isthing")


def pop_each(data: DataSet, key: str) -> None:
    for category in data.content["categories"]:
        category.pop(key)
