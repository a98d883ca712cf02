"""`cmt eval --watch` follows a run."""

from __future__ import annotations

import json
import types

import pytest

from cmt.cli import watch
from cmt.cli.main import main
from cmt.config import load_experiment, to_text
from cmt.errors import InputError
from cmt.evaluation import factory as evaluation_factory
from cmt.serving import factory as serving_factory
from cmt.trainer import checkpoint


class Training:
    """A run on another machine, that comes a step further at each look.

    Attributes:
      looks: the checkpoints at each look.
      gone: steps whose checkpoint is removed between look and reading.
    """

    def __init__(self, folder, monkeypatch, *, looks, gone=()):
        self.folder, self.looks, self.gone = folder, list(looks), set(gone)
        self.evaluated = []
        folder.mkdir()
        short = ["trainer.steps=9", "trainer.learning_rate.warmup_steps=0"]
        experiment = load_experiment("scenes/tiny", short)
        (folder / "config.textproto").write_text(to_text(experiment))
        monkeypatch.setattr(checkpoint, "checkpoint_steps", self._steps)
        monkeypatch.setattr(serving_factory, "load_predictor", self._load)
        monkeypatch.setattr(
            evaluation_factory,
            "open_evaluation",
            lambda *_: types.SimpleNamespace(
                run=self._run, draw=lambda predictor, path: None
            ),
        )

    def _steps(self, run_dir):
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def _load(self, experiment, data, prefix):
        assert prefix.startswith(str(self.folder / "checkpoints" / "step-"))
        step = int(prefix.rpartition("-")[2])
        if step in self.gone:
            raise InputError(f"there is no checkpoint {prefix}")
        return types.SimpleNamespace(categories=[]), step

    def _run(self, predictor, output, *, step):
        assert output == self.folder / "eval" / str(step)
        output.mkdir(parents=True)
        (output / "metrics.json").write_text(json.dumps({"step": step}))
        self.evaluated.append(step)
        return {
            "panoptic": {g: {"pq": 10.0 + step} for g in ("all", "things", "stuff")}
        }


@pytest.fixture
def data(monkeypatch):
    from cmt.data.input import open as data_factory

    split = types.SimpleNamespace(validation=object())
    monkeypatch.setattr(data_factory, "Data", lambda _: split)


def test_the_newest_checkpoints_are_evaluated_to_the_last(
    tmp_path, monkeypatch, data, capsys
):
    looks = [[], [3], [3], [3, 5, 6], [6, 9]]
    training = Training(tmp_path / "run", monkeypatch, looks=looks)
    watch.follow(training.folder, [], poll_seconds=0)
    assert training.evaluated == [3, 6, 9]
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "step 3 of 9  pq 13.00  pq_things 13.00  pq_stuff 13.00"
    assert len(shown) == 3
    assert list((training.folder / "logs" / "watch").iterdir())
    # All is evaluated: nothing is left to do.
    watch.follow(training.folder, [], poll_seconds=0)
    assert training.evaluated == [3, 6, 9]


def test_a_checkpoint_that_the_training_removes_is_left_out(
    tmp_path, monkeypatch, data, caplog
):
    looks = [[3], [6, 9], [6, 9]]
    training = Training(tmp_path / "run", monkeypatch, looks=looks, gone=[3])
    watch.follow(training.folder, [], poll_seconds=0)
    assert training.evaluated == [9]
    assert "step 3 is not evaluated: there is no checkpoint" in caplog.text


def test_one_that_cannot_be_read_ends_it(tmp_path, monkeypatch, data):
    training = Training(tmp_path / "run", monkeypatch, looks=[[3]], gone=[3])
    with pytest.raises(InputError, match="there is no checkpoint"):
        watch.follow(training.folder, [], poll_seconds=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "scenes/tiny --watch run",
            "--watch RUN takes config and checkpoints from",
        ),
        ("--watch run --zip", "it goes with --set alone"),
        (
            "scenes/tiny --checkpoint run",
            "--output missing, and there is no",
        ),
        ("", "CONFIG, --checkpoint, --output missing"),
    ],
)
def test_what_goes_together(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["eval", *words.split()])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
