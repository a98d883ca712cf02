"""Checks of the ids in a PNG against the segments that the json lists for it.

A segment that is missing on one side is most often there under another id, and a mask
that fits nowhere is most often another image's. So faults that have one cause are
told as one, and no fix asks to remove what was annotated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cmt.data.checks.problems import Found, Kind
from cmt.data.panoptic.json import PanopticImage, Segment, shown
from cmt.errors import few

# More ids of an image are one fault: each would tell the same.
_FEW_IDS = 8
# So many segments whose areas all disagree are a wrong mask.
_WRONG_MASK = 3
_WHOSE = "give the PNG that the json was made for"
_MIXED = "resizing with interpolation and lossy formats make such ids"
# Where pixels are amiss, boxes follow.
_OF_PIXELS = (Kind.DIFFERENT_IDS, Kind.ID_NOT_IN_JSON, Kind.AREA)
# What an entry whose id cannot be read leads to.
OF_UNREAD_IDS = (Kind.DIFFERENT_IDS, Kind.ID_NOT_IN_JSON)


def compare_segments(
    found: Found, entry: PanopticImage, ids: np.ndarray, index: np.ndarray
) -> list[int]:
    """Compares ids and areas; an area that is None is not compared.

    Returns the number of pixels of each segment. `ids` are those of the PNG, `index` is
    as `segment_index` has it, both [H, W].
    """
    segments = entry.segments
    areas = np.bincount(index.ravel(), minlength=len(segments) + 2).tolist()
    lost, unknown = areas[0], {}
    if lost:
        numbers, counts = np.unique(ids[index == 0], return_counts=True)
        unknown = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    sized = list(zip(segments, areas[2:], strict=True))
    absent = [segment for segment, area in sized if not area]
    if unknown and absent:
        _add_differing(found, entry, unknown, absent)
    elif unknown:
        _add_unknown(found, entry, unknown)
    else:
        _add_absent(found, entry, absent)
    if len(absent) < len(segments) or not segments:
        _compare_areas(found, [pair for pair in sized if pair[1]], lost)
    return areas[2:]


def compare_boxes(found: Found, entry: PanopticImage, index: np.ndarray) -> None:
    """Compares the "bbox" entries with the boxes of the pixels.

    `found` has those of `compare_segments`; `index` is as `segment_index` has it.
    """
    from scipy import ndimage  # Half a second, which conversion need not spend.

    amiss = {one.segment for one in found.problems if one.kind in _OF_PIXELS}
    # Where not only areas of listed segments are amiss.
    if not amiss <= {segment.id for segment in entry.segments}:
        return
    _, *places = ndimage.find_objects(index, max_label=len(entry.segments) + 1)
    for segment, place in zip(entry.segments, places, strict=True):
        if segment.box is None or place is None or segment.id in amiss:
            continue
        rows, columns = place
        size = [columns.stop - columns.start, rows.stop - rows.start]
        box = [columns.start, rows.start, *size]
        if segment.box != box:
            message = (
                '"bbox" must be [x, y, width, height] of the pixels; got '
                f"{shown(segment.box)} in the json and {box} in the PNG"
            )
            found.mend(Kind.BOX, message, f'set "bbox" to {box}', segment=segment.id)


def _add_differing(
    found: Found,
    entry: PanopticImage,
    unknown: dict[int, int],
    absent: list[Segment],
) -> None:
    """Ids that only the PNG has, and ids that only the json has."""
    message = (
        "json and PNG must have the same ids; only in the PNG: "
        f"{_some(unknown)}; only in the json: {_some(one.id for one in absent)}"
    )
    # With red and blue exchanged.
    swapped = {
        (number & 0xFF) << 16 | number & 0xFF00 | number >> 16 for number in unknown
    }
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
            fix += f" ({', '.join(pairs[:4])}, going by the areas)"
    found.add(Kind.DIFFERENT_IDS, message, fix)


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
    ]


def _add_unknown(found: Found, entry: PanopticImage, unknown: dict[int, int]) -> None:
    lacks, fix = "that the json does not list for this image", f"{_WHOSE}; {_MIXED}"
    if entry.segments and len(unknown) <= _FEW_IDS:
        fix = 'add the segment to "segments_info" (pixels without one have id 0)'
        for number, count in unknown.items():
            message = f"{count} pixels have an id {lacks}"
            found.add(Kind.ID_NOT_IN_JSON, message, fix, segment=number)
        return
    if not entry.segments:
        fix = 'add the segments to "segments_info"'
    pixels = sum(unknown.values())
    message = f"{pixels} pixels have {len(unknown)} ids {lacks}: {_some(unknown)}"
    found.add(Kind.ID_NOT_IN_JSON, message, fix)


def _add_absent(found: Found, entry: PanopticImage, absent: list[Segment]) -> None:
    if len(absent) > 1 and len(absent) == len(entry.segments):
        message = f"the json lists {len(absent)} segments, but all pixels have id 0"
        found.add(Kind.ID_NOT_IN_PNG, f"{message}, which is void", _WHOSE)
        return
    message = "the json lists it, but no pixel has this id"
    fix = (
        f"{_WHOSE}, or draw it; if nothing of it can be seen, leave it out of "
        '"segments_info"'
    )
    for segment in absent:
        found.mend(Kind.ID_NOT_IN_PNG, message, fix, segment=segment.id)


def _compare_areas(
    found: Found, sized: Sequence[tuple[Segment, int]], lost: int
) -> None:
    """Finds areas that disagree, but for what the `lost` pixels may explain."""
    compared = [pair for pair in sized if pair[0].area is not None]
    wrong = [
        (segment, area)
        for segment, area in compared
        if area != segment.area and not 0 < segment.area - area <= lost
    ]
    if found.strict and len(wrong) == len(compared) >= _WRONG_MASK:
        first, area = wrong[0]
        message = (
            f'no "area" of the {len(wrong)} segments is their number of pixels; '
            f"segment {first.id} has {first.area} in the json and {area} in the PNG"
        )
        fix = f'{_WHOSE}; if it is this one, set each "area" to the number of pixels'
        found.add(Kind.AREA, message, fix)
        return
    for segment, area in wrong:
        if segment.id == 0 and area > segment.area:
            message = (
                f'{area} pixels have id 0, as void has, and "area" is {segment.area}'
            )
            found.mend(Kind.VOID_IN_ZERO, message, "", segment=0)
            continue
        got = f"{segment.area} in the json and {area} in the PNG"
        message = f'"area" must be the number of pixels; got {got}'
        found.mend(Kind.AREA, message, f'set "area" to {area}', segment=segment.id)


def _some(ids: Iterable[int]) -> str:
    return few([str(number) for number in ids])
