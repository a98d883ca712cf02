"""Runs that cannot write, are told to stop, or fail in an evaluation lose nothing."""

from __future__ import annotations

import errno
import os
import signal

import pytest
import tensorflow as tf

from cmt.cli.main import main
from cmt.errors import InputError, WorkError
from cmt.trainer.reporting import MetricsFile, TensorBoardLogs

EVALUATES = ("trainer.evaluate_every_steps=4", 'data.validation.tfrecords="x"')


def _names(run):
    return {p.stem for p in (run.folder / "checkpoints").glob("*.index")}


@pytest.fixture
def full_disk(monkeypatch):
    """`full_disk(*steps)`: checkpoints of these steps cannot be written."""
    write = tf.train.Checkpoint.write

    def begin(*steps):
        def fail(self, prefix, *arguments):
            if any(prefix.endswith(f"/step-{step}") for step in steps):
                raise OSError(errno.ENOSPC, "No space left on device", prefix)
            return write(self, prefix, *arguments)

        monkeypatch.setattr(tf.train.Checkpoint, "write", fail)

    return begin


def test_a_full_disk_ends_the_run(run, full_disk):
    full_disk(6)
    with pytest.raises(WorkError, match=r"step-6 cannot be written .*No space left"):
        run.call("trainer.steps=12")
    assert _names(run) == {"step-3"}
    full_disk()
    assert run.call("trainer.steps=12").step == 12


def test_or_is_a_warning_as_the_config_says(run, full_disk, caplog):
    full_disk(3, 6)
    assert run.call("trainer.steps=12", "trainer.go_on_unsaved=true").step == 12
    assert _names(run) == {"step-9", "step-12"}
    warnings = [m for m in caplog.messages if "training goes on, though:" in m]
    assert len(warnings) == 2 and "step-3 cannot be written" in warnings[0]


def test_the_last_checkpoint_has_to_be_written(run, full_disk):
    full_disk(7)
    with pytest.raises(WorkError, match="step-7 cannot be written"):
        run.call("trainer.steps=7", "trainer.go_on_unsaved=true")
    full_disk()
    assert run.call("trainer.steps=7").step == 7
    assert _names(run) == {"step-3", "step-6", "step-7"}


@pytest.mark.parametrize("kind", [MetricsFile, TensorBoardLogs])
@pytest.mark.parametrize("goes_on", [True, False])
def test_logs_that_cannot_be_written(run, monkeypatch, caplog, kind, goes_on):
    log = kind.log

    def fail(self, record):
        if record.step == 4:
            raise OSError(errno.ENOSPC, "No space left on device", "a log")
        log(self, record)

    monkeypatch.setattr(kind, "log", fail)
    settings = ("trainer.steps=8", f"trainer.go_on_unsaved={str(goes_on).lower()}")
    if goes_on:
        assert run.call(*settings).step == 8
        assert "goes on, though: [Errno 28] No space left on device" in caplog.text
        return
    with pytest.raises(WorkError, match=r"at step 4: .*No space.*from .*step-3"):
        run.call(*settings)
    monkeypatch.setattr(kind, "log", log)
    assert run.call(*settings).step == 8
    assert [line["step"] for line in run.lines()] == [2, 4, 6, 8]


def test_half_a_line_is_taken_back(tmp_path, monkeypatch):
    from cmt.trainer.reporting import LogRecord

    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    record = LogRecord(1, {"total": 2.0}, 0.1, {})
    metrics.log(record)
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    file = metrics._file

    class Full:
        def write(self, data):
            return file.write(data[:7])

        def truncate(self, size):
            return file.truncate(size)

    metrics._file = Full()
    with pytest.raises(OSError, match="No space left on device"):
        metrics.log(record)
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    metrics._file = file
    metrics.log(record)
    assert (tmp_path / "metrics.jsonl").read_bytes() == 2 * whole


def test_a_signal_ends_an_evaluation_which_is_made_up_for(run):
    """It is not waited for; the run that goes on evaluates the step it begins with."""
    evaluated = []

    def interrupted(step):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the evaluation went on")

    def evaluate(step):
        evaluated.append(step)
        return {"total": 1.0, "pq": 50.0}

    run.options["evaluation"] = interrupted
    summary = run.call("trainer.steps=10", *EVALUATES)
    assert (summary.step, summary.signal) == (4, "SIGTERM")
    assert _names(run) == {"step-3", "step-4"}
    run.options["evaluation"] = evaluate
    assert run.call("trainer.steps=10", *EVALUATES).best == (4, 50.0)
    assert evaluated == [4, 8, 10]
    found = [x["step"] for x in run.lines() if "validation/pq" in x]
    assert found == [4, 8, 10]
    assert {"step-4", "step-10"} <= _names(run)


def test_an_evaluation_that_fails_costs_no_training(run):
    def fail(step):
        raise InputError("a record is damaged")

    run.options["evaluation"] = fail
    with pytest.raises(InputError, match="a record is damaged"):
        run.call("trainer.steps=10", *EVALUATES)
    assert _names(run) == {"step-3", "step-4"}


def test_the_best_checkpoint_is_kept_and_said(run, capsys):
    scores = {4: 30.0, 8: 60.0, 12: 40.0, 16: 50.0}
    run.options["evaluation"] = lambda step: {"total": 1.0, "pq": scores[step]}
    summary = run.call("trainer.steps=16", "trainer.keep_checkpoints=2", *EVALUATES)
    assert summary.best == (8, 60.0)
    assert _names(run) == {"step-8", "step-15", "step-16"}


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_exit_codes(run, capsys, number, code):
    def interrupted(step):
        os.kill(os.getpid(), getattr(signal, number))

    run.options["evaluation"] = interrupted
    settings = ("trainer.steps=10", *EVALUATES, "trainer.global_batch_size=4")
    settings = (*settings, "trainer.learning_rate.warmup_steps=0")
    options = [part for each in settings for part in ("--set", each)]
    with pytest.raises(SystemExit) as caught:
        main(["train", "scenes/tiny", "--output", str(run.folder), *options])
    assert caught.value.code == code
    assert f"stopped by {number} at step 4 of 10" in capsys.readouterr().err
