"""The shards of a split: what goes into each, and writing them.

Each shard that is whole has a receipt beside it as long as others are made, so that
`--resume` finds it whatever ends a conversion; see `resume.py`.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cmt.data.checks.problems import Problem
from cmt.data.convert.encode import RECORD_VERSION, Encoded, EncodingOptions
from cmt.data.panoptic.json import PanopticImage
from cmt.data.records.manifest import Shard, Skipped
from cmt.errors import InputError
from cmt.io import storage
from cmt.io.files import atomic_write, write_json
from cmt.io.storage import Location, join

_SHARD_BYTES = 200 * 10**6
# Ending of the receipt beside a whole shard.
RECEIPT_SUFFIX = ".json"


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """How a data set is converted.

    Attributes:
      shards: number of files; 0 for as many as 200 MB each needs.
      limit: only the first images; 0 for all.
      keep_crowd: crowd is its class with instance 0 instead of void.
      exif: "auto", "apply" or "ignore", see `Paths`; None for what the data
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


class ShardTask(NamedTuple):
    """One shard to make.

    Attributes:
      name: its file name.
      entries: its images.
      source: digest of what it is to be made from.
    """

    name: str
    entries: list[PanopticImage]
    source: str


class MadeShard(NamedTuple):
    """A shard that is there.

    Attributes:
      shard: as the manifest lists it.
      skipped: its images that were left out.
    """

    shard: Shard
    skipped: list[Skipped]


class Budget:
    """The images that are left out, and how many may be.

    Attributes:
      skipped: the images, with the first fault of each.
    """

    def __init__(self, max_bad: int):
        self.skipped: list[Skipped] = []
        self._max_bad = max_bad

    def add(self, images: Iterable[Skipped], summary: str = "") -> None:
        """Leaves images out.

        Args:
          images: with the first fault of each.
          summary: what the error begins with, before the fault it names.

        Raises:
          InputError: too many are left out; it names the first of those.
        """
        self.skipped += images
        earlier = self._max_bad
        if len(self.skipped) <= earlier:
            return
        word = "image" if earlier == 1 else "images"
        count = f" ({earlier} {word} with faults before it)" if earlier else ""
        raise InputError(
            f"{summary}{self.skipped[earlier].line}{count}; `cmt data validate` lists "
            "all problems, --max-bad N leaves out up to N images"
        )


def plan_shards(
    entries: Sequence[PanopticImage],
    *,
    split: str,
    shards: int,
    encoding: EncodingOptions,
) -> list[ShardTask]:
    """Deals the images out, in order: as many to each shard, or as many bytes.

    Args:
      entries: the images.
      split: first part of the shards' names.
      shards: their number; 0 for shards of up to about 200 MB.
      encoding: how records are made.

    Raises:
      InputError: more shards than images.
    """
    if shards > len(entries):
        raise InputError(
            f"--shards must be at most the number of images, {len(entries)}; got "
            f"{shards}"
        )
    # Each costs a request where files are not on this machine.
    found = storage.stamps([p for entry in entries for p in _files(entry, encoding)])
    stamps = list(zip(found[::2], found[1::2], strict=True))
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


def _files(entry: PanopticImage, encoding: EncodingOptions) -> tuple[str, str]:
    files = encoding.files
    return join(files.images, entry.image_path), join(files.masks, entry.mask_name)


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
    content = json.dumps([RECORD_VERSION, options, plain, stamps])
    return hashlib.sha256(content.encode()).hexdigest()


def left_out(problems: Iterable[Problem]) -> list[Skipped]:
    """The images that have faults, each with the first of its own."""
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.image, problem)
    skipped = []
    for image, problem in first.items():
        message = problem.line.removeprefix(f"{problem.file}: ")
        # A path that is shown as it can be printed stays in the message.
        file = "" if message == problem.line else problem.file
        skipped.append(Skipped(image, problem.kind, message, file))
    return skipped


def write_shard(
    path: Location, task: ShardTask, encoded: Iterable[Encoded], budget: Budget
) -> MadeShard:
    """Writes a shard and, when it is whole, its receipt beside it.

    Args:
      path: where.
      task: what it is.
      encoded: what became of each of its images, in order.
      budget: takes the images that have faults.

    Raises:
      InputError: too many images have faults; nothing is left at `path`.
    """
    digest, source, num_bytes = hashlib.sha256(), hashlib.sha256(), 0
    skipped = []
    with atomic_write(path) as file:
        for _, result in zip(task.entries, encoded, strict=True):
            if result.record is None:
                skipped += left_out(result.problems)
                budget.add(skipped[-1:])
                continue
            file.write(result.record)
            digest.update(result.record)
            source.update(result.source)
            num_bytes += len(result.record)
    shard = Shard(
        name=task.name,
        num_images=len(task.entries) - len(skipped),
        sha256=digest.hexdigest(),
        source=task.source,
        num_bytes=num_bytes,
        source_sha256=source.hexdigest(),
    )
    made = MadeShard(shard, skipped)
    write_receipt(path, made)
    return made


def write_receipt(path: Location, made: MadeShard) -> None:
    """Notes beside a shard that it is whole.

    Args:
      path: of the shard.
      made: what it is.
    """
    skipped = [image._replace(file=str(image.file))._asdict() for image in made.skipped]
    content = {"shard": made.shard._asdict(), "skipped": skipped}
    write_json(f"{path}{RECEIPT_SUFFIX}", content)


def read_receipt(path: Location) -> MadeShard | None:
    """What `write_shard` noted of a shard; None if it has not finished it."""
    try:
        content = storage.read_json(f"{path}{RECEIPT_SUFFIX}")
        skipped = [Skipped(**image) for image in content["skipped"]]
        return MadeShard(Shard(**content["shard"]), skipped)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
