"""What a conversion finds of an earlier run, and whether it may go on with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cmt.data.convert.shards import (
    MadeShard,
    ShardTask,
    has_finished,
    holds,
    read_record,
)
from cmt.data.records.manifest import Manifest, manifest_path
from cmt.errors import InputError
from cmt.io import storage
from cmt.io.storage import Location, join

# File of the hidden folder that says of which run its shards are.
_RUN = "run"


class Run(NamedTuple):
    """What a run was told, as far as its shards depend on it.

    Attributes:
      num_images: of the json and the limit, those left out for their faults, too.
      num_shards: in how many files.
      keep_crowd: crowd keeps its class.
      exif: how EXIF orientations are taken.
      category_offset: added to the category ids of the json.
      annotations_sha256: of the json.
      overwrite: it was told to replace the split that is there.
    """

    num_images: int
    num_shards: int
    keep_crowd: bool
    exif: str
    category_offset: int
    annotations_sha256: str
    overwrite: bool = False

    @classmethod
    def of(cls, manifest: Manifest) -> Run:
        """The run that wrote a manifest."""
        return cls(
            num_images=manifest.num_images + len(manifest.contents.skipped),
            num_shards=len(manifest.shards),
            keep_crowd=manifest.crowd_kept,
            exif=manifest.origin.exif,
            category_offset=manifest.origin.category_offset,
            annotations_sha256=manifest.origin.annotations_sha256,
        )

    def changes(self, now: Run) -> list[str]:
        """What another run was told otherwise, in words; the json does not count."""
        pairs = [
            ("images", self.num_images, now.num_images),
            ("shards", self.num_shards, now.num_shards),
            ("--keep-crowd", self.keep_crowd, now.keep_crowd),
            ("--exif", self.exif, now.exif),
            ("--category-offset", self.category_offset, now.category_offset),
        ]
        return [
            f"{name}: then {then}, now {present}"
            for name, then, present in pairs
            if then != present
        ]


class Finished(NamedTuple):
    """The shards of an earlier run that are whole and still current.

    Attributes:
      made: by name.
      outdated: files of the hidden folder in place of which a shard that has its
        final place already is current.
    """

    made: dict[str, MadeShard]
    outdated: list[str]


def finished_shards(
    tasks: Sequence[ShardTask], work: Location, output: Location, split: str
) -> Finished:
    """Looks for the shards in the hidden folder and in their final place.

    Args:
      tasks: the shards of this run.
      work: the hidden folder.
      output: where the split goes.
      split: first part of the shards' names.
    """
    recorded: dict[str, list[MadeShard]] = {}
    for task in tasks:
        made = read_record(join(work, task.name))
        recorded[task.name] = [made] if made else []
    path = manifest_path(output, split)
    if storage.is_file(path):
        manifest = Manifest.read(path)
        by_image = {image.image: image for image in manifest.contents.skipped}
        names = {task.name: task for task in tasks}
        for shard in manifest.shards:
            if shard.name in names:
                entries = names[shard.name].entries
                out = [by_image.get(entry.file_name) for entry in entries]
                made = MadeShard(shard, [image for image in out if image])
                recorded[shard.name].append(made)
    finished, outdated = {}, []
    for task in tasks:
        for made in recorded[task.name]:
            if made.shard.source != task.source:
                continue
            if holds(work, made.shard):
                finished[task.name] = made
            elif holds(output, made.shard):
                finished[task.name] = made
                outdated.append(join(work, task.name))
    return Finished(finished, outdated)


def begin(work: Location, run: Run) -> Run:
    """Notes in the hidden folder which run its shards are of.

    Args:
      work: the folder.
      run: this one.

    Returns:
      The run, with what the one it goes on with was told about overwriting.

    Raises:
      InputError: the folder has finished shards of a run with other options, which
        would be lost.
    """
    path = join(work, _RUN)
    if storage.is_file(path):
        before = Run(**storage.read_json(path))
        changes = before.changes(run)
        if changes and has_finished(work):
            raise InputError(
                f"{work}: holds finished shards of a run with other options "
                f"({'; '.join(changes)}); give those to go on with it, --overwrite to "
                "begin anew, or another --output"
            )
        run = run._replace(overwrite=run.overwrite or before.overwrite)
    storage.write_json(path, run._asdict())
    return run


def refuse_other_split(
    run: Run, finished: Mapping[str, MadeShard], output: Location, split: str
) -> None:
    """Makes sure that going on replaces no complete split that is of another run.

    Shards of which only files have changed, or that are damaged, are made again.

    Args:
      run: this one.
      finished: the shards that stay, by name.
      output: where the split is.
      split: its name.

    Raises:
      InputError: shards would be lost that were made with other options, or of
        another json.
    """
    path = manifest_path(output, split)
    if run.overwrite or not storage.is_file(path):
        return
    manifest = Manifest.read(path)
    stay = {one.shard.sha256 for one in finished.values()}
    if all(shard.sha256 in stay for shard in manifest.shards):
        return
    before = Run.of(manifest)
    changes = before.changes(run)
    if before.annotations_sha256 != run.annotations_sha256:
        changes.append("another json")
    if changes:
        raise InputError(
            f"{path}: a complete split of another run ({'; '.join(changes)}); "
            "--resume keeps it as it is: give --overwrite to replace it, or another "
            "--split or --output"
        )
