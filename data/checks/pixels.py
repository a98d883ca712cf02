"""Checks of the ids in a PNG against the segments that the json lists for it.

A segment that is missing on one side is most often there under another id, and a mask
that fits nowhere is most often another image's. So faults that have one cause are
told as one, and no fix asks to remove what was annotated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cmt.data.checks.entries import shown
from cmt.data.checks.problems import Problem
from cmt.data.panoptic.annotations import PanopticImage, Segment

# More ids of an image are one fault: each would tell the same.
_FEW_IDS = 8
_SHOWN_IDS = 4
# So many segments whose areas all disagree are a wrong mask.
_WRONG_MASK = 3
_WHOSE = "give the PNG that the json was made for"
_MIXED = "resizing with interpolation and lossy formats make such ids"
_DIFFERENT, _UNLISTED, _UNDRAWN = "ids that differ", "id not in json", "id not in PNG"
_AREA = "area"
_OF_PIXELS = (_DIFFERENT, _UNLISTED, _AREA)
# What an entry whose id cannot be read leads to.
OF_UNREAD_IDS = (_DIFFERENT, _UNLISTED)


def compare_segments(
    path: str, entry: PanopticImage, ids: np.ndarray, index: np.ndarray
) -> list[Problem]:
    """Compares ids and areas.

    Args:
      path: of the PNG.
      entry: the image; an area below 0 is not compared.
      ids: [H, W] of the PNG.
      index: [H, W], as `segment_index` has it.
    """
    segments = entry.segments
    areas = np.bincount(index.ravel(), minlength=len(segments) + 2).tolist()
    lost = areas[0]
    unknown = {}
    if lost:
        numbers, counts = np.unique(ids[index == 0], return_counts=True)
        unknown = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    sized = list(zip(segments, areas[2:], strict=True))
    absent = [segment for segment, area in sized if not area]
    if unknown and absent:
        found = [_differing(path, entry, unknown, absent)]
    elif unknown:
        found = _unknown(path, entry, unknown)
    else:
        found = _absent(path, entry, absent)
    if len(absent) < len(segments) or not segments:
        found += _areas(path, entry, [pair for pair in sized if pair[1]], lost)
    return found


def check_boxes(
    path: str, entry: PanopticImage, index: np.ndarray, known: Sequence[Problem]
) -> list[Problem]:
    """The "bbox" entries that are not those of the pixels.

    Args:
      path: of the PNG.
      entry: the image.
      index: [H, W], as `segment_index` has it.
      known: the other problems of the image. Where pixels are amiss, boxes follow.
    """
    problems = []
    amiss = {problem.segment for problem in known if problem.kind in _OF_PIXELS}
    if amiss and (None in amiss or not amiss.issubset(_ids(entry))):
        return []
    for segment, box in zip(entry.segments, _boxes(index, entry.segments), strict=True):
        if segment.box is None or box is None or segment.id in amiss:
            continue
        if segment.box == box:
            continue
        message = (
            '"bbox" must be [x, y, width, height] of the pixels; got '
            f"{shown(segment.box)} in the json and {box} in the PNG"
        )
        fix = f'set "bbox" to {box}'
        problems.append(Problem("box", path, segment.id, message, fix, entry.file_name))
    return problems


def _ids(entry: PanopticImage) -> set[int]:
    return {segment.id for segment in entry.segments}


def _differing(
    path: str, entry: PanopticImage, unknown: dict[int, int], absent: list[Segment]
) -> Problem:
    """Ids that only the PNG has, and ids that only the json has."""
    message = (
        "json and PNG must have the same ids; only in the PNG: "
        f"{_some(unknown)}; only in the json: {_some(one.id for one in absent)}"
    )
    swapped = {_swapped(number) for number in unknown}
    if all(segment.id in swapped for segment in absent):
        fix = "they fit with red and blue exchanged: save the PNG as RGB, not BGR"
    elif len(absent) == len(entry.segments):
        message += " (all of them)"
        fix = f"{_WHOSE}, with id = R + 256 G + 65536 B"
    elif len(unknown) > max(_FEW_IDS, 2 * len(absent)):
        fix = f"{_WHOSE}; {_MIXED}"
    else:
        fix = "give each segment of the json the id that its pixels have"
        pairs = _same_areas(unknown, absent)
        if pairs:
            fix += f" ({', '.join(pairs)}, going by the areas)"
    return Problem(_DIFFERENT, path, None, message, fix, entry.file_name)


def _swapped(number: int) -> int:
    """An id, with red and blue exchanged."""
    return (number & 0xFF) << 16 | number & 0xFF00 | number >> 16


def _same_areas(unknown: dict[int, int], absent: list[Segment]) -> list[str]:
    """Pairs of ids that alone have their area."""
    by_area: dict[int, list[int]] = {}
    for number, area in unknown.items():
        by_area.setdefault(area, []).append(number)
    areas = [segment.area for segment in absent]
    return [
        f"{segment.id} is {by_area[segment.area][0]}"
        for segment in absent
        if areas.count(segment.area) == len(by_area.get(segment.area, ())) == 1
    ][:_SHOWN_IDS]


def _unknown(path: str, entry: PanopticImage, unknown: dict[int, int]) -> list[Problem]:
    kind, image = _UNLISTED, entry.file_name
    if entry.segments and len(unknown) <= _FEW_IDS:
        fix = 'add the segment to "segments_info" (pixels without one have id 0)'
        return [
            Problem(
                kind,
                path,
                number,
                f"{count} pixels have an id that the json does not list for this image",
                fix,
                image,
            )
            for number, count in unknown.items()
        ]
    message = (
        f"{sum(unknown.values())} pixels have {len(unknown)} ids that the json does "
        f"not list for this image: {_some(unknown)}"
    )
    fix = (
        f"{_WHOSE}; {_MIXED}"
        if entry.segments
        else 'add the segments to "segments_info"'
    )
    return [Problem(kind, path, None, message, fix, image)]


def _absent(path: str, entry: PanopticImage, absent: list[Segment]) -> list[Problem]:
    kind, image = _UNDRAWN, entry.file_name
    if len(absent) > 1 and len(absent) == len(entry.segments):
        message = (
            f"the json lists {len(absent)} segments, but all pixels have id 0, which "
            "is void"
        )
        return [Problem(kind, path, None, message, _WHOSE, image)]
    return [
        Problem(
            kind,
            path,
            segment.id,
            "the json lists it, but no pixel has this id",
            f"{_WHOSE}, or draw it; if nothing of it can be seen, leave it out of "
            '"segments_info"',
            image,
        )
        for segment in absent
    ]


def _areas(
    path: str, entry: PanopticImage, sized: Sequence[tuple[Segment, int]], lost: int
) -> list[Problem]:
    """Areas that disagree, but for what the pixels of unknown ids may explain."""
    compared = [pair for pair in sized if pair[0].area >= 0]
    wrong = [
        (segment, area)
        for segment, area in compared
        if area != segment.area and not 0 < segment.area - area <= lost
    ]
    if len(wrong) == len(compared) >= _WRONG_MASK:
        message = (
            f'no "area" of the {len(wrong)} segments is their number of pixels; '
            f"segment {wrong[0][0].id} has {wrong[0][0].area} in the json and "
            f"{wrong[0][1]} in the PNG"
        )
        fix = f'{_WHOSE}; if it is this one, set each "area" to the number of pixels'
        return [Problem(_AREA, path, None, message, fix, entry.file_name)]
    return [
        Problem(
            _AREA,
            path,
            segment.id,
            f'"area" must be the number of pixels; got {segment.area} in the '
            f"json and {area} in the PNG",
            f'set "area" to {area}',
            entry.file_name,
        )
        for segment, area in wrong
    ]


def _some(ids: Iterable[int]) -> str:
    numbers = list(ids)
    more = len(numbers) - _SHOWN_IDS
    text = ", ".join(map(str, numbers[:_SHOWN_IDS]))
    return f"{text} and {more} more" if more > 0 else text


def _boxes(index: np.ndarray, segments: list[Segment]) -> list[list[int] | None]:
    """[x, y, width, height] in pixels of each segment; None where it has none."""
    bins = len(segments) + 2
    sides = []
    for plane in (index.T, index):
        lines = np.arange(plane.shape[0])[:, np.newaxis] * bins
        counts = np.bincount((lines + plane).ravel(), minlength=plane.shape[0] * bins)
        present = counts.reshape(plane.shape[0], bins)[:, 2:] > 0
        first = present.argmax(axis=0)
        last = plane.shape[0] - present[::-1].argmax(axis=0)
        sides.append((first.tolist(), (last - first).tolist(), present.any(axis=0)))
    (left, width, exists), (top, height, _) = sides
    return [
        [*corner, *size] if there else None
        for corner, size, there in zip(
            zip(left, top, strict=True),
            zip(width, height, strict=True),
            exists,
            strict=True,
        )
    ]
