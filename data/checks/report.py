"""All that is wrong with a COCO panoptic data set, in one pass."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from cmt.data.checks.files import FilesCheck
from cmt.data.checks.pixels import OF_UNREAD_IDS
from cmt.data.checks.problems import Found, Kind, Problem, grouped
from cmt.data.checks.reconcile import FileCounts, reconcile
from cmt.data.checks.source import Source, open_source
from cmt.data.panoptic.json import JsonFault, PanopticImage, count_segments
from cmt.data.panoptic.kinds import Tally
from cmt.data.panoptic.registry import Paths, image_path
from cmt.io.parallel import parallel_map
from cmt.io.progress import track

# What a process works on before it hands over, and what is not worth starting one.
_CHUNK_IMAGES = 8
_ALONE_IMAGES = 50
_Checked = tuple[list[Problem], list[Problem], Tally]
# Masks an image, in the report: 0 to 8, 9 to 16, 17 to 32, ...
FIRST_MASKS = 8
# The most that model.num_centers and data.max_masks may be.
MAX_CENTERS = 255


@dataclasses.dataclass(frozen=True)
class MaskCounts:
    """How many masks the images have, against the number of centers of a model.

    `distribution` counts images by the number of their masks: 0 to 8, 9 to 16, 17 to
    32, and so on, each under its last number; `above` have more masks than centers.
    """

    num_centers: int
    largest: int
    distribution: dict[int, int]
    above: int

    @classmethod
    def of(cls, counts: Sequence[int], num_centers: int) -> MaskCounts:
        """Sums up the numbers of masks of the images."""
        # The next power of 2.
        bounds = (max(FIRST_MASKS, 1 << (count - 1).bit_length()) for count in counts)
        return cls(
            num_centers=num_centers,
            largest=max(counts, default=0),
            distribution=dict(sorted(collections.Counter(bounds).items())),
            above=sum(count > num_centers for count in counts),
        )


@dataclasses.dataclass(frozen=True)
class Validation:
    """What a check of a data set found.

    Attributes:
      images, annotations: numbers of entries of these lists.
      annotated: number of images with an annotation that can be read.
      problems: all faults. `cmt data convert` does not look at boxes; it refuses all
        others, or leaves out the images that have one.
      notes: what is no fault but good to know.
      mended: what contradicts the PNG or is missing, and conversion takes from the PNG.
    """

    images: int
    annotations: int
    annotated: int
    files: FileCounts
    masks: MaskCounts
    problems: list[Problem]
    notes: list[Problem]
    mended: Tally = dataclasses.field(default_factory=Tally)

    def kinds(self) -> dict[str, int]:
        """How often each kind of fault occurs, the most frequent first."""
        return _count_kinds(self.problems)

    def note_kinds(self) -> dict[str, int]:
        """How often each kind of remark occurs, the most frequent first."""
        mended = {kind: times for kind, (times, _) in self.mended.items()}
        return mended | _count_kinds(self.notes)

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
            "mended": self.mended,
        }


def validate(
    paths: Paths,
    *,
    workers: int = 0,
    num_centers: int = 128,
) -> Validation:
    """Checks a data set: the json by itself, then each image and mask against it.

    Folders and files may be local or what `tf.io.gfile` reads.

    Args:
      workers: number of processes; 0 for one a processor.
      num_centers: of the model to be trained.

    Raises:
      InputError: the json or a folder is missing.
    """
    try:
        source = open_source(paths)
    except JsonFault as fault:
        return _unreadable(paths, fault, num_centers)
    check, found = source.check, Found(paths.annotations)
    files = reconcile(
        source.paths,
        check.images,
        image_names={image_path(paths.dataset, name) for name in check.image_names},
        mask_names=check.mask_names,
    )
    found.problems += [*grouped(check.problems), *files.summary]
    found.notes += check.notes
    found.mended.join(check.mended)
    # Where no name could be read, all files would be remarked on.
    if check.image_names or check.mask_names:
        found.notes += files.unused
    told = {problem.file for problem in files.missing}
    for problems, notes, mended in _check_all(source, workers):
        found.notes += notes
        found.mended.join(mended)
        for problem in problems:
            kind = problem.kind
            again = kind is Kind.MISSING and problem.file in told
            # From an id in the json that cannot be read.
            follows = kind in OF_UNREAD_IDS and problem.image in check.incomplete
            if not (again or follows):
                found.problems.append(problem)
    counts = [
        count_segments(entry.segments, check.is_thing).max_masks
        for entry in check.images
    ]
    for entry, count in zip(check.images, counts, strict=True):
        if count > num_centers:
            _note_crowded(found, entry.file_name, count, num_centers)
    return Validation(
        images=check.num_images,
        annotations=check.num_annotations,
        annotated=len(check.images),
        files=files.counts,
        masks=MaskCounts.of(counts, num_centers),
        problems=found.problems,
        notes=found.notes,
        mended=found.mended,
    )


def _unreadable(paths: Paths, fault: JsonFault, num_centers: int) -> Validation:
    found = Found(paths.annotations)
    found.add(Kind.JSON_FILE, fault.reason, fault.fix)
    masks, counts = MaskCounts.of([], num_centers), reconcile(paths, []).counts
    return Validation(0, 0, 0, counts, masks, found.problems, [])


def _check_all(source: Source, workers: int) -> Iterator[_Checked]:
    """Yields the problems, the notes and what was mended of every image."""
    entries, check = source.check.images, functools.partial(_check_image, source.paths)
    workers = workers if len(entries) > _ALONE_IMAGES else 1
    found = parallel_map(check, entries, workers=workers, chunk=_CHUNK_IMAGES)
    return track(found, description="validate", total=len(entries))


def _check_image(paths: Paths, entry: PanopticImage) -> _Checked:
    found = FilesCheck(paths, entry, boxes=True)
    return found.problems, found.notes, found.mended


def _note_crowded(found: Found, image: str, count: int, num_centers: int) -> None:
    more = f"no model has more than {MAX_CENTERS} centers"
    if count <= MAX_CENTERS:
        more = f"or set model.num_centers and data.max_masks to {count}"
    message = (
        f"{image} has {count} masks, more than the {num_centers} centers of the model"
    )
    fix = f"training makes the smallest void; {more}"
    found.add(Kind.MORE_MASKS, message, fix, image, note=True)


def _count_kinds(problems: Sequence[Problem]) -> dict[str, int]:
    return dict(collections.Counter(problem.kind for problem in problems).most_common())
