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

from cmt.data.checks.problems import Problem
from cmt.data.checks.reconcile import reconcile
from cmt.data.checks.source import Source, open_source
from cmt.data.convert.encode import EncodingOptions, encode_images
from cmt.data.convert.resume import Run, begin, finished_shards, refuse_other_split
from cmt.data.convert.shards import (
    Budget,
    MadeShard,
    ShardTask,
    left_out,
    plan_shards,
    publish,
    shard_files,
    shifted_json,
    work_folder,
    write_shard,
)
from cmt.data.panoptic.json import PanopticImage, count_masks
from cmt.data.panoptic.registry import Paths
from cmt.data.records.manifest import (
    Contents,
    Manifest,
    Origin,
    Skipped,
    manifest_path,
)
from cmt.errors import InputError
from cmt.io import storage
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


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """How a data set is converted.

    Attributes:
      shards: number of files; 0 for as many as 200 MB each needs.
      limit: only the first images; 0 for all.
      keep_crowd: crowd is its class with instance 0 instead of void.
      exif: "auto", "apply" or "ignore", see `FileOptions`; None for what the data
        set says.
      max_bad: images with faults that are left out before it is refused.
      resume: keep the finished shards of an earlier run that have not changed.
      overwrite: replace the split if it exists.
    """

    shards: int = 0
    limit: int = 0
    keep_crowd: bool = False
    exif: str | None = None
    max_bad: int = 0
    resume: bool = False
    overwrite: bool = False


def convert(
    *,
    images: Location,
    annotations: Location,
    masks: Location,
    output: Location,
    split: str,
    workers: int = 0,
    **options: bool | int | str | None,
) -> Manifest:
    """Writes `{split}-00000-of-0000N.tfrecord` and `{split}.manifest.json`.

    Folders and files may be local or what `tf.io.gfile` reads.

    Args:
      images: folder of the images.
      annotations: COCO panoptic json.
      masks: folder of its PNG files.
      output: folder of the shards.
      split: first part of their names.
      workers: number of processes; 0 for one a processor.
      **options: those of `ConvertOptions`.

    Returns:
      The manifest, as written.

    Raises:
      InputError: the data has faults (the first is named), or the split exists.
    """
    return convert_paths(
        Paths(images, annotations, masks),
        output=output,
        split=split,
        options=ConvertOptions(**options),
        maker=functools.partial(make_shards, workers=workers),
    )


def convert_paths(
    paths: Paths,
    *,
    output: Location,
    split: str,
    options: ConvertOptions,
    maker: Maker,
) -> Manifest:
    """Converts a data set; see `convert`.

    Args:
      paths: where it is.
      output: folder of the shards.
      split: first part of their names.
      options: how.
      maker: makes the shards.
    """
    _check_options(output, split, options)
    source = open_source(paths, options.exif)
    budget = Budget(options.max_bad)
    entries = _usable(source, budget, options.limit)
    encoding = EncodingOptions(
        source.files, source.check.categories, options.keep_crowd
    )
    num_images = len(entries) + len(budget.skipped)
    resume, overwrite = options.resume, options.overwrite
    with work_folder(output, split, resume=resume, overwrite=overwrite) as work:
        tasks = _plan(source, entries, split, options.shards, encoding, budget)
        early = list(budget.skipped)
        run = begin(work, _run(source, tasks, options, num_images))
        made = _kept(tasks, run, work, output, split) if resume else {}
        budget.skipped += [image for one in made.values() for image in one.skipped]
        budget.check()
        needed = [task for task in tasks if task.name not in made]
        new = maker(needed, encoding, work, budget)
        made |= {one.shard.name: one for one in new}
        ordered = [made[task.name] for task in tasks]
        # In the order of the shards, whichever of them were there before.
        skipped = early + [image for one in ordered for image in one.skipped]
        manifest = _manifest(source, tasks, ordered, skipped, options.keep_crowd)
        if not manifest.num_images:
            raise InputError(
                f"no image is left to convert, all {len(skipped)} have faults; the "
                f"first: {skipped[0].line}"
            )
        manifest = dataclasses.replace(manifest, split=split, folder=output)
        if source.shifted is not None:
            storage.write_json(join(work, shifted_json(split)), source.shifted)
            path = join(output, shifted_json(split))
            manifest = dataclasses.replace(manifest, annotations=path)
        publish(work, ordered, manifest)
    return Manifest.read(manifest_path(output, split))


