"""A small data set of each kind, made once."""

from __future__ import annotations

import pathlib
import shutil

import pytest

from cmt.data.scenes.generate import generate_scenes
from tests.data.conversions import convert


def sources(folder: pathlib.Path, split: str) -> dict[str, pathlib.Path]:
    """The keywords `validate` and `convert` take for a split of scenes."""
    return {
        "images": folder / "images" / split,
        "annotations": folder / "annotations" / f"panoptic_{split}.json",
        "masks": folder / "annotations" / f"panoptic_{split}",
    }


@pytest.fixture(scope="session")
def scenes(once) -> pathlib.Path:
    """24 scenes to train on and 6 to evaluate on, half with crowd or void.

    Both splits are converted in `tfrecords`, the first one in three shards.
    """

    def make(folder: pathlib.Path) -> None:
        generate_scenes(
            folder, train=24, val=6, size=65, seed=3, crowd_or_void=0.5, workers=1
        )
        for split, shards in (("train", 3), ("val", 1)):
            output = folder / "tfrecords"
            options = dict(output=output, split=split, shards=shards, workers=1)
            convert(**sources(folder, split), **options)

    return once("scenes", make)


@pytest.fixture(scope="session")
def scene_sources(scenes) -> dict[str, pathlib.Path]:
    return sources(scenes, "train")


@pytest.fixture
def broken(scenes, tmp_path) -> dict[str, pathlib.Path]:
    """A copy of the validation scenes, without shards, that a test may damage."""
    copy = sources(tmp_path / "scenes", "val")
    for name, path in sources(scenes, "val").items():
        copy[name].parent.mkdir(parents=True, exist_ok=True)
        (shutil.copy if path.is_file() else shutil.copytree)(path, copy[name])
    return copy


@pytest.fixture(scope="session")
def shards(scenes) -> pathlib.Path:
    return scenes / "tfrecords"
