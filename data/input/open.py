"""Shards and their manifest -> splits, each opened once.

In data/, only this file reads configs.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import Message

from cmt.data.input.augment import Augmentation
from cmt.data.input.colour import ColorJitter, Policy
from cmt.data.input.copy_paste import CopyPaste
from cmt.data.input.pipeline import Split
from cmt.data.input.prepare import Changes, Options
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import load_json
from cmt.data.records.index import index_records
from cmt.data.records.manifest import Manifest, Shard, manifest_path
from cmt.data.records.tfrecord import INDEX_SUFFIX
from cmt.errors import InputError
from cmt.io import storage
from cmt.protos import data_pb2

Fields = TypeVar("Fields", bound=tuple)


@dataclasses.dataclass(frozen=True)
class Data:
    """The splits of a config, each opened when it is first asked for, and only then.

    Raises:
      InputError: by an attribute: the split is not set, or its shards or their
        manifest are missing or damaged.
    """

    config: data_pb2.DataConfig

    @functools.cached_property
    def train(self) -> Split:
        """The training split."""
        return self._open("train", read_options(self.config))

    @functools.cached_property
    def validation(self) -> Split:
        """The validation split: no random changes, and a damaged record is an error."""
        # A tf.data service is for what is slow: training.
        others = {"skip_damaged_records": False, "service": "", "changes": Changes()}
        return self._open("validation", read_options(self.config)._replace(**others))

    def _open(self, name: str, options: Options) -> Split:
        config = getattr(self.config, name)
        if not config.tfrecords:
            raise InputError(
                f"data.{name}.tfrecords is not set; add it to the config, or "
                f"--set 'data.{name}.tfrecords=\"DIR/{name}-*.tfrecord\"'"
            )
        return find_split(
            config.tfrecords, config.manifest, config.annotations, config.masks, options
        )


def read_options(config: data_pb2.DataConfig) -> Options:
    """What becomes of the records of a training split."""
    augmentation = config.augmentation
    changes = Changes(
        _read(Augmentation, augmentation),
        _read(ColorJitter, augmentation.color_jitter),
        _read(Policy, augmentation.policy),
        _read(CopyPaste, augmentation.copy_paste),
    )
    crop_size = config.crop_height_pixels, config.crop_width_pixels
    return _read(Options, config, crop_size=crop_size, changes=changes)


def _read(kind: type[Fields], message: Message, **others: Any) -> Fields:
    """A tuple of others, and of the fields that a message has under the same names."""
    names = [name for name in kind._fields if name not in others]
    return kind(**others, **{name: getattr(message, name) for name in names})


def find_split(
    pattern: str,
    manifest: str = "",
    annotations: str = "",
    masks: str = "",
    options: Options | None = None,
) -> Split:
    """Finds the shards of one split and reads their manifest.

    Shards of DeepLab2 have no manifest: it is then made from `annotations`.

    Args:
      pattern: of the shard files, such as "coco/val-*.tfrecord".
      manifest: path of the manifest; "" for the one beside the shards.
      annotations, masks: COCO panoptic json that the split is scored against, and the
        folder of its PNGs; "" for those that the manifest names. The categories of the
        json are the classes of shards without manifest.
      options: what becomes of the records; see `Split`.

    Raises:
      InputError: no file fits the pattern, the manifest is missing or damaged, or
        it and the files do not belong together.
    """
    found = storage.find_files(pattern)
    files = [file for file in found if not file.endswith(INDEX_SUFFIX)]
    if not files:
        raise InputError(
            f"{pattern}: no file fits this pattern; {_base_of(pattern)}give the "
            'shards that `cmt data convert` wrote, such as "DIR/train-*.tfrecord"'
        )
    folders = sorted({storage.split(file)[0] for file in files})
    if len(folders) > 1:
        raise InputError(
            f"{pattern}: must fit the shards of one split, which are in one folder; "
            f"got {folders[0]} and {folders[1]}"
        )
    return _open_split(files, manifest, annotations, masks, options)


def _base_of(pattern: str) -> str:
    """What a relative pattern is relative to; "" for any other."""
    if storage.is_remote(pattern) or Path(pattern).is_absolute():
        return ""
    return (
        f"it is relative to the folder the command runs in, {Path.cwd()}, and not to "
        "the config's: run it where the data are, or "
    )


def find_splits(
    patterns: Sequence[str], annotations: str = "", options: Options | None = None
) -> list[Split]:
    """Finds all splits that have shards in some folders, by folder and name.

    Args:
      patterns: folders, patterns or shard files, local or with a scheme.
      annotations, options: as for `find_split`.

    Raises:
      InputError: nothing fits, or shards and manifest do not belong together.
    """
    files = set()
    for pattern in patterns:
        is_folder = storage.is_folder(pattern)
        wanted = storage.join(pattern, "*.tfrecord") if is_folder else pattern
        # Of what a pattern such as val* fits, the manifest and indices are no shards.
        found = [f for f in storage.find_files(wanted) if f.endswith(".tfrecord")]
        if not found:
            raise InputError(
                f"{pattern}: no TFRecord file; give shards that `cmt data convert` "
                "wrote, their folder, or a pattern"
            )
        files.update(found)
    groups = itertools.groupby(sorted(sorted(files), key=_group), _group)
    return [
        _open_split(list(group), "", annotations, "", options) for _, group in groups
    ]


def _group(file: str) -> tuple[str, str]:
    """The folder and split of a shard; "" for a file not named as shards are."""
    folder, name = storage.split(file)
    return folder, name.rpartition("-of-")[0].rpartition("-")[0]


def _open_split(
    files: list[str], path: str, annotations: str, masks: str, options: Options | None
) -> Split:
    """The split of some files of one folder."""
    if not path:
        folder, name = _group(files[0])
        if not name or any(_group(file)[1] != name for file in files):
            raise InputError(
                f"{folder}: must be the shards of one split, named "
                f"{{split}}-00000-of-00001.tfrecord; got {storage.split(files[0])[1]} "
                "and others"
            )
        path = str(manifest_path(folder, name))
        if annotations and not storage.is_file(path):
            manifest = _made_manifest(files, annotations, masks)
            return Split(files, manifest, options)
    manifest = Manifest.read(path)
    shards = _shards_of(files, manifest, path)
    num_images = sum(shard.num_images for shard in shards)
    if num_images == 0:
        raise InputError(f"{path}: the shards have no images")
    manifest = dataclasses.replace(
        manifest,
        shards=shards,
        num_images=num_images,
        annotations=storage.as_location(annotations or manifest.annotations),
        masks=storage.as_location(masks or manifest.masks),
    )
    return Split(files, manifest, options)


def _made_manifest(files: Sequence[str], annotations: str, masks: str) -> Manifest:
    """The manifest of shards that have none."""
    entries = load_json(annotations).get("categories")
    try:
        categories = [Category.from_json(entry) for entry in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f'{annotations}: "categories" must list the classes of the shards, each '
            f"with id, name and isthing ({error!r})"
        ) from error
    # Whether damage ends the run is decided when the records are read.
    found = index_records(files, skip_damaged=True)
    counts = np.bincount(found.file_numbers, minlength=len(files)).tolist()
    names = [storage.split(file)[1] for file in files]
    folder, split = _group(files[0])
    return Manifest(
        split=split,
        categories=categories,
        num_images=found.num_records,
        shards=[Shard(*pair, sha256="") for pair in zip(names, counts, strict=True)],
        annotations=storage.as_location(annotations),
        masks=storage.as_location(masks or posixpath.splitext(annotations)[0]),
        folder=storage.as_location(folder),
    )


def _shards_of(files: Sequence[str], manifest: Manifest, path: str) -> list[Shard]:
    """The manifest's entries of some files; checks that no other is missing."""
    shards = {shard.name: shard for shard in manifest.shards}
    used = []
    for file in files:
        folder, name = storage.split(file)
        if name not in shards:
            raise InputError(
                f"{file}: not a shard of {path}; narrow the pattern or convert again"
            )
        used.append(shards.pop(name))
    there = storage.list_files(folder) if shards else {}
    for name in shards:
        if name not in there:
            raise InputError(
                f"{storage.join(folder, name)}: missing, though {path} lists it; copy "
                "it or convert again with --resume"
            )
    return used
