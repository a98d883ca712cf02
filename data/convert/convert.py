"""COCO panoptic data -> TFRecord shards and a manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cmt.data.checks.reconcile import reconcile
from cmt.data.checks.source import Source, open_source
from cmt.data.convert.encode import EncodingOptions, encode_images
from cmt.data.convert.resume import (
    kept_shards,
    publish,
    shard_files,
    shifted_json,
    work_folder,
)
from cmt.data.convert.shards import (
    Budget,
    ConvertOptions,
    MadeShard,
    ShardTask,
    left_out,
    plan_shards,
    write_shard,
)
from cmt.data.panoptic.json import PanopticImage, count_masks
from cmt.data.panoptic.registry import Paths
from cmt.data.records.manifest import (
    Contents,
    Manifest,
    Origin,
    Shard,
    Skipped,
    manifest_path,
)
from cmt.errors import InputError
from cmt.io import storage
from cmt.io.files import write_json
from cmt.io.parallel import parallel_map
from cmt.io.progress import track
from cmt.io.storage import Location, join

_DISTRIBUTION = "cmt-deeplab"
# Images a process works on before it hands over: enough that handing over is cheap,
# few enough that no process waits for the last one.
_CHUNK_IMAGES = 8
# Starting processes takes as long as converting so many.
_ALONE_IMAGES = 32

# Makes shards: (tasks, encoding, work folder, budget) -> the shards, in order.
Maker = Callable[[Sequence[ShardTask], EncodingOptions, str, Budget], list[MadeShard]]


class Conversion(NamedTuple):
    """What a conversion wrote.

    Attributes:
      manifest: of the split.
      num_made: shards that this run made; it kept the others.
    """

    manifest: Manifest
    num_made: int


def convert(
    paths: Paths,
    *,
    output: Location,
    split: str,
    options: ConvertOptions,
    maker: Maker,
) -> Conversion:
    """Writes `{split}-00000-of-0000N.tfrecord` and `{split}.manifest.json`.

    Folders and files may be local or what `tf.io.gfile` reads.

    Args:
      paths: of the data set.
      output: folder of the shards.
      split: first part of their names.
      options: how it is converted.
      maker: makes the shards: `make_shards`, or what `beam_maker` returns.

    Raises:
      InputError: the data has faults (the first is named), or the split exists.
    """
    _check_options(output, split, options)
    source = open_source(paths, options.exif)
    budget = Budget(options.max_bad)
    entries = _usable(source, budget, options.limit)
    encoding = EncodingOptions(
        source.paths, source.check.categories, options.keep_crowd
    )
    with work_folder(output, split, options) as work:
        kept = _with_files(source, entries, budget)
        tasks = plan_shards(kept, split=split, shards=options.shards, encoding=encoding)
        planned = dataclasses.replace(
            _planned(source, tasks, budget),
            split=split,
            folder=output,
            crowd_kept=options.keep_crowd,
        )
        made = kept_shards(planned, tasks, work, options)
        budget.add([image for one in made.values() for image in one.skipped])
        needed = [task for task in tasks if task.name not in made]
        made |= {one.shard.name: one for one in maker(needed, encoding, work, budget)}
        ordered = [made[task.name] for task in tasks]
        manifest = _finished(planned, ordered, kept, source.check.is_thing)
        if source.shifted is not None:
            write_json(join(work, shifted_json(split)), source.shifted)
            path = join(output, shifted_json(split))
            manifest = dataclasses.replace(manifest, annotations=path)
        publish(work, ordered, manifest)
    return Conversion(Manifest.read(manifest_path(output, split)), len(needed))


def _check_options(output: Location, split: str, options: ConvertOptions) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.]*", split):
        raise InputError(
            "--split must be a name of letters, digits, '_' and '.', the first of them "
            f"no '.'; got {split!r}"
        )
    if not str(output):
        raise InputError("--output must name a folder; got ''; give . for this one")
    if options.resume and options.overwrite:
        raise InputError("--resume and --overwrite exclude each other; give one")
    existing = shard_files(output, split)
    if storage.is_file(manifest_path(output, split)):
        existing.append(manifest_path(output, split))
    if existing and not (options.resume or options.overwrite):
        raise InputError(
            f"{output}: already holds the split {split}; give --overwrite to replace "
            "it, --resume to complete it, or another --output"
        )


def _usable(source: Source, budget: Budget, limit: int) -> list[PanopticImage]:
    """The images whose entries have no fault; the others go to the budget."""
    problems = source.check.problems
    for problem in problems:
        if problem.image is None:
            more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
            raise InputError(
                f"{problem.line}{more}; `cmt data validate` lists all problems"
            )
    images = source.check.images
    names = {entry.file_name for entry in images[:limit]}
    faulty = left_out(problems)
    budget.add(image for image in faulty if not limit or image.image in names)
    return _without(images[:limit] if limit else images, faulty)


def _without(
    entries: Sequence[PanopticImage], skipped: Sequence[Skipped]
) -> list[PanopticImage]:
    names = {image.image for image in skipped}
    return [entry for entry in entries if entry.file_name not in names]


def _with_files(
    source: Source, entries: list[PanopticImage], budget: Budget
) -> list[PanopticImage]:
    """The images whose files are there; the others go to the budget."""
    found = reconcile(source.paths, entries)
    missing = left_out(found.missing)
    summary = ""
    if len(missing) > 1:
        summary = (
            f"the json names {len(entries)} images and as many masks, of which "
            f"{found.counts.missing_images} and {found.counts.missing_masks} are not "
            "there, such as "
        )
    budget.add(missing, summary)
    kept = _without(entries, missing)
    if not kept:
        raise InputError(
            f"{source.paths.annotations}: no image is left to convert; `cmt data "
            "validate` lists all problems"
        )
    return kept


def make_shards(
    tasks: Sequence[ShardTask],
    encoding: EncodingOptions,
    work: str,
    budget: Budget,
    *,
    workers: int = 0,
) -> list[MadeShard]:
    """Makes the shards one after the other, each by all processes.

    Args:
      tasks: the shards.
      encoding: how records are made.
      work: folder to write them to.
      budget: takes the images that have faults.
      workers: number of processes; 0 for one a processor.
    """
    if not tasks:
        return []
    chunks = [
        task.entries[start : start + _CHUNK_IMAGES]
        for task in tasks
        for start in range(0, len(task.entries), _CHUNK_IMAGES)
    ]
    total = sum(len(task.entries) for task in tasks)
    if total < _ALONE_IMAGES:
        workers = 1
    results = parallel_map(
        functools.partial(encode_images, encoding), chunks, workers=workers
    )
    flat = itertools.chain.from_iterable(results)
    encoded = track(flat, description="convert", total=total)
    made = []
    with contextlib.closing(results), contextlib.closing(encoded):
        for task in tasks:
            some = itertools.islice(encoded, len(task.entries))
            made.append(write_shard(join(work, task.name), task, some, budget))
        next(encoded, None)  # so that the progress ends
    return made


def _planned(source: Source, tasks: Sequence[ShardTask], budget: Budget) -> Manifest:
    """What the manifest will say, as far as it is known before shards are made."""
    try:
        version = importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    paths = source.paths
    origin = Origin(
        images=paths.images,
        annotations=paths.annotations,
        dataset=paths.dataset,
        exif=paths.exif,
        category_offset=paths.category_offset,
        annotations_sha256=source.annotations_sha256,
        tool_version=version,
    )
    return Manifest(
        split="",
        categories=source.check.categories,
        num_images=sum(len(task.entries) for task in tasks),
        shards=[Shard(task.name, len(task.entries), "") for task in tasks],
        annotations=paths.annotations,
        masks=paths.masks,
        origin=origin,
        contents=Contents(skipped=tuple(budget.skipped)),
    )


def _finished(
    planned: Manifest,
    made: Sequence[MadeShard],
    entries: Sequence[PanopticImage],
    is_thing: dict[int, bool | None],
) -> Manifest:
    """The manifest of shards that are made."""
    shards = [one.shard for one in made]
    # In the order of the shards, whichever of them were there before.
    skipped = [image for one in made for image in one.skipped]
    skipped = [*planned.contents.skipped, *skipped]
    kept = _without(entries, skipped)
    if not kept:
        raise InputError(
            f"no image is left to convert, all {len(skipped)} have faults; the "
            f"first: {skipped[0].line}"
        )
    digests = "".join(shard.source_sha256 for shard in shards)
    digest = hashlib.sha256(digests.encode()).hexdigest()
    return dataclasses.replace(
        planned,
        num_images=sum(shard.num_images for shard in shards),
        shards=shards,
        origin=planned.origin._replace(source_sha256=digest),
        contents=_contents(kept, is_thing)._replace(
            num_bytes=sum(shard.num_bytes for shard in shards), skipped=tuple(skipped)
        ),
    )


def _contents(
    entries: Sequence[PanopticImage], is_thing: dict[int, bool | None]
) -> Contents:
    crowd = things = stuff = most = 0
    for entry in entries:
        masks = count_masks(entry, is_thing)
        most = max(most, masks)
        crowd += sum(segment.is_crowd for segment in entry.segments)
        flat = sum(not is_thing[segment.category_id] for segment in entry.segments)
        stuff += flat
        things += masks - flat
    return Contents(things + stuff + crowd, things, stuff, crowd, most)
