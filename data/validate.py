"""All that is wrong with a COCO panoptic data set, in one pass."""

from __future__ import annotations

import functools
from pathlib import Path

from cmt.data.check_files import check_files
from cmt.data.check_json import JsonCheck
from cmt.data.coco import PanopticImage, load_json
from cmt.data.parallel import parallel_map
from cmt.data.problems import Problem
from cmt.data.progress import track
from cmt.errors import InputError


def validate(
    *,
    images: Path | str,
    annotations: Path | str,
    masks: Path | str,
    workers: int = 0,
) -> list[Problem]:
    """Checks a data set: the json by itself, then each image and mask against it.

    Args:
      images: folder of the images.
      annotations: COCO panoptic json.
      masks: folder of the PNG files.
      workers: number of processes; 0 for one a processor.

    Returns:
      All faults; empty if there is none.

    Raises:
      InputError: the json or a folder is missing.
    """
    images, masks = Path(images), Path(masks)
    if not Path(annotations).is_file():
        raise InputError(f"--annotations {annotations}: no such file; check the path")
    for option, folder in (("--images", images), ("--masks", masks)):
        if not folder.is_dir():
            raise InputError(f"{option} {folder}: no such folder; check the path")
    try:
        check = JsonCheck(annotations, load_json(annotations))
    except InputError as error:
        message = str(error).removeprefix(f"{annotations}: ")
        fix = "give a COCO panoptic json"
        return [Problem("json file", str(annotations), None, message, fix)]
    problems = check.problems
    function = functools.partial(_problems, images, masks)
    found = parallel_map(
        function, check.images, workers=workers if len(check.images) > 50 else 1
    )
    for some in track(found, description="validate", total=len(check.images)):
        problems.extend(some)
    return problems


def _problems(images: Path, masks: Path, entry: PanopticImage) -> list[Problem]:
    return check_files(images, masks, entry).problems
