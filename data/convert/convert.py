"""COCO panoptic data -> TFRecord shards and a manifest."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cmt.data.checks.reconcile import reconcile
from cmt.data.checks.source import Source, open_source
from cmt.data.convert import shards
from cmt.data.convert.encode import (
    RECORD_VERSION,
    EncodingOptions,
    encode_image,
    left_out,
)
from cmt.data.convert.shards import Budget, ConvertOptions, MadeShard, ShardTask
from cmt.data.panoptic.json import Counts, PanopticImage
from cmt.data.panoptic.kinds import Tally
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

_SHARD_BYTES = 200 * 10**6
_DISTRIBUTION = "cmt-deeplab"
_CHUNK_IMAGES = 8
# Starting processes takes as long as converting so many.
_ALONE_IMAGES = 32

# Makes shards: (tasks, encoding, folder to write to, budget for images with faults)
# -> the shards, in order.
Maker = Callable[[Sequence[ShardTask], EncodingOptions, str, Budget], list[MadeShard]]


class Conversion(NamedTuple):
    """The manifest of a split, and how many of its shards this run made, not kept."""

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

    Args:
      paths: of the data set; local, or what `tf.io.gfile` reads.
      output: folder of the shards.
      maker: makes the shards: `make_shards`, or what `beam_maker` returns.

    Raises:
      InputError: the data has faults (the first is named), or the split exists.
    """
    _check_options(output, split, options)
    source = open_source(paths)
    budget = Budget(options.max_bad)
    entries = _usable(source, budget, options.limit)
    encoding = EncodingOptions(
        source.paths, source.check.categories, options.keep_crowd
    )
    with shards.work_folder(output, split, options) as work:
        entries = _with_files(source, entries, budget)
        tasks = plan_shards(
            entries, split=split, shards=options.shards, encoding=encoding
        )
        planned = Manifest(
            split=split,
            categories=source.check.categories,
            num_images=len(entries),
            shards=[Shard(task.name, len(task.entries), "") for task in tasks],
            annotations=paths.annotations,
            masks=paths.masks,
            crowd_kept=options.keep_crowd,
            folder=output,
            origin=_origin(source),
            contents=Contents(skipped=tuple(budget.skipped), notes=source.check.mended),
        )
        made = shards.kept_shards(planned, tasks, work, options)
        budget.add([image for one in made.values() for image in one.skipped])
        needed = [task for task in tasks if task.name not in made]
        made |= {one.shard.name: one for one in maker(needed, encoding, work, budget)}
        ordered = [made[task.name] for task in tasks]
        manifest = _finished(planned, ordered, entries)
        if source.shifted is not None:
            write_json(join(work, shards.shifted_json(split)), source.shifted)
            path = join(output, shards.shifted_json(split))
            manifest = dataclasses.replace(manifest, annotations=path)
        shards.publish(work, ordered, manifest)
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
    if options.resume or options.overwrite:
        return
    path = manifest_path(output, split)
    if shards.shard_files(output, split) or storage.is_file(path):
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


def plan_shards(
    entries: Sequence[PanopticImage],
    *,
    split: str,
    shards: int,
    encoding: EncodingOptions,
) -> list[ShardTask]:
    """Deals the images out, in order: as many to each shard, or as many bytes.

    `shards` is their number; 0 for shards of up to about 200 MB.

    Raises:
      InputError: more shards than images.
    """
    if shards > len(entries):
        raise InputError(
            f"--shards must be at most the number of images, {len(entries)}; got "
            f"{shards}"
        )
    images, masks = encoding.files.images, encoding.files.masks
    # Each costs a request where files are not on this machine.
    found = storage.stamps(
        [join(images, entry.image_path) for entry in entries]
        + [join(masks, entry.mask_name) for entry in entries]
    )
    stamps = list(zip(found[: len(entries)], found[len(entries) :], strict=True))
    if shards:
        count, sizes = shards, [1] * len(entries)
    else:
        sizes = [sum(stamp[0] for stamp in pair if stamp) for pair in stamps]
        count = min(len(entries), max(1, math.ceil(sum(sizes) / _SHARD_BYTES)))
    tasks = []
    for number, (start, end) in enumerate(itertools.pairwise(_bounds(sizes, count))):
        name = f"{split}-{number:05d}-of-{count:05d}.tfrecord"
        some = list(entries[start:end])
        source = _source_digest(some, stamps[start:end], encoding)
        tasks.append(ShardTask(name, some, source))
    return tasks


