"""Writing the shards of a split, and keeping those that an earlier run has finished.

Shards are made in a hidden folder beside their final place and moved when the last is
done, so that a complete split stays until another is there. Each that is whole has a
receipt beside it there: whatever ends a run, `--resume` finds what it has finished.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cmt.data.convert.encode import Encoded, left_out
from cmt.data.panoptic.json import Counts, PanopticImage
from cmt.data.panoptic.kinds import Tally
from cmt.data.records.manifest import Manifest, Shard, Skipped, manifest_path
from cmt.data.records.tfrecord import INDEX_SUFFIX
from cmt.errors import CmtError, InputError
from cmt.io import storage
from cmt.io.files import atomic_write, locked, write_json
from cmt.io.storage import Location, join

KEPT = "finished shards are kept for --resume"
_RECEIPT_SUFFIX = ".json"
# Files of the hidden folder. The process that is in it holds the lock; until all shards
# are made, the manifest tells the options of their run; the last is there if this run
# may replace a complete split of another.
LOCK = ".lock"
_MANIFEST = "manifest"
_OVERWRITE = "overwrite"


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """How a data set is converted.

    Attributes:
      shards: number of files; 0 for as many as 200 MB each needs.
      limit: only the first images; 0 for all.
      keep_crowd: crowd is its class with instance 0 instead of void.
      max_bad: images with faults that are left out before it is refused.
      resume: keep the finished shards of an earlier run that have not changed.
      overwrite: replace the split if it exists.
    """

    shards: int = 0
    limit: int = 0
    keep_crowd: bool = False
    max_bad: int = 0
    resume: bool = False
    overwrite: bool = False


class ShardTask(NamedTuple):
    """One shard to make: its images, and a digest of all it is to be made from."""

    name: str
    entries: list[PanopticImage]
    source: str


class MadeShard(NamedTuple):
    """A shard that is there, as the manifest lists it, and its images left out."""

    shard: Shard
    skipped: list[Skipped]


class Budget:
    """The images that are left out (`skipped`), and how many may be."""

    def __init__(self, max_bad: int):
        self.skipped: list[Skipped] = []
        self._max_bad = max_bad

    def add(self, images: Iterable[Skipped], summary: str = "") -> None:
        """Leaves images out; an error begins with the summary, if there is one.

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


def write_shard(
    path: Location, task: ShardTask, encoded: Iterable[Encoded], budget: Budget
) -> MadeShard:
    """Writes a shard to `path` and, when it is whole, its receipt beside it.

    `encoded` is what became of its images, in order; `budget` takes those with faults.

    Raises:
      InputError: too many images have faults; nothing is left at `path`.
    """
    digest, source, num_bytes = hashlib.sha256(), hashlib.sha256(), 0
    skipped, counts, notes = [], Counts(), Tally()
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
            counts = counts.plus(result.counts)
            notes.join(result.notes)
    shard = Shard(
        name=task.name,
        num_images=len(task.entries) - len(skipped),
        sha256=digest.hexdigest(),
        source=task.source,
        num_bytes=num_bytes,
        source_sha256=source.hexdigest(),
        counts=counts,
        notes=notes,
    )
    made = MadeShard(shard, skipped)
    _write_receipt(path, made)
    return made


def _write_receipt(path: Location, made: MadeShard) -> None:
    skipped = [image._replace(file=str(image.file))._asdict() for image in made.skipped]
    content = {"shard": made.shard._asdict(), "skipped": skipped}
    write_json(f"{path}{_RECEIPT_SUFFIX}", content)


def read_receipt(path: Location) -> MadeShard | None:
    """What `write_shard` noted of a shard; None if it has not finished it."""
    try:
        content = storage.read_json(f"{path}{_RECEIPT_SUFFIX}")
        skipped = [Skipped(**image) for image in content["skipped"]]
        return MadeShard(Shard.from_json(content["shard"]), skipped)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def finished_shards(output: Location, split: str) -> set[tuple]:
    """Receipts, with size and time, that a conversion which was cut off has left."""
    folder = _work_folder(output, split)
    paths = [join(folder, name) for name in storage.list_files(folder)]
    paths = [path for path in paths if path.endswith(f".tfrecord{_RECEIPT_SUFFIX}")]
    return set(zip(paths, storage.stamps(paths), strict=True))


def _work_folder(output: Location, split: str) -> str:
    return join(output, f".{split}.partial")


@contextlib.contextmanager
def work_folder(output: Location, split: str, options: ConvertOptions) -> Iterator[str]:
    """The hidden folder shards are made in; stays after a fault if one is finished.

    Raises:
      InputError: there are some and neither is wanted, or another process is in it.
    """
    work = _work_folder(output, split)
    remote = storage.is_remote(output)
    above = [] if remote else [Path(output), *Path(output).parents]
    missing = [folder for folder in above if not folder.exists()]
    storage.make_folder(work)
    busy = (
        f"{work}: another process is writing this split; wait for it, or give another "
        "--output"
    )
    with contextlib.nullcontext() if remote else locked(Path(work, LOCK), busy):
        if finished_shards(output, split) and not (options.resume or options.overwrite):
            raise InputError(
                f"{work}: holds finished shards of a conversion that was cut off; give "
                "--resume to go on with it, --overwrite to begin anew, or another "
                "--output"
            )
        for name in storage.list_files(work):
            # Those that end so are what a killed process was writing.
            outdated = not options.resume or name.endswith(".partial")
            if outdated and name != LOCK:
                storage.remove(join(work, name))
        try:
            yield work
        except BaseException as error:  # an interrupt, too
            if not finished_shards(output, split):
                storage.remove_folder(work)
                with contextlib.suppress(OSError):  # where others have put files
                    for folder in missing:
                        folder.rmdir()
            elif isinstance(error, CmtError):
                raise type(error)(f"{error}; {KEPT}") from error
            raise


