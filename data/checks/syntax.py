"""Tells other json files of COCO from panoptic ones."""

from __future__ import annotations

from pathlib import PurePosixPath

from cmt.data.checks.problems import Problem

# A key of the annotations that only this kind has, and what the kind is called.
_KINDS = {
    "caption": "captions",
    "keypoints": "keypoint annotations",
    "segmentation": "instance annotations",
    "bbox": "instance annotations",
}
_PREFIXES = ("instances", "person_keypoints", "captions", "stuff", "image_info")


def other_format(path: str, annotations: list) -> Problem | None:
    """The one fault of a json whose annotations are of another kind.

    Args:
      path: of the json.
      annotations: its list of that name.
    """
    entries = [entry for entry in annotations if isinstance(entry, dict)]
    if not entries or any("segments_info" in entry for entry in entries):
        return None
    keys = set().union(*entries)
    kind = next((name for key, name in _KINDS.items() if key in keys), None)
    return Problem(
        "json structure",
        path,
        None,
        f'annotations must have "segments_info"; got {kind or "none that has"}',
        f"give {_panoptic_name(path)}",
    )


def _panoptic_name(path: str) -> str:
    name = PurePosixPath(path).name
    for prefix in _PREFIXES:
        if name.startswith(f"{prefix}_"):
            return f"the panoptic json of the split, panoptic{name[len(prefix) :]}"
    return "COCO panoptic annotations (not the instance or caption json)"
