"""Checks of the entries of a json: what they share, and those of its categories."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from cmt.data.checks.problems import Cause, Found, Kind
from cmt.data.panoptic.categories import Category, is_color
from cmt.data.panoptic.json import MAX_CATEGORY_ID, ImageId, shown
from cmt.io.storage import is_below
from cmt.io.terminal import is_printable
from cmt.labels import CATEGORY_DIVISOR, MAX_LABEL_PART

# Of a file name, in bytes; most file systems take no more in one part.
_LONGEST_NAME, _LONGEST_PART = 1024, 255


class EntryCheck(Found):
    """Collects the problems of a json; those that many entries may have say why."""

    def fields(self, entry: Any, where: str, image: str | None, **wanted: Any) -> bool:
        """Checks the types of what an entry holds; returns whether all are right.

        `where` is its place in the json, `image` the one that it belongs to (None for
        what belongs to all), `wanted` the type of each key, `int` or `ImageId`.
        """
        if not isinstance(entry, dict):
            self.add(
                Kind.STRUCTURE,
                f"{where} must be an object; got {type(entry).__name__}",
                "write it as COCO does",
                image,
                cause=Cause("object", where) if image else None,
            )
            return False
        fine = True
        for key, kind in wanted.items():
            value = entry.get(key)
            # Called for each number of the json, and most are right.
            if type(value) is int or is_of(value, kind):
                continue
            fine = False
            arrived, fix = "nothing", "add it"
            if key in entry:
                arrived, fix = shown(value), "correct it"
            what = "an integer" if kind is int else "an integer or a name"
            message = f'{where}: "{key}" must be {what}; got {arrived}'
            cause = Cause(key, where) if image else None
            self.add(Kind.STRUCTURE, message, fix, image, cause=cause)
        return fine

    def file_name(self, entry: dict[str, Any], where: str) -> bool:
        """Checks the "file_name" of an entry; returns whether it can be used."""
        name = entry.get("file_name")
        if isinstance(name, str) and PurePosixPath(name).name:
            kind, fault, arrived = Kind.FILE_NAME, _name_fault(name), ascii(name)
            if len(arrived) > 80:
                arrived = f"{arrived[:60]}... of {len(name)} characters"
        else:
            kind, arrived = Kind.STRUCTURE, shown(name)
            fault = ("name a file", "correct it" if name else "add it")
        if fault is None:
            return True
        rule, fix = fault
        message = f'{where}: "file_name" must {rule}; got {arrived}'
        self.add(kind, message, fix, where, cause=Cause(rule, where))
        return False

    def is_repeated(
        self, seen: set, value: Any, what: str, fix: str, image: str | None = None
    ) -> bool:
        """Checks that a value is new, and adds it to those seen.

        `what` names the value, `fix` is what to do if it is not new.
        """
        if value not in seen:
            seen.add(value)
            return False
        fix = f"{fix}; if both say the same, leave one out"
        self.add(Kind.DUPLICATE, f"{what} {value!r} occurs twice", fix, image)
        return True


def _name_fault(name: str) -> tuple[str, str] | None:
    """What a file name must and does not, and the fix."""
    parts = [len(part.encode("utf-8", "replace")) for part in name.split("/")]
    if not is_printable(name):
        return "have no control characters", "rename the file, and correct the json"
    if "\\" in name:
        return "have no \\ (a path of Windows)", "write / between its folders"
    if not is_below(name):
        rule = "lie below the folder of the images or masks"
        return rule, "make it relative to that folder"
    if sum(parts) + len(parts) > _LONGEST_NAME or max(parts) > _LONGEST_PART:
        rule = f"have at most {_LONGEST_NAME} bytes, and {_LONGEST_PART} between two /"
        return rule, "shorten it, and the name of the file"
    return None


def is_of(value: Any, kind: Any) -> bool:
    """`isinstance`, but true and false are no numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)


def id_of(entry: Any, key: str = "id") -> ImageId | None:
    """Returns the id of an entry; None if it has none that can be one."""
    number = entry.get(key) if isinstance(entry, dict) else None
    return number if type(number) is int or is_of(number, ImageId) else None


def check_categories(
    check: EntryCheck, entries: list
) -> tuple[list[Category], dict[int, bool | None]]:
    """Goes once through a list of categories; `check` takes the problems.

    Returns the categories without a fault, in order, and for every category that has an
    id whether it is a thing; None where it does not say.
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
    if len(is_thing) > 1 and not any(value is not False for value in is_thing.values()):
        message = f'"isthing" is 0 for all {len(is_thing)} categories, so no instances'
        message += " are told apart"
        fix = "if some are countable things, give --things NAME,NAME or a file of names"
        check.count(Kind.ALL_STUFF, message, fix)
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
    # Numbers become their text.
    is_text = is_of(name, str | int | float) and is_printable(str(name))
    name_fits = name is None or is_text
    color_fits = "color" not in entry or is_color(entry["color"])
    other_name = "correct it, or leave it out for one made of the id"
    for key, fits, rule, fix in (
        ("isthing", isthing_fits, "0 or 1", "add 1 for countable things, 0 for stuff"),
        ("name", name_fits, "text in one line", other_name),
        ("color", color_fits, "three integers from 0 to 255", "correct or remove it"),
    ):
        if not fits:
            arrived = shown(entry[key]) if key in entry else "nothing"
            message = f'category {number}: "{key}" must be {rule}; got {arrived}'
            add, kind = check.add, Kind.CATEGORIES
            if key == "color":
                add, kind = check.mend, Kind.COLOR
            add(kind, message, fix)


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
