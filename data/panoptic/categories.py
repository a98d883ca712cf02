"""The classes of a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from cmt.errors import InputError
from cmt.io.files import atomic_write
from cmt.io.storage import read_json


class Category(NamedTuple):
    """One class of a data set. Its contiguous class is its index in the list + 1.

    `id` and `name` are the data set's own; `is_thing` is countable (person), not an
    area (grass); `color` is RGB, 0 to 255, for pictures.
    """

    id: int
    name: str
    is_thing: bool
    color: tuple[int, int, int]

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Category:
        """Reads an entry of "categories"; a missing name or colour is made of the id.

        A name that is a number becomes its text.

        Raises:
          KeyError: `id` or `isthing` is missing.
          TypeError, ValueError: a value is of the wrong type.
        """
        number = int(entry["id"])
        made = (number * 67 % 256, number * 131 % 256, number * 211 % 256)
        color = entry["color"] if is_color(entry.get("color")) else made
        name = entry.get("name")
        name = f"category {number}" if name in (None, "") else str(name)
        return cls(number, name, bool(int(entry["isthing"])), tuple(color))

    def to_json(self) -> dict[str, Any]:
        """The entry as COCO panoptic json writes it."""
        return {
            "id": self.id,
            "name": self.name,
            "supercategory": "thing" if self.is_thing else "stuff",
            "isthing": int(self.is_thing),
            "color": list(self.color),
        }


def is_color(value: Any) -> bool:
    """Whether a value of a json is RGB, three integers from 0 to 255."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    )


def first_difference(
    one: Sequence[Category], other: Sequence[Category]
) -> tuple[int, str, str] | None:
    """The first place where two lists of classes differ in id, name or kind.

    Returns:
      The place, counted from 1, and the class that each list has there, as texts;
      None where the lists agree. Colours may differ.
    """
    for number, pair in enumerate(zip_longest(one, other), start=1):
        first, second = (c and (c.id, c.name, c.is_thing) for c in pair)
        if first != second:
            return number, *map(_text, pair)
    return None


def _text(category: Category | None) -> str:
    if category is None:
        return "none"
    kind = "thing" if category.is_thing else "stuff"
    return f"'{category.name}' (id {category.id}, {kind})"


def write_categories(path: Path | str, categories: Sequence[Category]) -> None:
    """Writes the classes as a json list, in the order of the contiguous classes."""
    with atomic_write(path, "w") as file:
        json.dump([category.to_json() for category in categories], file, indent=1)
        file.write("\n")


def read_categories(path: Path | str) -> list[Category]:
    """Reads what `write_categories` wrote.

    Raises:
      InputError: the file is missing or is something else.
    """
    path = Path(path)
    try:
        return [Category.from_json(item) for item in read_json(path)]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; it holds the classes") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a list of categories: {error}") from error
