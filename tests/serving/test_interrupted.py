"""Exports that are killed at any moment: a version that is there can be served."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests import fakes

pytestmark = pytest.mark.slow
_EXPORT = """
import sys
from cmt.serving import export
from tests import fakes

image = fakes.encode(fakes.make_image(50, 70))
saved = dict(samples=[image], step=1, config_name="fake", config_text="")
export.export_model(fakes.make_predictor(), sys.argv[1], **saved)
"""
_FILES = ("saved_model.pb", "model.json", "validation.json", "assets.extra")


def versions(directory: Path) -> set[str]:
    """The folders that a server would load, sooner or later."""
    return {path.name for path in directory.glob("[0-9]*")}


def started(directory: Path, checkout: Path) -> subprocess.Popen:
    """An export whose folder has begun to fill."""
    before = set(directory.glob(".*.partial"))
    process = subprocess.Popen(
        [sys.executable, "-c", _EXPORT, directory],
        cwd=checkout,
        stderr=subprocess.DEVNULL,
    )
    while set(directory.glob(".*.partial")) == before:
        assert process.poll() is None
        time.sleep(0.001)
    return process


def test_killed_at_any_moment(tmp_path, predictor, checkout):
    directory = tmp_path / "panoptic"
    image = tf.constant(fakes.make_image(50, 70)[np.newaxis])
    expected = predictor.predict(image)

    def check(version: str) -> None:
        folder = directory / version
        assert all((folder / name).exists() for name in _FILES)
        assert json.loads((folder / "model.json").read_text())["version"] == int(
            version
        )
        found = tf.saved_model.load(str(folder)).signatures["serving_default"](image)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)

    process, begun = started(directory, checkout), time.monotonic()
    assert process.wait() == 0
    seconds = time.monotonic() - begun
    chance, known, left = random.Random(15), set(), 0
    signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    for number in range(11):
        for version in versions(directory) - known:
            check(version)
            known.add(version)
        process = started(directory, checkout)
        if number == 10:  # At the moment of the name.
            while versions(directory) == known:
                assert process.poll() is None
        else:
            time.sleep(chance.uniform(0, seconds))
        process.send_signal(signals[number % len(signals)])
        process.wait()
        left += versions(directory) == known
    (last,) = versions(directory) - known
    check(last)
    assert left >= 5  # Of the ten, most were killed before the end.
