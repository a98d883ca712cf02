"""What `cmt data validate` prints for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmt.data.checks.problems import Problem
    from cmt.data.checks.report import Validation


def print_validation(found: Validation, examples: int) -> None:
    """Prints counts first, then each kind of problem with examples, then a summary.

    Args:
      found: the result.
      examples: lines of each kind; 0 for all.
    """
    from rich.console import Console
    from rich.table import Column, Table

    files = found.files
    counts = Table("", *(Column(name, justify="right") for name in ("images", "masks")))
    counts.add_row("in the json", str(found.images), str(found.annotations))
    counts.add_row("files there", str(files.image_files), str(files.mask_files))
    counts.add_row("missing", str(files.missing_images), str(files.missing_masks))
    counts.add_row("not in the json", str(files.unused_images), str(files.unused_masks))
    Console().print(counts)
    _print_masks(found)
    _print_examples(found.problems, found.kinds(), examples, "")
    kinds = dict.fromkeys(note.kind for note in found.notes)
    _print_examples(found.notes, kinds, examples, "note: ")
    for line in found.mended.lines:
        print(f"note: {line}")
    if not found.problems:
        print("no problems")
    if not (found.problems or found.note_kinds()):
        return
    table = Table("kind", Column("times", justify="right"))
    for kind, times in found.kinds().items():
        table.add_row(kind, str(times))
    if found.problems:
        table.add_section()
        table.add_row("all problems", str(len(found.problems)))
    table.add_section()
    for kind, times in found.note_kinds().items():
        table.add_row(f"note: {kind}", str(times))
    Console().print(table)


def _print_masks(found: Validation) -> None:
    from cmt.data.checks.report import FIRST_MASKS, MAX_CENTERS

    masks = found.masks
    steps = ", ".join(
        f"{0 if last == FIRST_MASKS else last // 2 + 1} to {last}: {images}"
        for last, images in masks.distribution.items()
    )
    if not steps:
        return
    hold = (
        "so many centers hold all"
        if masks.largest <= MAX_CENTERS
        else f"a model has at most {MAX_CENTERS} centers"
    )
    print(
        f"masks an image: at most {masks.largest} ({hold}); images with more than "
        f"{masks.num_centers}: {masks.above}; images by masks: {steps}"
    )


def _print_examples(
    problems: list[Problem], kinds: Iterable[str], examples: int, prefix: str
) -> None:
    by_kind: dict[str, list[Problem]] = {kind: [] for kind in kinds}
    for problem in problems:
        by_kind[problem.kind].append(problem)
    for kind, some in by_kind.items():
        shown = some[:examples] if examples else some
        for problem in shown:
            print(f"{prefix}{kind}: {problem.line}")
        if len(shown) < len(some):
            more = len(some) - len(shown)
            print(f"{prefix}{kind}: {more} more; --examples 0 or --json shows all")
