"""Checks of the "categories" of a COCO panoptic json."""

from __future__ import annotations

from typing import Any

from cmt.data.checks.entries import EntryCheck, is_of
from cmt.data.checks.problems import Kind, is_printable
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import MAX_CATEGORY_ID, shown
from cmt.labels import CATEGORY_DIVISOR, MAX_LABEL_PART


class CategoriesCheck(EntryCheck):
    """Goes once through a list of categories.

    Attributes:
      categories: those without a fault, in order.
      is_thing: of every category that has an id; None where it does not say.
    """

    def __init__(self, path: str, entries: list):
        """Checks the categories.

        Args:
          path: of the json, for the problems.
          entries: the categories.
        """
        super().__init__(path)
        self.categories: list[Category] = []
        self.is_thing: dict[int, bool | None] = {}
        if not entries:
            message = '"categories" must not be empty; got 0'
            self.add(Kind.CATEGORIES, message, "list the classes")
        # One fault and not one each: such a list is that of an instance json.
        self._lacks_isthing = len(entries) > 1 and not any(
            isinstance(entry, dict) and "isthing" in entry for entry in entries
        )
        if self._lacks_isthing:
            self.add(
                Kind.CATEGORIES,
                f'every category must have "isthing"; none of {len(entries)} has',
                'give the "categories" of the panoptic json, not of the instance json; '
                "or add 1 to countable things, 0 to stuff",
            )
        ids: set[int] = set()
        fix = "give one another id, with its segments"
        for number, entry in enumerate(entries):
            faults = len(self.problems)
            if self.fields(entry, f"categories[{number}]", None, id=int) and not (
                self.is_repeated(ids, entry["id"], "category id", fix)
            ):
                known = entry.get("isthing") in (0, 1)
                self.is_thing[entry["id"]] = bool(entry["isthing"]) if known else None
                self._check(entry)
            if len(self.problems) == faults and not self._lacks_isthing:
                self.categories.append(Category.from_json(entry))
        if len(self.is_thing) > MAX_LABEL_PART:
            self.add(
                Kind.LABEL_RANGE,
                f"at most {MAX_LABEL_PART} categories fit in a label; got "
                f"{len(self.is_thing)}",
                "leave out those that no segment has, or merge some",
            )
        self._note_gaps()
        self._note_names()

    def _check(self, entry: dict[str, Any]) -> None:
        number = entry["id"]
        if not 1 <= number <= MAX_CATEGORY_ID:
            self.add(
                Kind.CATEGORIES,
                f"category {number}: id must be from 1 to {MAX_CATEGORY_ID}, because "
                "the colours of predicted PNGs hold category_id * "
                f"{CATEGORY_DIVISOR} + instance; got {number}",
                "renumber the category"
                if number
                else "raise all ids with --category-offset 1",
            )
        name = entry.get("name")
        rules = (
            (
                "isthing",
                self._lacks_isthing or entry.get("isthing") in (0, 1),
                "0 or 1",
                "add 1 for countable things, 0 for stuff",
            ),
            (
                "name",
                name is None or (isinstance(name, str) and is_printable(name)),
                "text in one line",
                "correct it, or leave it out for one made of the id",
            ),
            (
                "color",
                "color" not in entry or _is_color(entry["color"]),
                "three integers from 0 to 255",
                "correct or remove it",
            ),
        )
        for key, fits, rule, fix in rules:
            if not fits:
                arrived = shown(entry[key]) if key in entry else "nothing"
                message = f'category {number}: "{key}" must be {rule}; got {arrived}'
                self.add(Kind.CATEGORIES, message, fix)

    def _note_gaps(self) -> None:
        ids = list(self.is_thing)
        if ids != list(range(1, len(ids) + 1)):
            self.add(
                Kind.CATEGORY_GAPS,
                f"{len(ids)} categories have ids from {min(ids)} to {max(ids)}, not 1 "
                f"to {len(ids)} in order",
                f"conversion numbers them 1 to {len(ids)} and keeps the map in the "
                "manifest",
                note=True,
            )

    def _note_names(self) -> None:
        ids: dict[str, list[int]] = {}
        for category in self.categories:
            ids.setdefault(category.name, []).append(category.id)
        for name, numbers in ids.items():
            if len(numbers) > 1:
                self.add(
                    Kind.CATEGORY_NAME_TWICE,
                    f"categories {', '.join(map(str, numbers))} are all called "
                    f"{name!r}",
                    "conversion keeps them apart by id; rename them if they are "
                    "different, give their segments one id if they are the same",
                    note=True,
                )


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(is_of(part, int) and 0 <= part <= 255 for part in value)
    )
