"""COCO panoptic data -> TFRecord shards and a manifest.

Shards are made in a hidden folder beside their final place and moved there when all
are done. After a fault nothing is left; after an interruption the hidden folder is,
for `resume`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cmt.data.categories import Category, class_of_id
from cmt.data.check_files import check_files
from cmt.data.check_json import JsonCheck
from cmt.data.coco import (
    MAX_LABEL_PART,
    PanopticImage,
    label_values,
    load_json,
    read_annotations,
)
from cmt.data.files import atomic_write
from cmt.data.manifest import Manifest, Shard, manifest_path
from cmt.data.parallel import parallel_map
from cmt.data.progress import track
from cmt.data.tfrecord import encode_example, frame
from cmt.errors import InputError

_SHARD_BYTES = 128 * 2**20
_SHARD_IMAGES = 1000


class _Source(NamedTuple):
    """What all shards have in common."""

    images: Path
    masks: Path
    categories: list[Category]
    keep_crowd: bool


class _Task(NamedTuple):
    """One shard for one process.

    Attributes:
      path: where it is made.
      final: where it goes in the end.
      entries: its images.
      source: where their files are.
      known: what earlier runs recorded of a shard of this name.
    """

    path: Path
    final: Path
    entries: list[PanopticImage]
    source: _Source
    known: list[Shard]


def convert(
    *,
    images: Path | str,
    annotations: Path | str,
    masks: Path | str,
    output: Path | str,
    split: str,
    shards: int = 0,
    workers: int = 0,
    limit: int = 0,
    keep_crowd: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> Manifest:
    """Writes `{split}-00000-of-0000N.tfrecord` and `{split}.manifest.json`.

    Args:
      images: folder of the images.
      annotations: COCO panoptic json.
      masks: folder of its PNG files.
      output: folder of the shards.
      split: first part of their names.
      shards: number of files; 0 for one a 1000 images or 128 MiB, whichever is more.
      workers: number of processes; 0 for one a processor.
      limit: convert the first images only; 0 for all.
      keep_crowd: crowd is its class with instance 0 instead of void.
      resume: keep the finished shards of an earlier run that have not changed.
      overwrite: replace the split if it exists.

    Returns:
      The manifest, as written.

    Raises:
      InputError: the data has a fault (the first is named), or the split exists.
    """
    output = Path(output)
    _check_options(output, split, resume, overwrite)
    categories, entries = _read(Path(annotations), Path(images), Path(masks))
    entries = entries[:limit] if limit else entries
    source = _Source(Path(images), Path(masks), categories, keep_crowd)
    num_shards = _num_shards(shards, source, entries)
    with _work_folder(output, split, resume) as work:
        known = _known_shards(work, output, split) if resume else {}
        tasks = _tasks(work, output, split, num_shards, entries, source, known)
        made = _make_shards(tasks, workers)
    manifest = Manifest(
        split=split,
        categories=categories,
        num_images=len(entries),
        shards=made,
        annotations=Path(annotations),
        masks=Path(masks),
        crowd_kept=keep_crowd,
        folder=output,
    )
    _publish(work, tasks, manifest)
    return manifest


def _check_options(output: Path, split: str, resume: bool, overwrite: bool) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_.]+", split):
        raise InputError(
            f"--split must be a name of letters, digits, '_' and '.'; got {split!r}"
        )
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other; give one")
    existing = [*_shard_files(output, split), manifest_path(output, split)]
    if not (resume or overwrite) and any(path.exists() for path in existing):
        raise InputError(
            f"{output}: already holds the split {split}; give --overwrite to replace "
            "it, --resume to complete it, or another --output"
        )


def _read(
    annotations: Path, images: Path, masks: Path
) -> tuple[list[Category], list[PanopticImage]]:
    """Reads the json and refuses it if it has any fault by itself."""
    content = load_json(annotations)
    problems = JsonCheck(annotations, content).problems
    if problems:
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(
            f"{problems[0].line}{more}; `cmt data validate` lists all problems"
        )
    for folder in (images, masks):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give that of the json's files")
    parsed = read_annotations(annotations, content)
    if len(parsed.categories) > MAX_LABEL_PART:
        raise InputError(
            f"{annotations}: at most {MAX_LABEL_PART} categories fit in a label; got "
            f"{len(parsed.categories)}; remove those not used"
        )
    return parsed.categories, parsed.images


def _num_shards(requested: int, source: _Source, entries: list[PanopticImage]) -> int:
    if requested > len(entries):
        raise InputError(
            f"--shards must be at most the number of images, {len(entries)}; got "
            f"{requested}"
        )
    paths = [source.images / entry.file_name for entry in entries]
    size = sum(path.stat().st_size for path in paths if path.is_file())
    by_size = math.ceil(size / _SHARD_BYTES)
    return requested or max(by_size, math.ceil(len(entries) / _SHARD_IMAGES))


@contextlib.contextmanager
def _work_folder(output: Path, split: str, resume: bool) -> Iterator[Path]:
    """The hidden folder shards are made in; a fault in the block removes it."""
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    work = output / f".{split}.partial"
    if work.exists() and not resume:
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    try:
        yield work
    except Exception:
        shutil.rmtree(work, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _tasks(
    work: Path,
    output: Path,
    split: str,
    num_shards: int,
    entries: list[PanopticImage],
    source: _Source,
    known: dict[str, list[Shard]],
) -> list[_Task]:
    bounds = [len(entries) * number // num_shards for number in range(num_shards + 1)]
    tasks = []
    for number in range(num_shards):
        name = f"{split}-{number:05d}-of-{num_shards:05d}.tfrecord"
        some = entries[bounds[number] : bounds[number + 1]]
        earlier = known.get(name, [])
        tasks.append(_Task(work / name, output / name, some, source, earlier))
    return tasks


def _known_shards(work: Path, output: Path, split: str) -> dict[str, list[Shard]]:
    """What the hidden folder and the manifest say of shards, by name."""
    shards = []
    for path in sorted(work.glob("*.json")):
        shards.append(Shard(**json.loads(path.read_text(encoding="utf-8"))))
    if manifest_path(output, split).is_file():
        shards += Manifest.read(manifest_path(output, split)).shards
    known: dict[str, list[Shard]] = {}
    for shard in shards:
        known.setdefault(shard.name, []).append(shard)
    return known


def _make_shards(tasks: list[_Task], workers: int) -> list[Shard]:
    total = sum(len(task.entries) for task in tasks)
    made = []

    def images_done() -> Iterator[int]:
        for shard in parallel_map(
            _make_shard, tasks, workers=workers if len(tasks) > 1 else 1
        ):
            made.append(shard)
            yield from range(shard.num_images)

    for _ in track(images_done(), description="convert", total=total):
        pass
    return made


def _make_shard(task: _Task) -> Shard:
    """Writes the shard, unless it is there as recorded, and its record."""
    source = _source_digest(task)
    for shard in task.known:
        for path in (task.path, task.final):
            if (
                shard.source == source
                and path.is_file()
                and _file_digest(path) == shard.sha256
            ):
                return shard
    digest = hashlib.sha256()
    with atomic_write(task.path) as file:
        for entry in task.entries:
            record = frame(_encode(task.source, entry))
            digest.update(record)
            file.write(record)
    shard = Shard(task.path.name, len(task.entries), digest.hexdigest(), source)
    with atomic_write(task.path.with_suffix(".json"), "w") as file:
        json.dump(shard._asdict(), file)
    return shard


def _encode(source: _Source, entry: PanopticImage) -> bytes:
    """The serialised example of an image.

    Raises:
      InputError: its files have a fault.
    """
    files = check_files(source.images, source.masks, entry)
    if files.problems:
        raise InputError(
            f"{files.problems[0].line}; `cmt data validate` lists all problems"
        )
    classes = class_of_id(source.categories)
    is_thing = [category.is_thing for category in source.categories]
    try:
        values = label_values(
            entry.segments, classes, is_thing, keep_crowd=source.keep_crowd
        )
    except InputError as error:
        raise InputError(f"{entry.file_name}: {error}") from error
    labels = np.array([0, *values], np.uint16)[files.index + 1]
    image, image_format = _encoded_rgb(
        source.images / entry.file_name, files.image_format, files.image_mode
    )
    return encode_example(
        name=entry.name, image=image, image_format=image_format, labels=labels
    )


def _encoded_rgb(path: Path, image_format: str, mode: str) -> tuple[bytes, str]:
    """The file as it is if it is an RGB JPEG or PNG; else encoded again."""
    if mode == "RGB" and image_format in ("JPEG", "PNG"):
        return path.read_bytes(), image_format.lower()
    buffer = io.BytesIO()
    with Image.open(path) as image:
        rgb = image.convert("RGB")
        if image_format == "JPEG":
            rgb.save(buffer, "JPEG", quality=95, subsampling=0)
            return buffer.getvalue(), "jpeg"
        rgb.save(buffer, "PNG")
        return buffer.getvalue(), "png"


def _source_digest(task: _Task) -> str:
    """Changes when the shard would: its entries, their files, or the options."""
    images, masks, categories, keep_crowd = task.source
    stamps = []
    for entry in task.entries:
        for path in (images / entry.file_name, masks / entry.mask_name):
            if path.is_file():
                status = path.stat()
                stamps.append((status.st_size, status.st_mtime_ns))
            else:
                stamps.append(None)
    content = [task.entries, categories, keep_crowd, stamps]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _shard_files(output: Path, split: str) -> list[Path]:
    return sorted(output.glob(f"{split}-[0-9]*-of-[0-9]*.tfrecord"))


def _publish(work: Path, tasks: list[_Task], manifest: Manifest) -> None:
    """Moves the shards to their place; the manifest comes last.

    It is written first under a hidden name, so that a full disk leaves the split that
    was there. If the moves are cut off, there is no manifest, and `resume` goes on
    from `work`.
    """
    path = manifest_path(manifest.folder, manifest.split)
    # Not in `work`: its source paths are relative to its folder.
    written = path.with_name(f".{path.name}.partial")
    manifest.write(written)
    path.unlink(missing_ok=True)
    for task in tasks:
        if task.path.is_file():
            task.path.replace(task.final)
    current = {task.final for task in tasks}
    for stale in _shard_files(manifest.folder, manifest.split):
        if stale not in current:
            stale.unlink()
    written.replace(path)
    shutil.rmtree(work)
