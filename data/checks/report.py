"""All that is wrong with a COCO panoptic data set, in one pass."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from collections.abc import Collection, Sequence
from typing import Any

from cmt.data.checks.entries import grouped
from cmt.data.checks.files import FileOptions, check_files
from cmt.data.checks.pixels import OF_UNREAD_IDS, check_boxes
from cmt.data.checks.problems import MISSING, Problem
from cmt.data.checks.reconcile import RENAME, FileCounts, Reconciliation, reconcile
from cmt.data.checks.source import Source, open_source
from cmt.data.panoptic.annotations import PanopticImage, count_masks
from cmt.data.panoptic.json import JsonFault
from cmt.data.panoptic.registry import Paths, place_images
from cmt.io.parallel import parallel_map
from cmt.io.progress import track
from cmt.io.storage import Location, join

_CHUNK_IMAGES = 8
_ALONE_IMAGES = 50
# Masks an image, in the report: 0 to 8, 9 to 16, 17 to 32, ...
FIRST_MASKS = 8
# The most that model.num_centers and data.max_masks may be.
MAX_CENTERS = 255


@dataclasses.dataclass(frozen=True)
class MaskCounts:
    """How many masks the images have, against the centers of a model.

    Attributes:
      num_centers: of the model.
      largest: masks of the image that has the most; so many centers hold all.
      distribution: images by the number of their masks: 0 to 8, 9 to 16, 17 to 32,
        and so on, each under its last number.
      above: images with more masks than centers.
    """

    num_centers: int
    largest: int
    distribution: dict[int, int]
    above: int


@dataclasses.dataclass(frozen=True)
class Validation:
    """What a check of a data set found.

    Attributes:
      images: entries of "images".
      annotations: entries of "annotations".
      annotated: images with an annotation that can be read.
      files: how many files are there, missing and unused.
      masks: how many masks the images have.
      problems: all faults. `cmt data convert` does not look at boxes; it refuses all
        others, or leaves out the images that have one.
      notes: what is no fault but good to know.
    """

    images: int
    annotations: int
    annotated: int
    files: FileCounts
    masks: MaskCounts
    problems: list[Problem]
    notes: list[Problem]

    def kinds(self) -> dict[str, int]:
        """How often each kind of fault occurs, the most frequent first."""
        return _count_kinds(self.problems)

    def note_kinds(self) -> dict[str, int]:
        """How often each kind of remark occurs, the most frequent first."""
        return _count_kinds(self.notes)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "counts": {
                "images": self.images,
                "annotations": self.annotations,
                "annotated_images": self.annotated,
                **self.files._asdict(),
            },
            "masks_per_image": dataclasses.asdict(self.masks),
            "kinds": self.kinds(),
            "note_kinds": self.note_kinds(),
            "problems": [problem.to_json() for problem in self.problems],
            "notes": [note.to_json() for note in self.notes],
        }


def validate(
    *,
    images: Location,
    annotations: Location,
    masks: Location,
    workers: int = 0,
    exif: str | None = None,
    num_centers: int = 128,
) -> Validation:
    """Checks a data set: the json by itself, then each image and mask against it.

    Folders and files may be local or what `tf.io.gfile` reads.

    Args:
      images: folder of the images.
      annotations: COCO panoptic json.
      masks: folder of the PNG files.
      workers: number of processes; 0 for one a processor.
      exif: how EXIF orientations are taken, see `FileOptions`; None for "auto".
      num_centers: of the model to be trained.

    Raises:
      InputError: the json or a folder is missing.
    """
    paths = Paths(images, annotations, masks)
    return validate_paths(paths, workers=workers, exif=exif, num_centers=num_centers)


def validate_paths(
    paths: Paths,
    *,
    workers: int = 0,
    exif: str | None = None,
    num_centers: int = 128,
) -> Validation:
    """Checks a data set; see `validate`."""
    try:
        source = open_source(paths, exif)
    except JsonFault as fault:
        return _unreadable(paths, fault, num_centers)
    check = source.check
    readable = bool(check.image_names or check.mask_names)
    files = reconcile(
        source.files,
        check.images,
        image_names=_image_paths(paths.dataset, check.image_names),
        mask_names=check.mask_names,
    )
    problems = [*grouped(check), *_missing(source, files)]
    # Where no name could be read, all files would be remarked on.
    notes = [*check.notes, *(files.unused if readable else ())]
    told = {problem.file for problem in files.missing}
    for found in _check_all(source, workers):
        problems += [
            problem
            for problem in found[0]
            if not (problem.kind == MISSING and problem.file in told)
            # Those are faults of the json.
            and not (
                problem.kind in OF_UNREAD_IDS and problem.image in check.incomplete
            )
        ]
        notes += found[1]
    masks, crowded = _count_all_masks(source, num_centers)
    return Validation(
        images=check.num_images,
        annotations=check.num_annotations,
        annotated=len(check.images),
        files=files.counts,
        masks=masks,
        problems=problems,
        notes=notes + crowded,
    )


def _image_paths(dataset: str, names: Collection[str]) -> list[str]:
    """Where images of these names are below the images folder."""
    entries = [PanopticImage(name, name, "", 1, 1, []) for name in names]
    return [entry.image_path for entry in place_images(dataset, entries)]


def _missing(source: Source, files: Reconciliation) -> list[Problem]:
    """The files that are not there; where none is, the folder is wrong: one fault."""
    entries = source.check.images
    problems = []
    for option, folder, path_of in (
        ("images", source.files.images, lambda entry: entry.image_path),
        ("masks", source.files.masks, lambda entry: entry.mask_name),
    ):
        paths = {join(folder, path_of(entry)) for entry in entries}
        found = [problem for problem in files.missing if problem.file in paths]
        if len(found) < len(entries) or len(found) < 2 or found[0].fix == RENAME:
            problems += found
            continue
        problems.append(
            Problem(
                MISSING,
                folder,
                None,
                f"none of the {len(found)} {option} that the json names is in this "
                f"folder, such as {path_of(entries[0])}",
                source.paths.advice or f"give --{option} the folder that has them",
            )
        )
    return problems


def _unreadable(paths: Paths, fault: JsonFault, num_centers: int) -> Validation:
    problem = Problem(
        "json file", str(paths.annotations), None, fault.reason, fault.fix
    )
    return Validation(
        0,
        0,
        0,
        reconcile(FileOptions(str(paths.images), str(paths.masks)), []).counts,
        MaskCounts(num_centers, 0, {}, 0),
        [problem],
        [],
    )


def _check_all(source: Source, workers: int):
    """Yields the problems and the notes of every image."""
    entries = source.check.images
    chunks = [
        entries[start : start + _CHUNK_IMAGES]
        for start in range(0, len(entries), _CHUNK_IMAGES)
    ]
    found = parallel_map(
        functools.partial(_check_images, source.files),
        chunks,
        workers=workers if len(entries) > _ALONE_IMAGES else 1,
    )
    flat = itertools.chain.from_iterable(found)
    return track(flat, description="validate", total=len(entries))


def _check_images(
    files: FileOptions, entries: Sequence[PanopticImage]
) -> list[tuple[list[Problem], list[Problem]]]:
    results = []
    for entry in entries:
        checked = check_files(files, entry)
        problems = checked.problems
        if checked.index is not None:
            path = join(files.masks, entry.mask_name)
            problems = problems + check_boxes(path, entry, checked.index, problems)
        results.append((problems, checked.notes))
    return results


def _count_all_masks(
    source: Source, num_centers: int
) -> tuple[MaskCounts, list[Problem]]:
    """The distribution, and a note on every image that has more masks than centers."""
    distribution: collections.Counter[int] = collections.Counter()
    notes = []
    largest = 0
    for entry in source.check.images:
        count = count_masks(entry, source.check.is_thing)
        largest = max(largest, count)
        bound = FIRST_MASKS
        while bound < count:
            bound *= 2
        distribution[bound] += 1
        if count > num_centers:
            more = (
                f"or set model.num_centers and data.max_masks to {count}"
                if count <= MAX_CENTERS
                else f"no model has more than {MAX_CENTERS} centers"
            )
            notes.append(
                Problem(
                    "more masks than centers",
                    str(source.paths.annotations),
                    None,
                    f"{entry.file_name} has {count} masks, more than the {num_centers} "
                    "centers of the model",
                    f"training makes the smallest void; {more}",
                    entry.file_name,
                )
            )
    counts = dict(sorted(distribution.items()))
    return MaskCounts(num_centers, largest, counts, len(notes)), notes


def _count_kinds(problems: Sequence[Problem]) -> dict[str, int]:
    return dict(collections.Counter(problem.kind for problem in problems).most_common())
