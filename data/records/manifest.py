"""What `cmt data convert` writes beside the shards of a split."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import Counts
from cmt.errors import InputError
from cmt.io import storage
from cmt.io.files import atomic_write
from cmt.io.storage import Location, as_location, is_remote, join

_FORMAT = 1
MANIFEST_ENDING = ".manifest.json"


class Shard(NamedTuple):
    """A TFRecord file, by its name without folder.

    Attributes:
      source: digest of what it was made from (entries, options, sizes and times of
        the files), so that a later run can tell whether it is still current.
      source_sha256: of the image and mask files it was made from, in order.
      counts: of the segments that its records have.
      notes: a `Tally` of what contradicted the PNGs.
    """

    name: str
    num_images: int
    sha256: str
    source: str = ""
    num_bytes: int = 0
    source_sha256: str = ""
    counts: Counts = Counts()
    notes: dict[str, list[Any]] = {}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Shard:
        """Reads what a manifest or a receipt has of a shard."""
        return cls(**entry)._replace(counts=Counts(*entry.get("counts", ())))


class Skipped(NamedTuple):
    """An image that was left out, by its name or place in the json, and its fault.

    `file` has the fault; "" in older manifests, whose message begins with it.
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
    """What is in the shards, see `Counts`, and the images that were left out.

    `notes` is a `Tally` of what the json contradicted or lacked.
    """

    segments: int = 0
    things: int = 0
    stuff: int = 0
    crowd: int = 0
    max_masks: int = 0
    num_bytes: int = 0
    skipped: tuple[Skipped, ...] = ()
    notes: dict[str, list[Any]] = {}


class Origin(NamedTuple):
    """What the split was made from, and how, so that it can be made again.

    `annotations` is the json as it was given; `category_offset` was added to its ids;
    `source_sha256` is of the image and mask files, in order.
    """

    images: Location = ""
    annotations: Location = ""
    dataset: str = ""
    exif: str = "auto"
    category_offset: int = 0
    annotations_sha256: str = ""
    source_sha256: str = ""
    tool_version: str = ""
    things: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of a converted split.

    Attributes:
      split: the first part of the shards' names.
      categories: the classes; contiguous class = index + 1.
      annotations, masks: the COCO panoptic json with these categories, and its PNGs.
      crowd_kept: crowd is its class with instance 0 instead of void.
      folder: where the manifest and the shards are.
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
        seen = self._with_paths(_relative)
        skipped = [image._asdict() for image in seen.contents.skipped]
        content = {
            "format": _FORMAT,
            "split": self.split,
            "num_images": self.num_images,
            "crowd_kept": self.crowd_kept,
            "annotations": seen.annotations,
            "masks": seen.masks,
            "origin": seen.origin._asdict(),
            "contents": {**seen.contents._asdict(), "skipped": skipped},
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
            # Manifests of the first version have neither.
            contents = Contents(**content.get("contents", {}))
            skipped = tuple(Skipped(**image) for image in contents.skipped)
            origin = Origin(**content.get("origin", {}))
            manifest = cls(
                split=str(content["split"]),
                categories=[Category.from_json(one) for one in content["categories"]],
                num_images=int(content["num_images"]),
                shards=[Shard.from_json(entry) for entry in content["shards"]],
                annotations=content["annotations"],
                masks=content["masks"],
                crowd_kept=bool(content["crowd_kept"]),
                folder=as_location(storage.split(path)[0]),
                origin=origin._replace(things=tuple(origin.things)),
                contents=contents._replace(skipped=skipped),
            )
            return manifest._with_paths(_resolved)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            missing = " is missing" if isinstance(error, KeyError) else ""
            raise InputError(
                f"{path}: not a manifest of `cmt data convert`: {error}{missing}; "
                "convert the split again"
            ) from error

    def _with_paths(self, change: Callable[[Location, Location], Location]) -> Manifest:
        """All paths but `folder` changed by a function that takes them and `folder`."""
        origin, folder = self.origin, self.folder
        skipped = []
        for image in self.contents.skipped:
            file = image.file
            # It may be a link, or not be there: it stays as named.
            if not (is_remote(file) or file == ""):
                above, name = storage.split(file)
                file = join(change(above, folder), name).removeprefix("./")
            skipped.append(image._replace(file=file))
        return dataclasses.replace(
            self,
            annotations=change(self.annotations, folder),
            masks=change(self.masks, folder),
            origin=origin._replace(
                images=change(origin.images, folder),
                annotations=change(origin.annotations, folder),
            ),
            contents=self.contents._replace(skipped=tuple(skipped)),
        )


def manifest_path(folder: Location, split: str) -> Location:
    """Where the manifest of a split is."""
    return as_location(join(folder, f"{split}{MANIFEST_ENDING}"))


def _relative(path: Location, folder: Location) -> str:
    """A local path as seen from `folder`, with ".." where needed."""
    if is_remote(path) or path == "":
        return str(path)
    whole = Path(path).resolve()
    if is_remote(folder):
        return whole.as_posix()
    return Path(os.path.relpath(whole, Path(folder).resolve())).as_posix()


def _resolved(path: str, folder: Location) -> Location:
    if is_remote(path) or path == "":
        return path
    if is_remote(folder):
        return path if path.startswith("/") else join(folder, path)
    return (Path(folder).resolve() / path).resolve()