def _bounds(sizes: Sequence[int], count: int) -> list[int]:
    """First entry of each of `count` parts, none empty, and the end."""
    ends = list(itertools.accumulate(sizes))
    bounds = [0]
    for number in range(1, count):
        wanted = bisect.bisect(ends, ends[-1] * number / count)
        last = len(sizes) - (count - number)
        bounds.append(max(bounds[-1] + 1, min(wanted, last)))
    return [*bounds, len(sizes)]


def _source_digest(
    entries: list[PanopticImage], stamps: list[tuple], encoding: EncodingOptions
) -> str:
    """Changes when the shard would: its entries, their files, or the options."""
    # A box or a folder's new place changes no record.
    plain = [
        entry._replace(
            segments=[segment._replace(box=None) for segment in entry.segments]
        )
        for entry in entries
    ]
    options = [encoding.categories, encoding.keep_crowd, encoding.files.exif]
    options.append(encoding.files.strict)
    content = json.dumps([RECORD_VERSION, options, plain, stamps])
    return hashlib.sha256(content.encode()).hexdigest()


def make_shards(
    tasks: Sequence[ShardTask],
    encoding: EncodingOptions,
    work: str,
    budget: Budget,
    *,
    workers: int = 0,
) -> list[MadeShard]:
    """A `Maker`: makes the shards one after the other, each by all processes."""
    if not tasks:
        return []
    entries = [entry for task in tasks for entry in task.entries]
    workers = workers if len(entries) >= _ALONE_IMAGES else 1
    encode = functools.partial(encode_image, encoding)
    results = parallel_map(encode, entries, workers=workers, chunk=_CHUNK_IMAGES)
    encoded = track(results, description="convert", total=len(entries))
    made = []
    with contextlib.closing(results), contextlib.closing(encoded):
        for task in tasks:
            some = itertools.islice(encoded, len(task.entries))
            made.append(shards.write_shard(join(work, task.name), task, some, budget))
        next(encoded, None)  # so that the progress ends
    return made


def _origin(source: Source) -> Origin:
    try:
        version = importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    paths = source.paths
    return Origin(
        images=paths.images,
        annotations=paths.annotations,
        dataset=paths.dataset,
        exif=paths.exif,
        category_offset=paths.category_offset,
        annotations_sha256=source.annotations_sha256,
        tool_version=version,
        things=paths.things,
    )


def _finished(
    planned: Manifest,
    made: Sequence[MadeShard],
    entries: Sequence[PanopticImage],
) -> Manifest:
    """The manifest of shards that are made of these images."""
    skipped = list(planned.contents.skipped)
    for one in made:  # in the order of the shards, whichever were there before
        skipped += one.skipped
    if not _without(entries, skipped):
        raise InputError(
            f"no image is left to convert, all {len(skipped)} have faults; the "
            f"first: {skipped[0].line}"
        )
    listed = [one.shard for one in made]
    counts, notes = Counts(), Tally()
    notes.join(planned.contents.notes)
    for shard in listed:
        counts = counts.plus(shard.counts)
        notes.join(shard.notes)
    digests = "".join(shard.source_sha256 for shard in listed)
    digest = hashlib.sha256(digests.encode()).hexdigest()
    return dataclasses.replace(
        planned,
        num_images=sum(shard.num_images for shard in listed),
        shards=listed,
        origin=planned.origin._replace(source_sha256=digest),
        contents=Contents(
            segments=counts.things + counts.stuff + counts.crowd,
            **counts._asdict(),
            num_bytes=sum(shard.num_bytes for shard in listed),
            skipped=tuple(skipped),
            notes=notes,
        ),
    )
