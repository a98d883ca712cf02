"""The segments of an image as its PNG has them, for scoring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cmt.data.panoptic.json import MAX_SEGMENT_ID, PanopticImage, Segment
from cmt.data.panoptic.kinds import Kind, Tally
from cmt.data.panoptic.masks import segment_index


def settle(
    name: str,
    ids: np.ndarray,
    pixels: np.ndarray,
    segments: Sequence[Segment],
    is_thing: Mapping[int, bool],
) -> tuple[np.ndarray, list[Segment], Tally]:
    """Takes from the PNG what the json says otherwise, as conversion does.

    Segments without pixels are left out, those of one stuff class are merged, and one
    with id 0 gets an id that is free. What no entry explains is left for the caller.

    Args:
      name: of the PNG, for notes.
      ids: [R] segment ids of runs of pixels of the PNG, 0 is void.
      pixels: [R], how many pixels a run has.
      segments: as the json has them.
      is_thing: of each category id; stuff of a category that is not there stays apart.

    Returns:
      The ids, the segments, with areas as the json has them (None where it has none
      or one that merged segments lack), and the notes.
    """
    found = np.bincount(segment_index(ids, segments), pixels, len(segments) + 2)
    counts = {
        segment.id: int(count)
        for segment, count in zip(segments, found[2:].tolist(), strict=True)
    }
    notes = Tally()

    def note(kind: Kind, segment: Segment, message: str, care: str = "") -> None:
        line = f"{name}: segment {segment.id}: {message}; {care or kind.care}"
        notes.add(kind, line)

    drawn = [segment for segment in segments if counts[segment.id]]
    if not drawn and len(segments) > 1:
        return ids, list(segments), notes  # The PNG of another image.
    merged: dict[int, Segment] = {}
    kept: list[Segment] = []
    for segment in segments:
        count = counts[segment.id]
        if not count:
            note(Kind.ID_NOT_IN_PNG, segment, "no pixel has this id")
            continue
        if segment.area is not None and segment.area != count:
            arrived = f"{segment.area} in the json and {count} in the PNG"
            message = f'"area" must be the number of pixels; got {arrived}'
            note(Kind.AREA, segment, message, "scored with both")
            if segment.id == 0 and segment.area < count:
                note(Kind.VOID_IN_ZERO, segment, message)
        if segment.id == 0:
            note(Kind.ZERO_ID, segment, "void has this id, too")
            used = {*np.unique(ids).tolist(), *counts}
            free = next(n for n in range(MAX_SEGMENT_ID, 0, -1) if n not in used)
            ids = np.where(ids == 0, free, ids)
            segment = segment._replace(id=free)
        stuff = is_thing.get(segment.category_id) is False and not segment.is_crowd
        first = merged.get(segment.category_id) if stuff else None
        if first is None:
            kept.append(segment)
            if stuff:
                merged[segment.category_id] = segment
            continue
        note(Kind.STUFF_TWICE, segment, f"category {segment.category_id} has another")
        ids = np.where(ids == segment.id, first.id, ids)
        areas = (first.area, segment.area)
        whole = first._replace(area=None if None in areas else sum(areas))
        kept[kept.index(first)] = merged[segment.category_id] = whole
    return ids, kept, notes


def has_stuff_twice(
    images: Iterable[PanopticImage], is_thing: Mapping[int, bool]
) -> bool:
    """Whether a stuff class has more than one segment in one of the images."""
    for image in images:
        used = [
            segment.category_id
            for segment in image.segments
            if is_thing.get(segment.category_id) is False
        ]
        if len(set(used)) < len(used):
            return True
    return False
