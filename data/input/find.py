"""Which shards a pattern names, and their manifest."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Sequence

import numpy as np

from cmt.data.input.pipeline import Split
from cmt.data.input.prepare import Options
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import load_json
from cmt.data.records.index import index_records
from cmt.data.records.manifest import Manifest, Shard, manifest_path
from cmt.data.records.tfrecord import INDEX_SUFFIX
from cmt.errors import InputError
from cmt.io import storage


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
      pattern: of the shard files, such as "coco/val-*.tfrecord", as `find_files` of
        `cmt.io.storage` takes it.
      manifest: path of the manifest; "" for the one beside the shards.
      annotations: COCO panoptic json the split is scored against, "" for the one that
        the manifest names. Its categories, in order, are the classes of shards that
        have no manifest.
      masks: folder of the PNG files of `annotations`, "" for the manifest's.
      options: what becomes of the records; see `Split`.

    Raises:
      InputError: no file fits the pattern, the manifest is missing or damaged, or
        it and the files do not belong together.
    """
    files = [
        file for file in storage.find_files(pattern) if not file.endswith(INDEX_SUFFIX)
    ]
    if not files:
        raise InputError(
            f"{pattern}: no file fits this pattern; give the shards that `cmt data "
            'convert` wrote, such as "DIR/train-*.tfrecord"'
        )
    folders = sorted({storage.split(file)[0] for file in files})
    if len(folders) > 1:
        raise InputError(
            f"{pattern}: must fit the shards of one split, which are in one folder; "
            f"got {folders[0]} and {folders[1]}"
        )
    return _open_split(files, manifest, annotations, masks, options)


def find_splits(
    patterns: Sequence[str], annotations: str = "", options: Options | None = None
) -> list[Split]:
    """Finds all splits that have shards in some folders, by folder and name.

    Args:
      patterns: folders, patterns or shard files, local or with a scheme.
      annotations: COCO panoptic json with the classes of shards without manifest.
      options: what becomes of the records; see `Split`.

    Raises:
      InputError: nothing fits, or shards and manifest do not belong together.
    """
    groups: dict[tuple[str, str], set[str]] = {}
    for pattern in patterns:
        wanted = pattern
        if storage.is_folder(pattern):
            wanted = storage.join(pattern, "*.tfrecord")
        # Of what a pattern such as val* fits, the manifest and indices are no shards.
        found = [f for f in storage.find_files(wanted) if f.endswith(".tfrecord")]
        if not found:
            raise InputError(
                f"{pattern}: no TFRecord file; give shards that `cmt data convert` "
                "wrote, their folder, or a pattern"
            )
        for file in found:
            group = storage.split(file)[0], _split_name(file)
            groups.setdefault(group, set()).add(file)
    return [
        _open_split(sorted(files), "", annotations, "", options)
        for _, files in sorted(groups.items())
    ]


def _open_split(
    files: list[str], path: str, annotations: str, masks: str, options: Options | None
) -> Split:
    folder = storage.split(files[0])[0]
    if not path:
        names = {_split_name(file) for file in files}
        if len(names) != 1 or "" in names:
            raise InputError(
                f"{folder}: must be the shards of one split, named "
                f"{{split}}-00000-of-00001.tfrecord; got {storage.split(files[0])[1]} "
                "and others"
            )
        name = names.pop()
        path = str(manifest_path(folder, name))
        if annotations and not storage.is_file(path):
            manifest = _made_manifest(files, name, annotations, masks)
            return Split(files, manifest, options)
    manifest = Manifest.read(path)
    manifest = dataclasses.replace(
        manifest,
        shards=_shards_of(files, manifest, path),
        annotations=storage.as_location(annotations or manifest.annotations),
        masks=storage.as_location(masks or manifest.masks),
    )
    num_images = sum(shard.num_images for shard in manifest.shards)
    if num_images == 0:
        raise InputError(f"{path}: the shards have no images")
    return Split(files, dataclasses.replace(manifest, num_images=num_images), options)


def _split_name(file: str) -> str:
    """The first part of a shard's name; "" if it is not named as shards are."""
    name = storage.split(file)[1]
    return name.rpartition("-of-")[0].rpartition("-")[0]


def _made_manifest(
    files: Sequence[str], split: str, annotations: str, masks: str
) -> Manifest:
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
    return Manifest(
        split=split,
        categories=categories,
        num_images=found.num_records,
        shards=[Shard(*pair, sha256="") for pair in zip(names, counts, strict=True)],
        annotations=storage.as_location(annotations),
        masks=storage.as_location(masks or posixpath.splitext(annotations)[0]),
        folder=storage.as_location(storage.split(files[0])[0]),
    )


def _shards_of(files: Sequence[str], manifest: Manifest, path: str) -> list[Shard]:
    """The manifest's entries of some files; checks that no other is missing."""
    shards = {shard.name: shard for shard in manifest.shards}
    found = {storage.split(file)[1]: file for file in files}
    for name, file in found.items():
        if name not in shards:
            raise InputError(
                f"{file}: not a shard of {path}; narrow the pattern or convert again"
            )
    others = [name for name in shards if name not in found]
    folder = storage.split(files[0])[0]
    there = storage.list_files(folder) if others else {}
    for name in others:
        if name not in there:
            raise InputError(
                f"{storage.join(folder, name)}: missing, though {path} lists it; copy "
                "it or convert again with --resume"
            )
    return [shards[name] for name in found]
