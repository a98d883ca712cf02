"""The hidden folder that shards are made in, and going on with what a run left there.

Shards are made beside their final place and moved when the last is done, so that a
complete split stays until another is there. The folder stays where a run is cut off
after it has finished a shard.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cmt.data.convert.shards import (
    RECEIPT_SUFFIX,
    ConvertOptions,
    MadeShard,
    ShardTask,
    read_receipt,
    write_receipt,
)
from cmt.data.records.manifest import Manifest, Shard, manifest_path
from cmt.data.records.tfrecord import INDEX_SUFFIX
from cmt.errors import CmtError, InputError
from cmt.io import storage
from cmt.io.files import locked, write_json
from cmt.io.storage import Location, join

KEPT = "finished shards are kept for --resume"
# Files of the hidden folder. The process that is in it holds the lock; until all shards
# are made, the manifest tells the options of their run; the last is there if this run
# may replace a complete split of another.
LOCK = ".lock"
_MANIFEST = "manifest"
_OVERWRITE = "overwrite"


def has_finished(output: Location, split: str) -> bool:
    """Whether a conversion that was cut off has left shards that are whole.

    Args:
      output: folder of the split.
      split: its name.
    """
    ending = f".tfrecord{RECEIPT_SUFFIX}"
    files = storage.list_files(_work_folder(output, split))
    return any(name.endswith(ending) for name in files)


def _work_folder(output: Location, split: str) -> str:
    return join(output, f".{split}.partial")


@contextlib.contextmanager
def work_folder(output: Location, split: str, options: ConvertOptions) -> Iterator[str]:
    """The hidden folder shards are made in; stays after a fault if one is finished.

    Args:
      output: where it is.
      split: first part of the shards' names.
      options: whether finished shards of an earlier run are kept or removed.

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
        wanted = options.resume or options.overwrite
        if has_finished(output, split) and not wanted:
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
            if not has_finished(output, split):
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

    They are in the hidden folder or in their final place. Also notes in the hidden
    folder which run its shards are of, for the next.

    Args:
      planned: manifest of this run, as far as it is known before the shards are made.
      tasks: its shards.
      work: the hidden folder.
      options: whether any are kept, and a complete split may be replaced.

    Raises:
      InputError: finished shards, or a complete split, of a run with other options
        would be lost, or a split of another json.
    """
    _note_run(planned, work, options.overwrite)
    if not options.resume:
        return {}
    path = manifest_path(planned.folder, planned.split)
    manifest = Manifest.read(path) if storage.is_file(path) else None
    kept, outdated = {}, []
    for task in tasks:
        for made in (read_receipt(join(work, task.name)), _listed(manifest, task)):
            if made is None or made.shard.source != task.source:
                continue
            if _holds(work, made.shard):
                kept[task.name] = made
            elif _holds(planned.folder, made.shard):
                kept[task.name] = made
                outdated.append(join(work, task.name))
    # It was noted by this run, or by one that it goes on with.
    if manifest is not None and not storage.is_file(join(work, _OVERWRITE)):
        _refuse_other_split(manifest, planned, kept, path)
    for file in outdated:
        # Or it would be moved over the one that is current.
        storage.remove(file)
    return kept


def _note_run(planned: Manifest, work: Location, overwrite: bool) -> None:
    """Notes in the hidden folder which run its shards are of."""
    path = join(work, _MANIFEST)
    if storage.is_file(path):
        changes = _changes(Manifest.read(path), planned)
        if changes and has_finished(planned.folder, planned.split):
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

    def options(manifest: Manifest) -> dict[str, object]:
        return {
            "images": manifest.num_images + len(manifest.contents.skipped),
            "shards": len(manifest.shards),
            "--keep-crowd": manifest.crowd_kept,
            "--exif": manifest.origin.exif,
            "--category-offset": manifest.origin.category_offset,
        }

    then, present = options(before), options(now)
    return [
        f"{option}: then {then[option]}, now {present[option]}"
        for option in then
        if then[option] != present[option]
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


def _refuse_other_split(
    before: Manifest,
    planned: Manifest,
    kept: Mapping[str, MadeShard],
    path: Location,
) -> None:
    """Stops where a complete split of another run would be replaced.

    Shards of which only files have changed, or that are damaged, are made again.
    """
    stay = {one.shard.sha256 for one in kept.values()}
    if all(shard.sha256 in stay for shard in before.shards):
        return
    changes = _changes(before, planned)
    if before.origin.annotations_sha256 != planned.origin.annotations_sha256:
        changes.append("another json")
    if changes:
        raise InputError(
            f"{path}: a complete split of another run ({'; '.join(changes)}); "
            "--resume keeps it as it is: give --overwrite to replace it, or another "
            "--split or --output"
        )


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
    moves are cut off, there is no manifest, and `--resume` goes on from `work`.

    Args:
      work: the hidden folder.
      made: the shards, in order; those that have their place already, too.
      manifest: of the split.
    """
    output, split = manifest.folder, manifest.split
    written = join(work, _MANIFEST)
    manifest.write(written)
    there = storage.list_files(work)
    names = [one.shard.name for one in made]
    for one in made:
        # Until now the manifest that goes was all that told of it.
        if one.shard.name not in there:
            write_receipt(join(work, one.shard.name), one)
    storage.remove(manifest_path(output, split))
    if not manifest.origin.category_offset:
        storage.remove(join(output, shifted_json(split)))
    # First, so that no index of other records is ever beside a shard.
    same = {join(output, name) for name in names if name not in there}
    for ending in ("", INDEX_SUFFIX):
        for file in shard_files(output, split, ending):
            if file.removesuffix(INDEX_SUFFIX) not in same:
                storage.remove(file)
    for name in (*names, shifted_json(split)):
        if name in there:
            storage.move(join(work, name), join(output, name))
    storage.move(written, manifest_path(output, split))
    storage.remove_folder(work)
