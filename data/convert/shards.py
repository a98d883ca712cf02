"""The shards of a split: what goes into each, writing them, putting them in place.

Shards are made in a hidden folder beside their final place. Each gets its name there
when it is whole, and then a record of itself; all are moved when the last is done.
So whatever ends a conversion, `resume` finds what was finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cmt.data.checks.problems import Problem
from cmt.data.convert.encode import RECORD_VERSION, Encoded, EncodingOptions
from cmt.data.panoptic.json import PanopticImage
from cmt.data.records.manifest import Manifest, Shard, Skipped, manifest_path
from cmt.data.records.tfrecord import INDEX_SUFFIX
from cmt.errors import CmtError, InputError
from cmt.io import storage
from cmt.io.storage import Location, join

_SHARD_BYTES = 200 * 10**6
# Ending of the record that a whole shard has beside it while others are made.
_RECORD = ".json"
_KEPT = "finished shards are kept for --resume"


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

    @property
    def left(self) -> int:
        """How many more images may be left out."""
        return self._max_bad - len(self.skipped)

    def check(self, summary: str = "") -> None:
        """Stops when too many images are left out; the first of those is named.

        Args:
          summary: what to say before its fault.

        Raises:
          InputError: they are too many.
        """
        if self.left >= 0:
            return
        earlier = self._max_bad
        images = "image" if earlier == 1 else "images"
        count = f" ({earlier} {images} with faults before it)" if earlier else ""
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
    bounds = _bounds(sizes, count)
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
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
        wanted = ends[-1] * number / count
        bound = bounds[-1] + 1
        last = len(sizes) - (count - number)
        while bound < last and ends[bound] <= wanted:
            bound += 1
        bounds.append(bound)
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


def left_out(image: str, problem: Problem) -> Skipped:
    """An image that is left out for a fault."""
    place, line = f"{problem.file}: ", problem.line
    if not line.startswith(place):  # A path that is told as it can be printed.
        return Skipped(image, problem.kind, line)
    return Skipped(image, problem.kind, line.removeprefix(place), problem.file)


def write_shard(
    path: Location, task: ShardTask, encoded: Iterable[Encoded], budget: Budget
) -> MadeShard:
    """Writes a shard and, when it is whole, the record of it beside it.

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
    with storage.writing(path) as file:
        for entry, result in zip(task.entries, encoded, strict=True):
            if result.record is None:
                first = result.problems[0]
                skipped.append(left_out(entry.file_name, first))
                budget.skipped.append(skipped[-1])
                budget.check()
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
    _write_record(path, made)
    return made


def _write_record(path: Location, made: MadeShard) -> None:
    record = {
        "shard": made.shard._asdict(),
        "skipped": [
            {**image._asdict(), "file": str(image.file)} for image in made.skipped
        ],
    }
    storage.write_json(f"{path}{_RECORD}", record)


def read_record(path: Location) -> MadeShard | None:
    """What `write_shard` recorded of a shard; None if it has not finished it."""
    try:
        content = storage.read_json(f"{path}{_RECORD}")
        skipped = [Skipped(**image) for image in content["skipped"]]
        return MadeShard(Shard(**content["shard"]), skipped)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def has_finished(work: Location) -> bool:
    """Whether a folder holds a shard that is whole."""
    ending = f".tfrecord{_RECORD}"
    return any(name.endswith(ending) for name in storage.list_files(work))


@contextlib.contextmanager
def work_folder(
    output: Location, split: str, *, resume: bool, overwrite: bool
) -> Iterator[str]:
    """The hidden folder shards are made in; stays after a fault if one is finished.

    Args:
      output: where it is.
      split: first part of the shards' names.
      resume: keep the shards of an earlier run that are finished.
      overwrite: remove them.

    Raises:
      InputError: there are some and neither is wanted, or another process is in it.
    """
    above = storage.missing_folders(output)
    work = join(output, f".{split}.partial")
    storage.make_folder(work)
    with storage.locked(work):
        if has_finished(work) and not (resume or overwrite):
            raise InputError(
                f"{work}: holds finished shards of a conversion that was cut off; give "
                "--resume to go on with it, --overwrite to begin anew, or another "
                "--output"
            )
        for name in storage.list_files(work):
            # Those that end so are what a killed process was writing.
            outdated = not resume or name.endswith(".partial")
            if outdated and name != storage.LOCK:
                storage.remove(join(work, name))
        try:
            yield work
        except BaseException as error:  # an interrupt, too
            if not has_finished(work):
                storage.remove_folder(work)
                storage.remove_empty(above)
                raise
            if isinstance(error, CmtError):
                error.args = (f"{error}; {_KEPT}",)
                raise
            # What `add_note` does from Python 3.11 on; the command line prints it.
            error.__notes__ = [*getattr(error, "__notes__", ()), _KEPT]
            raise


def holds(folder: Location, shard: Shard) -> bool:
    """Whether a shard is in a folder, with the bytes it was written with."""
    path = join(folder, shard.name)
    return storage.is_file(path) and storage.sha256(path) == shard.sha256


def shifted_json(split: str) -> str:
    """Name of the json that stands beside the shards if category ids were raised."""
    return f"{split}.panoptic.json"


def shard_files(output: Location, split: str, ending: str = "") -> list[str]:
    """The shards of a split that are in their final place.

    Args:
      output: their folder.
      split: first part of their names.
      ending: of the files wanted in place of the shards, such as INDEX_SUFFIX.
    """
    pattern = re.escape(split) + r"-\d+-of-\d+\.tfrecord" + re.escape(ending)
    names = sorted(storage.list_files(output))
    return [join(output, name) for name in names if re.fullmatch(pattern, name)]


def publish(work: Location, made: Sequence[MadeShard], manifest: Manifest) -> None:
    """Moves the shards to their place; the manifest comes last.

    It is written first, so that a full disk leaves the split that was there. If the
    moves are cut off, there is no manifest, and `resume` goes on from `work`.

    Args:
      work: the hidden folder.
      made: the shards, in order; those that have their place already, too.
      manifest: of the split.
    """
    path = manifest_path(manifest.folder, manifest.split)
    written = join(work, "manifest")
    manifest.write(written, manifest.folder)
    names = [one.shard.name for one in made]
    there = storage.list_files(work)
    for one in made:
        # Until now the manifest that goes was all that told of it.
        if one.shard.name not in there:
            _write_record(join(work, one.shard.name), one)
    storage.remove(path)
    if not manifest.origin.category_offset:
        storage.remove(join(manifest.folder, shifted_json(manifest.split)))
    current = {join(manifest.folder, name) for name in names}
    changed = {join(manifest.folder, name) for name in names if name in there}
    # First, so that no index of other records is ever beside a shard.
    for index in shard_files(manifest.folder, manifest.split, INDEX_SUFFIX):
        if index.removesuffix(INDEX_SUFFIX) not in current - changed:
            storage.remove(index)
    for name in (*names, shifted_json(manifest.split)):
        if name in there:
            storage.move(join(work, name), join(manifest.folder, name))
    for stale in shard_files(manifest.folder, manifest.split):
        if stale not in current:
            storage.remove(stale)
    storage.move(written, path)
    storage.remove_folder(work)
