"""A procedural panoptic data set in exact COCO panoptic layout.

A scene is drawn from the seed, its split and its number alone, so the files are the
same for any number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cmt.data.panoptic.masks import write_ids
from cmt.data.scenes.canvas import CATEGORIES, Scene, render_scene
from cmt.data.scenes.levels import LEVELS, Level
from cmt.errors import InputError
from cmt.io.files import atomic_directory
from cmt.io.parallel import parallel_map
from cmt.io.progress import track

MIN_SIZE = 33

_SPLITS = ("train", "val")
_IMAGES_AT_ONCE = 25


class _Task(NamedTuple):
    """Some scenes for one process."""

    folder: Path
    split: str
    numbers: range
    size: int
    seed: int
    crowd_or_void: float
    level: Level


def generate_scenes(
    output: Path | str,
    *,
    train: int,
    val: int,
    size: int = 193,
    seed: int = 0,
    crowd_or_void: float = 0.2,
    level: Level = LEVELS["middle"],
    workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Writes images/{split}/, annotations/panoptic_{split}.json and .../*.png.

    Args:
      output: the folder to make.
      train: images to train on; 0 leaves the split out.
      val: images to evaluate on; no scene is in both.
      size: side of the square images in pixels.
      seed: of everything random.
      crowd_or_void: share of the images with crowd or unlabelled areas.
      level: how hard the scenes are, one of `LEVELS`.
      workers: number of processes; 0 for one a processor.
      overwrite: replace what is at `output`.

    Raises:
      InputError: `output` exists, or a number is out of range.
    """
    _check_options(train, val, size, seed, crowd_or_void)
    counts = {"train": train, "val": val}
    with atomic_directory(output, overwrite=overwrite) as folder:
        tasks = []
        for split in _SPLITS:
            if counts[split]:
                _image_folder(folder, split).mkdir(parents=True)
                _mask_folder(folder, split).mkdir(parents=True)
            tasks += [
                _Task(
                    folder,
                    split,
                    range(first, min(first + _IMAGES_AT_ONCE, counts[split])),
                    size,
                    seed,
                    crowd_or_void,
                    level,
                )
                for first in range(0, counts[split], _IMAGES_AT_ONCE)
            ]
        entries: dict[str, list[dict[str, Any]]] = {split: [] for split in _SPLITS}
        made = _flat(parallel_map(_write_scenes, tasks, workers=workers))
        for split, entry in track(made, description="scenes", total=train + val):
            entries[split].append(entry)
        for split in _SPLITS:
            if entries[split]:
                _write_json(folder, split, entries[split], size)


def _check_options(
    train: int, val: int, size: int, seed: int, crowd_or_void: float
) -> None:
    if train < 0 or val < 0 or train + val == 0:
        raise InputError(
            f"the numbers of images must not be negative and not both 0; got {train} "
            f"for train and {val} for val"
        )
    if size < MIN_SIZE:
        raise InputError(f"size must be at least {MIN_SIZE} pixels; got {size}")
    if not 0 <= crowd_or_void <= 1:
        raise InputError(f"crowd-or-void must be from 0 to 1; got {crowd_or_void}")
    if seed < 0:
        raise InputError(f"seed must not be negative; got {seed}")


def _flat(groups: Iterator[list]) -> Iterator[Any]:
    for group in groups:
        yield from group


def _image_folder(folder: Path, split: str) -> Path:
    return folder / "images" / split


def _mask_folder(folder: Path, split: str) -> Path:
    return folder / "annotations" / f"panoptic_{split}"


def scene_rng(seed: int, split: str, number: int) -> np.random.Generator:
    """Returns the randomness of a scene; `split` is train or val, `number` from 0."""
    return np.random.default_rng([seed, _SPLITS.index(split), number])


def _write_scenes(task: _Task) -> list[tuple[str, dict[str, Any]]]:
    """Writes the images and masks of a task; returns (split, annotation) of each."""
    entries = []
    for number in task.numbers:
        rng = scene_rng(task.seed, task.split, number)
        scene = render_scene(rng, task.size, task.crowd_or_void, task.level)
        image_id = number + 1
        stem = f"{image_id:012d}"
        Image.fromarray(scene.image).save(
            _image_folder(task.folder, task.split) / f"{stem}.jpg",
            quality=95,
            subsampling=0,
        )
        ids = _segment_ids(rng, len(scene.segments))
        mask_name = f"{stem}.png"
        write_ids(_mask_folder(task.folder, task.split) / mask_name, ids[scene.owners])
        annotation = {
            "image_id": image_id,
            "file_name": mask_name,
            "segments_info": _segments_info(scene, ids),
        }
        entries.append((task.split, annotation))
    return entries


def _segment_ids(rng: np.random.Generator, count: int) -> np.ndarray:
    """[count + 1] int32: 0 for void, then different ids, all over the range."""
    steps = rng.integers(1, (2**24 - 1) // (count + 1), count)
    ids = np.zeros(count + 1, np.int32)
    ids[1:] = rng.permutation(np.cumsum(steps))
    return ids


def _segments_info(scene: Scene, ids: np.ndarray) -> list[dict[str, Any]]:
    infos = []
    for segment in scene.segments:
        mask = scene.owners == segment.value
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left = int(rows[0]), int(columns[0])
        infos.append(
            {
                "id": int(ids[segment.value]),
                "category_id": segment.category_id,
                "area": int(mask.sum()),
                "bbox": [
                    left,
                    top,
                    int(columns[-1]) - left + 1,
                    int(rows[-1]) - top + 1,
                ],
                "iscrowd": int(segment.is_crowd),
            }
        )
    return infos


def _write_json(
    folder: Path, split: str, annotations: list[dict[str, Any]], size: int
) -> None:
    images = [
        {
            "id": annotation["image_id"],
            "file_name": f"{annotation['image_id']:012d}.jpg",
            "height": size,
            "width": size,
        }
        for annotation in annotations
    ]
    content = {
        "info": {"description": "procedural scenes"},
        "images": images,
        "annotations": annotations,
        "categories": [category.to_json() for category in CATEGORIES],
    }
    path = folder / "annotations" / f"panoptic_{split}.json"
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file)
