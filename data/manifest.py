"""What `cmt data convert` writes beside the shards of a split."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from cmt.data.categories import Category
from cmt.data.files import atomic_write
from cmt.errors import InputError

_FORMAT = 1


class Shard(NamedTuple):
    """A TFRecord file.

    Attributes:
      name: file name, without folder.
      num_images: records in it.
      sha256: of the whole file, hexadecimal.
      source: digest of what it was made from, so that a later run can tell whether
        it is still current.
    """

    name: str
    num_images: int
    sha256: str
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of a converted split.

    Attributes:
      split: the first part of the shards' names.
      categories: the classes; contiguous class = index + 1.
      num_images: images in all shards.
      shards: the TFRecord files, in order.
      annotations: the COCO panoptic json the split was made from.
      masks: the folder of its PNG files.
      crowd_kept: crowd is its class with instance 0 instead of void.
      folder: where the manifest and the shards are.
    """

    split: str
    categories: list[Category]
    num_images: int
    shards: list[Shard]
    annotations: Path
    masks: Path
    crowd_kept: bool = False
    folder: Path = Path()

    @property
    def is_thing(self) -> list[bool]:
        """Whether class 1..C is a thing, in order."""
        return [category.is_thing for category in self.categories]

    def write(self, path: Path | str) -> None:
        """Writes the json atomically, source paths relative to its folder."""
        path = Path(path)
        folder = path.parent.resolve()
        content = {
            "format": _FORMAT,
            "split": self.split,
            "num_images": self.num_images,
            "crowd_kept": self.crowd_kept,
            "annotations": _relative(self.annotations, folder),
            "masks": _relative(self.masks, folder),
            "shards": [shard._asdict() for shard in self.shards],
            "categories": [category.to_json() for category in self.categories],
        }
        with atomic_write(path, "w") as file:
            json.dump(content, file, indent=1)
            file.write("\n")

    @classmethod
    def read(cls, path: Path | str) -> Manifest:
        """Reads a manifest.

        Raises:
          InputError: it is missing or damaged, or of another format.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(
                f"{path}: no such manifest; `cmt data convert` writes it beside the "
                "shards"
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(f"format is {content['format']}, not {_FORMAT}")
            return cls._from_json(content, path.parent)
        except KeyError as error:
            raise InputError(_damaged(path, f"{error} is missing")) from error
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(_damaged(path, error)) from error

    @classmethod
    def _from_json(cls, content: dict[str, Any], folder: Path) -> Manifest:
        root = folder.resolve()
        return cls(
            split=str(content["split"]),
            categories=[Category.from_json(entry) for entry in content["categories"]],
            num_images=int(content["num_images"]),
            shards=[Shard(**entry) for entry in content["shards"]],
            annotations=_resolved(root, content["annotations"]),
            masks=_resolved(root, content["masks"]),
            crowd_kept=bool(content["crowd_kept"]),
            folder=folder,
        )


def manifest_path(folder: Path | str, split: str) -> Path:
    """Where the manifest of a split is."""
    return Path(folder) / f"{split}.manifest.json"


def _damaged(path: Path, reason: object) -> str:
    return (
        f"{path}: not a manifest of `cmt data convert`: {reason}; convert the split "
        "again"
    )


def _relative(path: Path, folder: Path) -> str:
    """`path` as seen from `folder`, with ".." where needed (Path has it from 3.12)."""
    parts, root = path.resolve().parts, folder.parts
    common = 0
    while common < min(len(parts), len(root)) and parts[common] == root[common]:
        common += 1
    return Path(*[".."] * (len(root) - common), *parts[common:]).as_posix()


def _resolved(folder: Path, relative: str) -> Path:
    return (folder / relative).resolve()
