"""Which path is a checkpoint: what is no path, and files of Keras."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from cmt.errors import InputError
from cmt.factory import build_model
from cmt.weights.files import find_checkpoint
from tests.test_model import miniature


def refused(path: object) -> str:
    """The one line that a path is refused with."""
    with pytest.raises(InputError) as error:
        find_checkpoint(path)
    (line,) = str(error.value).splitlines()
    return line


def test_what_is_no_path(tmp_path, monkeypatch):
    # The working folder, which an empty path would mean, holds a checkpoint.
    tf.train.Checkpoint(a=tf.Variable(1.0)).save(str(tmp_path / "step"))
    assert find_checkpoint(tmp_path) == str(tmp_path / "step-1")
    monkeypatch.chdir(tmp_path)
    assert refused("").startswith("the path of a checkpoint is empty; give a run ")
    for wrong in (None, 3, b"step-1"):
        assert refused(wrong) == (
            "a checkpoint must be given as a path, a str or a pathlib.Path; got"
            f" {type(wrong).__name__}"
        )
    # A prefix may end as a file of Keras does.
    for file in tmp_path.glob("step-1.*"):
        file.rename(tmp_path / file.name.replace("step-1", "step.h5", 1))
    assert find_checkpoint(tmp_path / "step.h5") == str(tmp_path / "step.h5")


@pytest.fixture(scope="module")
def network() -> tf_keras.Model:
    return built()


def built() -> tf_keras.Model:
    network = build_model(miniature())
    network.build((None, 33, 33, 3))
    return network


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("w.h5", "model.load_weights"),
        pytest.param("w.weights.h5", "model.load_weights", marks=pytest.mark.slow),
        ("m.keras", "tf_keras.models.load_model"),
    ],
)
def test_files_of_keras_load_with_what_the_error_names(name, named, network, tmp_path):
    path = str(tmp_path / name)
    if named == "model.load_weights":
        network.save_weights(path)
        (loaded := built()).load_weights(path)
    else:
        network.save(path)
        loaded = tf_keras.models.load_model(path)
    for ours, theirs in zip(loaded.variables, network.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    line = refused(path)
    assert f"{name} is not a TensorFlow checkpoint: " in line
    assert f" file loads with {named}; model.save_weights to a path without" in line
