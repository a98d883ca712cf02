"""Checks of the "categories" of a COCO panoptic json."""

from __future__ import annotations

from typing import Any

from cmt.data.checks.entries import is_of, shown
from cmt.data.checks.problems import Problem, is_printable
from cmt.data.panoptic.annotations import (
    CATEGORY_DIVISOR,
    MAX_CATEGORY_ID,
    MAX_LABEL_PART,
)
from cmt.data.panoptic.categories import Category

LABEL_RANGE = "label range"


class CategoriesCheck:
    """Goes once through a list of categories.

    Attributes:
      problems: all faults found.
      notes: what conversion takes care of.
      categories: those without a fault, in order.
      is_thing: of every category that has an id; None where it does not say.
    """

    def __init__(self, path: str, entries: list):
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self.categories: list[Category] = []
        self.is_thing: dict[int, bool | None] = {}
        self._path = path
        if not entries:
            self._add('"categories" must not be empty; got 0', "list the classes")
        # One fault and not one each: such a list is that of an instance json.
        self._lacks_isthing = len(entries) > 1 and not any(
            isinstance(entry, dict) and "isthing" in entry for entry in entries
        )
        if self._lacks_isthing:
            self._add(
                f'every category must have "isthing"; none of {len(entries)} has',
                'give the "categories" of the panoptic json, not of the instance json; '
                "or add 1 to countable things, 0 to stuff",
            )
        for number, entry in enumerate(entries):
            faults = len(self.problems)
            if self._identified(entry, number):
                known = entry.get("isthing") in (0, 1)
                self.is_thing[entry["id"]] = bool(entry["isthing"]) if known else None
                self._check(entry)
            if len(self.problems) == faults and not self._lacks_isthing:
                self.categories.append(Category.from_json(entry))
        if len(self.is_thing) > MAX_LABEL_PART:
            self._add(
                f"at most {MAX_LABEL_PART} categories fit in a label; got "
                f"{len(self.is_thing)}",
                "leave out those that no segment has, or merge some",
                LABEL_RANGE,
            )
        self._note_gaps()
        self._note_names()

    def _add(self, message: str, fix: str, kind: str = "categories") -> None:
        self.problems.append(Problem(kind, self._path, None, message, fix))

    def _identified(self, entry: Any, number: int) -> bool:
        where = f"categories[{number}]"
        if not isinstance(entry, dict):
            arrived = type(entry).__name__
            self._add(
                f"{where} must be an object; got {arrived}",
                "write it as COCO does",
                "json structure",
            )
            return False
        if not is_of(entry.get("id"), int):
            arrived = shown(entry["id"]) if "id" in entry else "nothing"
            self._add(
                f'{where}: "id" must be an integer; got {arrived}',
                "correct it" if "id" in entry else "add it",
                "json structure",
            )
            return False
        if entry["id"] in self.is_thing:
            self._add(
                f"category id {entry['id']} occurs twice",
                "give one another id, with its segments; if both say the same, leave "
                "one out",
                "duplicate",
            )
            return False
        return True

    def _check(self, entry: dict[str, Any]) -> None:
        where = f"category {entry['id']}:"
        if not 1 <= entry["id"] <= MAX_CATEGORY_ID:
            self._add(
                f"{where} id must be from 1 to {MAX_CATEGORY_ID}, because the colours "
                f"of predicted PNGs hold category_id * {CATEGORY_DIVISOR} + instance; "
                f"got {entry['id']}",
                "raise all ids with --category-offset 1"
                if entry["id"] == 0
                else "renumber the category",
            )
        if entry.get("isthing") not in (0, 1) and not self._lacks_isthing:
            arrived = shown(entry["isthing"]) if "isthing" in entry else "nothing"
            self._add(
                f'{where} "isthing" must be 0 or 1; got {arrived}',
                "add 1 for countable things, 0 for stuff",
            )
        name = entry.get("name")
        if name is not None and not (isinstance(name, str) and is_printable(name)):
            self._add(
                f'{where} "name" must be text in one line; got {shown(name)}',
                "correct it, or leave it out for one made of the id",
            )
        if "color" in entry and not _is_color(entry["color"]):
            self._add(
                f'{where} "color" must be three integers from 0 to 255; got '
                f"{shown(entry['color'])}",
                "correct or remove it",
            )

    def _note_gaps(self) -> None:
        ids = list(self.is_thing)
        if ids == list(range(1, len(ids) + 1)):
            return
        self.notes.append(
            Problem(
                "category ids with gaps",
                self._path,
                None,
                f"{len(ids)} categories have ids from {min(ids, default=0)} to "
                f"{max(ids, default=0)}, not 1 to {len(ids)} in order",
                f"conversion numbers them 1 to {len(ids)} and keeps the map in the "
                "manifest",
            )
        )

    def _note_names(self) -> None:
        ids: dict[str, list[int]] = {}
        for category in self.categories:
            ids.setdefault(category.name, []).append(category.id)
        for name, numbers in ids.items():
            if len(numbers) > 1:
                self.notes.append(
                    Problem(
                        "duplicate category name",
                        self._path,
                        None,
                        f"categories {', '.join(map(str, numbers))} are all called "
                        f"{name!r}",
                        "conversion keeps them apart by id; rename them if they are "
                        "different, give their segments one id if they are the same",
                    )
                )


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(is_of(part, int) and 0 <= part <= 255 for part in value)
    )