def kept_shards(
    planned: Manifest,
    tasks: Sequence[ShardTask],
    work: Location,
    options: ConvertOptions,
) -> dict[str, MadeShard]:
    """The shards of earlier runs that are whole and still current, by name.

    They are in the hidden folder `work`, which also gets a note of this run, or in
    their final place. `planned` is what the manifest of this run will say.

    Raises:
      InputError: finished shards, or a complete split, of a run with other options
        would be lost, or a split of another json.
    """
    _note_run(planned, work, options.overwrite)
    if not options.resume:
        return {}
    path = manifest_path(planned.folder, planned.split)
    before = Manifest.read(path) if storage.is_file(path) else None
    kept, outdated = {}, []
    for task in tasks:
        for made in (read_receipt(join(work, task.name)), _listed(before, task)):
            if made is None or made.shard.source != task.source:
                continue
            if _holds(work, made.shard):
                kept[task.name] = made
            elif _holds(planned.folder, made.shard):
                kept[task.name] = made
                outdated.append(join(work, task.name))
    stay = {one.shard.sha256 for one in kept.values()}
    lost = before and any(shard.sha256 not in stay for shard in before.shards)
    # The file says that this run, or one that it goes on with, may replace the split.
    if lost and not storage.is_file(join(work, _OVERWRITE)):
        # Shards of which only files have changed, or that are damaged, are made again.
        changes = _changes(before, planned)
        if before.origin.annotations_sha256 != planned.origin.annotations_sha256:
            changes.append("another json")
        if changes:
            raise InputError(
                f"{path}: a complete split of another run ({'; '.join(changes)}); "
                "--resume keeps it as it is: give --overwrite to replace it, or "
                "another --split or --output"
            )
    for file in outdated:
        # Or it would be moved over the one that is current.
        storage.remove(file)
    return kept


def _note_run(planned: Manifest, work: Location, overwrite: bool) -> None:
    """Notes in the hidden folder which run its shards are of."""
    path = join(work, _MANIFEST)
    if storage.is_file(path):
        changes = _changes(Manifest.read(path), planned)
        if changes and finished_shards(planned.folder, planned.split):
            raise InputError(
                f"{work}: holds finished shards of a run with other options "
                f"({'; '.join(changes)}); give those to go on with it, --overwrite to "
                "begin anew, or another --output"
            )
    planned.write(path)
    if overwrite:
        write_json(join(work, _OVERWRITE), True)


def _changes(before: Manifest, now: Manifest) -> list[str]:
    """The options that a run has otherwise than one before; the json does not count."""
    options = {
        "images": [run.num_images + len(run.contents.skipped) for run in (before, now)],
        "shards": [len(run.shards) for run in (before, now)],
        "--keep-crowd": [run.crowd_kept for run in (before, now)],
        "--exif": [run.origin.exif for run in (before, now)],
        "--category-offset": [run.origin.category_offset for run in (before, now)],
        "--things": [",".join(run.origin.things) for run in (before, now)],
    }
    return [
        f"{option}: then {then}, now {present}"
        for option, (then, present) in options.items()
        if then != present
    ]


def _listed(manifest: Manifest | None, task: ShardTask) -> MadeShard | None:
    """The shard of this name that a manifest lists."""
    for shard in manifest.shards if manifest else ():
        if shard.name == task.name:
            names = {entry.file_name for entry in task.entries}
            skipped = manifest.contents.skipped
            return MadeShard(shard, [one for one in skipped if one.image in names])
    return None


def _holds(folder: Location, shard: Shard) -> bool:
    """Whether a shard is in a folder, with the bytes it was written with."""
    path = join(folder, shard.name)
    return storage.is_file(path) and storage.sha256(path) == shard.sha256


def shifted_json(split: str) -> str:
    """Name of the json that stands beside the shards if category ids were raised."""
    return f"{split}.panoptic.json"


def shard_files(output: Location, split: str, ending: str = "") -> list[str]:
    """The shards of a split in `output`, or the files with an ending beside them."""
    pattern = re.escape(split) + r"-\d+-of-\d+\.tfrecord" + re.escape(ending)
    names = sorted(storage.list_files(output))
    return [join(output, name) for name in names if re.fullmatch(pattern, name)]


def publish(work: Location, made: Sequence[MadeShard], manifest: Manifest) -> None:
    """Moves the shards to their place; the manifest comes last.

    It is written first, so that a full disk leaves the split that was there. If the
    moves are cut off, there is no manifest, and `--resume` goes on from the hidden
    folder `work`. `made` are all shards, also those that have their place already.
    """
    output, split = manifest.folder, manifest.split
    written = join(work, _MANIFEST)
    manifest.write(written)
    there = storage.list_files(work)
    stay = [one for one in made if one.shard.name not in there]
    for one in stay:
        # Until now the manifest that goes was all that told of it.
        _write_receipt(join(work, one.shard.name), one)
    storage.remove(manifest_path(output, split))
    if shifted_json(split) not in there:
        storage.remove(join(output, shifted_json(split)))
    # First, so that no index of other records is ever beside a shard.
    same = {join(output, one.shard.name) for one in stay}
    for ending in ("", INDEX_SUFFIX):
        for file in shard_files(output, split, ending):
            if file.removesuffix(INDEX_SUFFIX) not in same:
                storage.remove(file)
    for name in (*(one.shard.name for one in made), shifted_json(split)):
        if name in there:
            storage.move(join(work, name), join(output, name))
    storage.move(written, manifest_path(output, split))
    storage.remove_folder(work)
