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
def scenes(tmp_path_factory) -> pathlib.Path:
    """24 scenes to train on and 6 to evaluate on, half with crowd or void."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    generate_scenes(
        folder, train=24, val=6, size=65, seed=3, crowd_or_void=0.5, workers=1
    )
    return folder


@pytest.fixture(scope="session")
def scene_sources(scenes) -> dict[str, pathlib.Path]:
    return sources(scenes, "train")


@pytest.fixture
def broken(scenes, tmp_path) -> dict[str, pathlib.Path]:
    """A copy of the validation scenes that a test may damage."""
    shutil.copytree(scenes, tmp_path / "scenes")
    return sources(tmp_path / "scenes", "val")


@pytest.fixture(scope="session")
def shards(scenes, scene_sources) -> pathlib.Path:
    """Both splits converted, the first one in three shards."""
    output = scenes / "tfrecords"
    convert(**scene_sources, output=output, split="train", shards=3, workers=1)
    convert(**sources(scenes, "val"), output=output, split="val", workers=1)
    return output
