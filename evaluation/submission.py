"""Predictions as COCO's evaluation server takes them.

Format: https://cocodataset.org/#format-results, "Panoptic Segmentation": a json, in a
folder of its name the PNGs, and both in a zip of their name. The server reads the ids
and categories of segments; what else our files hold is left out.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from cmt.data.panoptic.json import ImageId, load_json
from cmt.data.panoptic.predictions import (
    MASKS_FOLDER,
    PREDICTIONS_FILE,
    segment_scores,
    write_predictions,
)
from cmt.errors import InputError, few
from cmt.evaluation.evaluate import PREDICTIONS_FOLDER, Predictor
from cmt.io.files import atomic_write
from cmt.io.images import decode_rgb
from cmt.io.png import ImageFault
from cmt.io.progress import track
from cmt.io.storage import Location, join, list_files, read_bytes

_KEYS = ("id", "file_name", "height", "width")
_PREFIXES = ("image_info_", "panoptic_")


class TestImage(NamedTuple):
    """An entry of the list of a test set; height and width are in pixels."""

    image_id: ImageId
    file_name: str
    height: int
    width: int


class TestSet(NamedTuple):
    """Images whose annotations only a server has.

    Attributes:
      name: on the server, such as test-dev2017.
      folder: of the image files.
      images: in the order of the list.
    """

    name: str
    folder: Location
    images: list[TestImage]


def read_test_set(images: Location, listed: Location) -> TestSet:
    """Reads the list of a test set.

    Args:
      images: folder of the image files.
      listed: COCO json whose "images" have id, file_name, height and width.

    Raises:
      InputError: the list is missing or damaged, or an image is missing.
    """
    entries = load_json(listed).get("images")
    try:
        found = [TestImage(*(entry[k] for k in _KEYS)) for entry in entries]
        named = all(isinstance(image.file_name, str) for image in found)
    except (KeyError, TypeError):
        found, named = [], False
    if not (found and named):
        raise InputError(
            f'{listed}: "images" must list the images of the test set, each with '
            f"{', '.join(_KEYS)}; give a list such as image_info_test-dev2017.json"
        )
    # Now, and not after hours. (What is in folders below is found missing later.)
    there = list_files(images)
    names = [i.file_name for i in found if "/" not in i.file_name]
    missing = [name for name in names if name not in there]
    if missing:
        raise InputError(
            f"{images}: lacks {len(missing)} of the {len(found)} images of {listed}: "
            f"{few(missing)}; set data.test.images to their folder"
        )
    return TestSet(set_name(listed), images, found)


def set_name(listed: Location) -> str:
    """The name that a set has on the server, by the file that lists its images."""
    name = PurePosixPath(str(listed)).stem
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def predict_test_set(
    predictor: Predictor,
    test_set: TestSet,
    output: Path,
    decode: Callable[[bytes], np.ndarray],
) -> None:
    """Predicts all images and writes `predictions/` below `output`, as `evaluate` does.

    Args:
      predictor: network and categories.
      test_set: the images.
      output: the folder; predictions that are there are replaced.
      decode: file -> [H, W, 3] uint8, upright.

    Raises:
      InputError: an image is missing, damaged, or of another size than listed; earlier
        predictions stay then.
    """
    predictions = output / PREDICTIONS_FOLDER
    with write_predictions(predictions, predictor.categories) as writer:
        for listed in track(test_set.images, description="predicting"):
            image = _read(test_set.folder, listed, decode)
            outputs = predictor.predict(image[np.newaxis])
            found = {key: value.numpy()[0] for key, value in outputs.items()}
            scores = segment_scores(found["segment_ids"], found["scores"])
            writer.add(listed.image_id, listed.file_name, found["panoptic"], scores)


def _read(
    folder: Location, listed: TestImage, decode: Callable[[bytes], np.ndarray]
) -> np.ndarray:
    """Decodes an image, to the size that the list has for it."""
    path = join(folder, listed.file_name)
    try:
        content = read_bytes(path)
        image = decode(content)
        if image.shape[:2] != listed[2:] == image.shape[1::-1]:
            # The list has it as it is stored, and so has the server.
            image = np.asarray(decode_rgb(content, turns=False))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image, though the list has it") from error
    except ImageFault as fault:
        raise InputError(f"{path}: {fault}") from fault
    if image.shape[:2] != listed[2:]:
        height, width = image.shape[:2]
        raise InputError(
            f"{path}: is {width}x{height} pixels, and in the list "
            f"{listed.width}x{listed.height}; give the image that the list means"
        )
    return image


def write_submission(output: Path, test_set: str, algorithm: str) -> Path:
    """Packs the predictions below `output` for the evaluation server.

    The file is `panoptic_{test_set}_{algorithm}_results.zip`. It holds a json and a
    folder of PNGs of the same name.

    Args:
      output: has `predictions/`; the file goes beside it.
      test_set: name on the server, such as test-dev2017.
      algorithm: name of the network there.

    Returns:
      The path of the file.
    """
    predictions = output / PREDICTIONS_FOLDER
    content = load_json(predictions / PREDICTIONS_FILE)
    annotations = [_submitted(entry) for entry in content["annotations"]]
    name = f"panoptic_{test_set}_{algorithm}_results"
    path = output / f"{name}.zip"
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as packed:
        text = json.dumps({"annotations": annotations})
        packed.writestr(f"{name}.json", text, zipfile.ZIP_DEFLATED)
        # PNGs are compressed already.
        for entry in track(annotations, description="packing"):
            png = entry["file_name"]
            packed.write(predictions / MASKS_FOLDER / png, f"{name}/{png}")
    return path


def _submitted(entry: dict[str, Any]) -> dict[str, Any]:
    """What the server reads of an annotation."""
    segments = [
        {"id": info["id"], "category_id": info["category_id"]}
        for info in entry["segments_info"]
    ]
    names = {key: entry[key] for key in ("image_id", "file_name")}
    return {**names, "segments_info": segments}
