"""Checks of the "categories" of a COCO panoptic json."""

from __future__ import annotations

from typing import Any

from cmt.data.checks.entries import EntryCheck, is_of
from cmt.data.checks.problems import Kind, is_printable
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import MAX_CATEGORY_ID, shown
from cmt.labels import CATEGORY_DIVISOR, MAX_LABEL_PART


def check_categories(
    check: EntryCheck, entries: list
) -> tuple[list[Category], dict[int, bool | None]]:
    """Goes once through a list of categories.

    Args:
      check: takes the problems.
      entries: the list.

    Returns:
      The categories without a fault, in order, and for every category that has an id
      whether it is a thing; None where it does not say.
    """
    categories: list[Category] = []
    is_thing: dict[int, bool | None] = {}
    if not entries:
        message = '"categories" must not be empty; got 0'
        check.add(Kind.CATEGORIES, message, "list the classes")
    # One fault and not one each: such a list is that of an instance json.
    lacks_isthing = len(entries) > 1 and not any(
        isinstance(entry, dict) and "isthing" in entry for entry in entries
    )
    if lacks_isthing:
        check.add(
            Kind.CATEGORIES,
            f'every category must have "isthing"; none of {len(entries)} has',
            'give the "categories" of the panoptic json, not of the instance json; '
            "or add 1 to countable things, 0 to stuff",
        )
    ids: set[int] = set()
    for number, entry in enumerate(entries):
        faults = len(check.problems)
        fix = "give one another id, with its segments"
        if check.fields(entry, f"categories[{number}]", None, id=int) and not (
            check.is_repeated(ids, entry["id"], "category id", fix)
        ):
            known = entry.get("isthing") in (0, 1)
            is_thing[entry["id"]] = bool(entry["isthing"]) if known else None
            _check_entry(check, entry, known or lacks_isthing)
        if len(check.problems) == faults and not lacks_isthing:
            categories.append(Category.from_json(entry))
    if len(is_thing) > MAX_LABEL_PART:
        check.add(
            Kind.LABEL_RANGE,
            f"at most {MAX_LABEL_PART} categories fit in a label; got {len(is_thing)}",
            "leave out those that no segment has, or merge some",
        )
    _note_gaps(check, list(is_thing))
    _note_names(check, categories)
    return categories, is_thing


def _check_entry(check: EntryCheck, entry: dict[str, Any], isthing_fits: bool) -> None:
    number, name = entry["id"], entry.get("name")
    if not 1 <= number <= MAX_CATEGORY_ID:
        fix = "raise all ids with --category-offset 1"
        check.add(
            Kind.CATEGORIES,
            f"category {number}: id must be from 1 to {MAX_CATEGORY_ID}, because "
            f"the colours of predicted PNGs hold category_id * {CATEGORY_DIVISOR} + "
            f"instance; got {number}",
            "renumber the category" if number else fix,
        )
    name_fits = name is None or (isinstance(name, str) and is_printable(name))
    color_fits = "color" not in entry or _is_color(entry["color"])
    other_name = "correct it, or leave it out for one made of the id"
    for key, fits, rule, fix in (
        ("isthing", isthing_fits, "0 or 1", "add 1 for countable things, 0 for stuff"),
        ("name", name_fits, "text in one line", other_name),
        ("color", color_fits, "three integers from 0 to 255", "correct or remove it"),
    ):
        if not fits:
            arrived = shown(entry[key]) if key in entry else "nothing"
            message = f'category {number}: "{key}" must be {rule}; got {arrived}'
            check.add(Kind.CATEGORIES, message, fix)


def _note_gaps(check: EntryCheck, ids: list[int]) -> None:
    count = len(ids)
    if ids == list(range(1, count + 1)):
        return
    message = (
        f"{count} categories have ids from {min(ids)} to {max(ids)}, not 1 to {count} "
        "in order"
    )
    fix = f"conversion numbers them 1 to {count} and keeps the map in the manifest"
    check.add(Kind.CATEGORY_GAPS, message, fix, note=True)


def _note_names(check: EntryCheck, categories: list[Category]) -> None:
    ids: dict[str, list[int]] = {}
    for category in categories:
        ids.setdefault(category.name, []).append(category.id)
    for name, numbers in ids.items():
        if len(numbers) > 1:
            check.add(
                Kind.CATEGORY_NAME_TWICE,
                f"categories {', '.join(map(str, numbers))} are all called {name!r}",
                "conversion keeps them apart by id; rename them if they are different, "
                "give their segments one id if they are the same",
                note=True,
            )


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(is_of(part, int) and 0 <= part <= 255 for part in value)
    )
