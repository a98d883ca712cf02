"""A config that is opened from another folder says what its paths are relative to."""

from __future__ import annotations

import pytest

from cmt.cli.main import main
from cmt.config import load_experiment
from cmt.data.input.open import Data
from cmt.errors import InputError


def test_training_from_another_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["train", "scenes/tiny", "--output", "run"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    pattern = load_experiment("scenes/tiny").data.train.tfrecords
    assert error == (
        f"error: {pattern}: no file fits this pattern; it is relative to the folder "
        f"the command runs in, {tmp_path}, and not to the config's: run it where "
        "the data are, or give the shards that `cmt data convert` wrote, such as "
        '"DIR/train-*.tfrecord"\n'
    )
    assert not list(tmp_path.iterdir())


def test_paths_that_are_not_relative_are_told_as_they_are(tmp_path):
    for pattern in (f"{tmp_path}/val-*.tfrecord", "ram://none/val-*.tfrecord"):
        changed = f"data.validation.tfrecords={pattern}"
        data = Data(load_experiment("scenes/tiny", [changed]).data)
        with pytest.raises(InputError, match="no file fits this pattern; give"):
            _ = data.validation
