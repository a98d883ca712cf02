"""What `cmt data convert` writes beside the shards of a split."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from cmt.data.panoptic.categories import Category
from cmt.errors import InputError
from cmt.io import storage
from cmt.io.files import atomic_write
from cmt.io.storage import Location, as_location, is_remote, join

_FORMAT = 1


class Shard(NamedTuple):
    """A TFRecord file.

    Attributes:
      name: file name, without folder.
      num_images: records in it.
      sha256: of the whole file, hexadecimal.
      source: digest of what it was made from (entries, options, sizes and times of
        the files), so that a later run can tell whether it is still current.
      num_bytes: of the file.
      source_sha256: of the image and mask files it was made from, in order.
    """

    name: str
    num_images: int
    sha256: str
    source: str = ""
    num_bytes: int = 0
    source_sha256: str = ""


class Skipped(NamedTuple):
    """An image that was left out for its faults.

    Attributes:
      image: its name in the json, or its place there.
      kind: of its first fault.
      message: the fault and what to do about it.
      file: that has it; "" in older manifests, whose message begins with it.
    """

    image: str
    kind: str
    message: str
    file: Location = ""

    @property
    def line(self) -> str:
        """File and fault in one line."""
        return f"{self.file}: {self.message}" if self.file else self.message


class Contents(NamedTuple):
    """What is in the shards, counted.

    Attributes:
      segments: all of them.
      things: instances of things that are not crowd.
      stuff: segments of stuff.
      crowd: segments that are crowd.
      max_masks: masks of the image that has the most.
      num_bytes: of all shards.
      skipped: images left out for their faults.
    """

    segments: int = 0
    things: int = 0
    stuff: int = 0
    crowd: int = 0
    max_masks: int = 0
    num_bytes: int = 0
    skipped: tuple[Skipped, ...] = ()


class Origin(NamedTuple):
    """What the split was made from, and how, so that it can be made again.

    Attributes:
      images: folder of the images.
      annotations: the json as it was given.
      dataset: name of a registered data set, "" for none.
      exif: how EXIF orientations were taken.
      category_offset: what was added to the category ids of the json.
      annotations_sha256: of the json.
      source_sha256: of the image and mask files, in order.
      tool_version: of this package.
    """

    images: Location = ""
    annotations: Location = ""
    dataset: str = ""
    exif: str = "auto"
    category_offset: int = 0
    annotations_sha256: str = ""
    source_sha256: str = ""
    tool_version: str = ""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of a converted split.

    Attributes:
      split: the first part of the shards' names.
      categories: the classes; contiguous class = index + 1.
      num_images: images in all shards.
      shards: the TFRecord files, in order.
      annotations: the COCO panoptic json with these categories.
      masks: the folder of its PNG files.
      crowd_kept: crowd is its class with instance 0 instead of void.
      folder: where the manifest and the shards are.
      origin: what the split was made from.
      contents: counts, and the images left out.
    """

    split: str
    categories: list[Category]
    num_images: int
    shards: list[Shard]
    annotations: Location
    masks: Location
    crowd_kept: bool = False
    folder: Location = Path()
    origin: Origin = Origin()
    contents: Contents = Contents()

    @property
    def is_thing(self) -> list[bool]:
        """Whether class 1..C is a thing, in order."""
        return [category.is_thing for category in self.categories]

    def write(self, path: Location) -> None:
        """Writes the json atomically, with source paths as seen from `folder`.

        Args:
          path: of the file, which may be moved to `folder` later.
        """
        root = self.folder
        origin = self.origin._replace(
            images=_relative(self.origin.images, root),
            annotations=_relative(self.origin.annotations, root),
        )
        skipped = [
            image._replace(file=_relative_file(image.file, root))._asdict()
            for image in self.contents.skipped
        ]
        content = {
            "format": _FORMAT,
            "split": self.split,
            "num_images": self.num_images,
            "crowd_kept": self.crowd_kept,
            "annotations": _relative(self.annotations, root),
            "masks": _relative(self.masks, root),
            "origin": origin._asdict(),
            "contents": {**self.contents._asdict(), "skipped": skipped},
            "shards": [shard._asdict() for shard in self.shards],
            "categories": [
                {**category.to_json(), "class": index + 1}
                for index, category in enumerate(self.categories)
            ],
        }
        with atomic_write(path) as file:
            file.write(json.dumps(content, indent=1).encode("utf-8") + b"\n")

    @classmethod
    def read(cls, path: Location) -> Manifest:
        """Reads a manifest.

        Raises:
          InputError: it is missing or damaged, or of another format.
        """
        if not storage.is_file(path):
            raise InputError(
                f"{path}: no such manifest; `cmt data convert` writes it beside the "
                "shards"
            )
        try:
            content = storage.read_json(path)
            if content["format"] != _FORMAT:
                raise ValueError(f"format is {content['format']}, not {_FORMAT}")
            return cls._from_json(content, as_location(storage.split(path)[0]))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            missing = " is missing" if isinstance(error, KeyError) else ""
            raise InputError(
                f"{path}: not a manifest of `cmt data convert`: {error}{missing}; "
                "convert the split again"
            ) from error

    @classmethod
    def _from_json(cls, content: dict[str, Any], folder: Location) -> Manifest:
        # Manifests of the first version have neither.
        origin = Origin(**content.get("origin", {}))
        contents = Contents(**content.get("contents", {}))
        skipped = [Skipped(**image) for image in contents.skipped]
        skipped = [s._replace(file=_resolved_file(folder, s.file)) for s in skipped]
        return cls(
            split=str(content["split"]),
            categories=[Category.from_json(entry) for entry in content["categories"]],
            num_images=int(content["num_images"]),
            shards=[Shard(**entry) for entry in content["shards"]],
            annotations=_resolved(folder, content["annotations"]),
            masks=_resolved(folder, content["masks"]),
            crowd_kept=bool(content["crowd_kept"]),
            folder=folder,
            origin=origin._replace(
                images=_resolved(folder, origin.images),
                annotations=_resolved(folder, origin.annotations),
            ),
            contents=contents._replace(skipped=tuple(skipped)),
        )


def manifest_path(folder: Location, split: str) -> Location:
    """Where the manifest of a split is."""
    return as_location(join(folder, f"{split}.manifest.json"))


def _relative(path: Location, folder: Location) -> str:
    """A local path as seen from `folder`, with ".." where needed."""
    if is_remote(path) or path == "":
        return str(path)
    whole = Path(path).resolve()
    if is_remote(folder):
        return whole.as_posix()
    return Path(os.path.relpath(whole, Path(folder).resolve())).as_posix()


def _relative_file(path: Location, folder: Location) -> str:
    """`_relative` of a file that may be a link or not be there: it stays as named."""
    if is_remote(path) or path == "":
        return str(path)
    above, name = storage.split(path)
    return join(_relative(above, folder), name).removeprefix("./")


def _resolved(folder: Location, path: str) -> Location:
    if is_remote(path) or path == "":
        return path
    if is_remote(folder):
        return path if path.startswith("/") else join(folder, path)
    return (Path(folder).resolve() / path).resolve()


def _resolved_file(folder: Location, path: str) -> Location:
    if is_remote(path) or path == "":
        return path
    above, name = storage.split(path)
    return join(_resolved(folder, above), name)
