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
    from cmt.io.terminal import NUMBER, TEXT, print_table

    files = found.files
    counts = (
        ("in the json", found.images, found.annotations),
        ("files there", files.image_files, files.mask_files),
        ("missing", files.missing_images, files.missing_masks),
        ("not in the json", files.unused_images, files.unused_masks),
    )
    print_table(
        {"": TEXT, "images": NUMBER, "masks": NUMBER},
        [(name, str(images), str(masks)) for name, images, masks in counts],
    )
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
    rows = [(kind, str(times)) for kind, times in found.kinds().items()]
    if found.problems:
        rows += [None, ("all problems", str(len(found.problems)))]
    notes = found.note_kinds().items()
    rows += [None, *((f"note: {kind}", str(times)) for kind, times in notes)]
    print_table({"kind": TEXT, "times": NUMBER}, rows)


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