def _run(
    source: Source,
    tasks: Sequence[ShardTask],
    options: ConvertOptions,
    num_images: int,
) -> Run:
    return Run(
        num_images=num_images,
        num_shards=len(tasks),
        keep_crowd=options.keep_crowd,
        exif=source.files.exif,
        category_offset=source.paths.category_offset,
        annotations_sha256=source.annotations_sha256,
        overwrite=options.overwrite,
    )


def _kept(
    tasks: Sequence[ShardTask], run: Run, work: str, output: Location, split: str
) -> dict[str, MadeShard]:
    """The shards of an earlier run that this one keeps, by name."""
    finished = finished_shards(tasks, work, output, split)
    refuse_other_split(run, finished.made, output, split)
    for path in finished.outdated:
        # Or it would be moved over the one that is current.
        storage.remove(path)
    return finished.made


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
    check = source.check
    faulty: dict[str, Skipped] = {}
    for problem in check.problems:
        if problem.image is None:
            others = len(check.problems) - 1
            more = f" ({others} more)" if others else ""
            raise InputError(
                f"{problem.line}{more}; `cmt data validate` lists all problems"
            )
        faulty.setdefault(problem.image, left_out(problem.image, problem))
    entries = check.images[:limit] if limit else check.images
    names = {entry.file_name for entry in entries}
    budget.skipped += [
        skipped for skipped in faulty.values() if not limit or skipped.image in names
    ]
    budget.check()
    return [entry for entry in entries if entry.file_name not in faulty]


def _plan(
    source: Source,
    entries: list[PanopticImage],
    split: str,
    shards: int,
    encoding: EncodingOptions,
    budget: Budget,
) -> list[ShardTask]:
    """The shards to make of the images whose files are there."""
    found = reconcile(source.files, entries)
    # Of each image the first: if its mask is missing, too, that is no other image.
    missing: dict[str, Problem] = {}
    for problem in found.missing:
        missing.setdefault(problem.image, problem)
    summary = ""
    if len(missing) > 1:
        counts = found.counts
        summary = (
            f"the json names {len(entries)} images and as many masks, of which "
            f"{counts.missing_images} and {counts.missing_masks} are not there, such "
            "as "
        )
    budget.skipped += [left_out(image, problem) for image, problem in missing.items()]
    budget.check(summary)
    kept = [entry for entry in entries if entry.file_name not in missing]
    if not kept:
        raise InputError(
            f"{source.paths.annotations}: no image is left to convert; `cmt data "
            "validate` lists all problems"
        )
    return plan_shards(kept, split=split, shards=shards, encoding=encoding)


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


def _manifest(
    source: Source,
    tasks: Sequence[ShardTask],
    made: Sequence[MadeShard],
    skipped: Sequence[Skipped],
    keep_crowd: bool,
) -> Manifest:
    shards = [one.shard for one in made]
    digests = "".join(shard.source_sha256 for shard in shards)
    origin = Origin(
        images=source.paths.images,
        annotations=source.paths.annotations,
        dataset=source.paths.dataset,
        exif=source.files.exif,
        category_offset=source.paths.category_offset,
        annotations_sha256=source.annotations_sha256,
        source_sha256=hashlib.sha256(digests.encode()).hexdigest(),
        tool_version=_tool_version(),
    )
    names = {image.image for image in skipped}
    kept = [
        entry
        for task in tasks
        for entry in task.entries
        if entry.file_name not in names
    ]
    contents = _contents(kept, source.check.is_thing)._replace(
        num_bytes=sum(shard.num_bytes for shard in shards),
        skipped=tuple(skipped),
    )
    return Manifest(
        split="",
        categories=source.check.categories,
        num_images=sum(shard.num_images for shard in shards),
        shards=shards,
        annotations=source.paths.annotations,
        masks=source.paths.masks,
        crowd_kept=keep_crowd,
        origin=origin,
        contents=contents,
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


def _tool_version() -> str:
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
