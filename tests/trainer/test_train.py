"""A whole run with a tiny network: files, continuation, refusals, stops."""

from __future__ import annotations

import json
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from cmt.cli.main import main
from cmt.config import load_experiment
from cmt.data.panoptic.categories import Category
from cmt.errors import InputError, WorkError
from cmt.trainer import factory
from cmt.trainer.checkpoint import RunCheckpoints
from cmt.trainer.finite_guard import NotFinite


def test_files_of_a_run(run, capsys):
    summary = run.call("trainer.steps=7")
    assert (summary.step, summary.steps, summary.signal) == (7, 7, "")
    assert summary.checkpoint == str(run.folder / "checkpoints" / "step-7")
    lines = run.lines()
    assert [line["step"] for line in lines] == [2, 4, 6, 7]
    assert set(lines[0]) == {
        "step", "total", "squared", "absolute", "gradient_norm", "learning_rate",
        "images_per_second", "input_share", "learning_rate_backbone",
        "weight_norm/optimizer", "weight_norm/backbone_optimizer", "memory_gigabytes",
    }  # fmt: skip
    expected = 2 * lines[0]["squared"] + lines[0]["absolute"]
    assert lines[0]["total"] == pytest.approx(expected, rel=1e-5)
    assert lines[0]["learning_rate"] == pytest.approx(0.001 * (5 / 7) ** 0.9)
    assert all(line["images_per_second"] > 0 for line in lines)
    again = load_experiment(run.folder / "config.textproto")
    assert again.trainer.steps == 7 and again.name == "tiny"
    names = {p.name for p in (run.folder / "checkpoints").glob("*.index")}
    assert names == {"step-3.index", "step-6.index", "step-7.index"}
    assert list((run.folder / "logs" / "train").iterdir())
    assert len(json.loads((run.folder / "categories.json").read_text())) == 10
    shown = capsys.readouterr().err
    assert "4 images, 4 a replica" in shown
    assert "step 2/7  total" in shown


def test_the_first_step_of_a_process_has_no_rate(run, capsys):
    for steps in (2, 4):
        settings = (f"trainer.steps={steps}", "trainer.log_every_steps=1")
        run.call(*settings, new_schedule=True)
    known = ["images_per_second" in line for line in run.lines()]
    assert known == [False, True, False, True]
    logged = [x for x in capsys.readouterr().err.splitlines() if x.startswith("step ")]
    assert ["images/s" in line for line in logged] == known
    assert not any(" left" in line for line in logged)  # Not known, or the last.


def test_continues(run, capsys):
    run.call("trainer.steps=4")
    metrics = run.folder / "metrics.jsonl"
    first = metrics.read_text()
    metrics.write_text(first + '{"step": 5, "total": 0.1}\n{"step": 6, "to')
    summary = run.call("trainer.steps=8", "trainer.evaluate_every_steps=5",
                       'data.validation.tfrecords="x"', new_schedule=True)  # fmt: skip
    assert summary.step == 8
    assert [line["step"] for line in run.lines()] == [2, 4, 5, 6, 8]
    assert metrics.read_text().startswith(first)
    evaluated = {x["step"]: x.get("validation/pq") for x in run.lines()}
    assert evaluated == {2: None, 4: None, 5: 50.0, 6: None, 8: 50.0}
    shown = capsys.readouterr().err
    assert "continues at step 4" in shown
    assert "changed since the run began: trainer.steps: 4 -> 8" in shown
    assert "validation at step 5: total 1  pq 50" in shown
    assert run.call("trainer.steps=8").last is None
    assert "raise trainer.steps" in capsys.readouterr().err


def test_more_steps_make_the_rate_jump_only_where_it_is_asked_for(run, capsys):
    run.call("trainer.steps=6")
    before = (run.folder / "config.textproto").read_text()
    with pytest.raises(InputError) as error:
        run.call("trainer.steps=12")
    message = str(error.value)
    assert (
        "has made 6 steps with a learning rate of 0.001 falling to 0 at step 6 "
        "(POLYNOMIAL), and is at 0; with trainer.steps=12 it would be 0.001 falling to "
        "0 at step 12 (POLYNOMIAL), and jump to 0.000536: add --new-schedule"
    ) in message
    assert 'trainer.initial_checkpoint="' in message and "\n" not in message
    assert (run.folder / "config.textproto").read_text() == before
    assert run.call("trainer.steps=12", new_schedule=True).step == 12
    # The same command again has nothing to ask; it is the schedule of the run now.
    assert run.call("trainer.steps=12").step == 12
    assert "all 12 steps are done" in capsys.readouterr().err
    rates = {line["step"]: line["learning_rate"] for line in run.lines()}
    assert rates[8] == pytest.approx(0.001 * (4 / 12) ** 0.9)


def test_fewer_steps_than_were_made(run):
    run.call("trainer.steps=6")
    before = (run.folder / "config.textproto").read_text()
    with pytest.raises(InputError, match=r"has made 6 steps, and trainer.steps is 4;"):
        run.call("trainer.steps=4", new_schedule=True)
    assert (run.folder / "config.textproto").read_text() == before


def test_more_steps_that_change_no_rate_need_no_option(run):
    """In a warm-up the rate is that of the plan, however long the run will be."""
    warm = "trainer.learning_rate.warmup_steps=9"
    run.options["bad_step"] = 4
    with pytest.raises(WorkError):
        run.call("trainer.steps=10", warm)
    run.options["bad_step"] = -1
    assert run.call("trainer.steps=12", warm).step == 12


def test_same_losses_as_without_a_break(run):
    run.call("trainer.steps=6")
    whole = run.lines()
    for name in ("step-6.index", "checkpoint"):
        (run.folder / "checkpoints" / name).unlink()
    state = 'model_checkpoint_path: "step-3"\n'
    (run.folder / "checkpoints" / "checkpoint").write_text(state)
    run.call("trainer.steps=6")
    assert run.lines()[-1]["step"] == 6
    assert run.lines()[-1]["total"] == whole[-1]["total"]


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("model.num_centers=40", "model.num_centers: 24 -> 40"),
        ("trainer.optimizer.kind=ADAMW", "trainer.optimizer.kind: ADAM -> ADAMW"),
        ("trainer.optimizer.average_decay=0.5", "average_decay: 0.0 -> 0.5"),
    ],
)
def test_another_config(run, override, field):
    run.call("trainer.steps=2")
    before = (run.folder / "config.textproto").read_text()
    with pytest.raises(InputError, match="another model or optimizer") as error:
        run.call("trainer.steps=3", override)
    assert field in str(error.value)
    assert (run.folder / "config.textproto").read_text() == before


@pytest.fixture
def arrived(monkeypatch):
    """Weights that the network had when its trainer and optimizers were built."""
    found = []
    build = factory.build_trainer

    def record(experiment, network, categories):
        found.append([w.numpy() for w in network.weights])
        return build(experiment, network, categories)

    monkeypatch.setattr(factory, "build_trainer", record)
    return found


def test_initial_checkpoint(run, arrived, tiny, tmp_path, capsys):
    source = tiny.build(seed=9)
    prefix = RunCheckpoints(tmp_path / "other", source, keep=1).save(5)
    override = f'trainer.initial_checkpoint="{tmp_path / "other"}"'
    run.call(override, "trainer.steps=2", smoke=True)
    assert not run.folder.exists()
    run.call(override, "trainer.steps=2")
    for weights in arrived:
        for ours, theirs in zip(weights, source.network.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len(arrived) == 2
    shown = capsys.readouterr().err
    assert shown.count(f"initial weights from {prefix} (cmt): 5 variables, 100%") == 2
    report = json.loads((run.folder / "initial_weights.json").read_text())
    assert report["share"] == report["backbone_share"] == 1.0

    shutil.rmtree(tmp_path / "other")
    assert run.call(override, "trainer.steps=4", new_schedule=True).step == 4
    shown = capsys.readouterr().err
    assert "continues at step 2" in shown and "initial weights" not in shown


def test_refused_initial_checkpoints(run, tiny, tmp_path, capsys):
    with pytest.raises(InputError, match="there is no checkpoint .*nowhere"):
        run.call('trainer.initial_checkpoint="nowhere"')
    headless = tf.Module()
    headless.backbone = tf.Module()
    headless.head = tiny.build(seed=9).network.head
    prefix = tf.train.Checkpoint(model=headless).write(str(tmp_path / "head"))
    override = f'trainer.initial_checkpoint="{prefix}"'
    with pytest.raises(InputError, match="holds 0% of the backbone's parameters"):
        run.call(override)
    assert not run.folder.exists()
    run.call(override, "trainer.allow_partial_backbone=true", "trainer.steps=1")
    assert "0% of the backbone's" in capsys.readouterr().err


def test_other_categories(run):
    run.call("trainer.steps=2")
    others = list(run.split.categories)
    others[3] = Category(9, "hat", True, (0, 0, 0))
    run.split.categories = others
    expected = r"number 4 is 'c4' \(id 4, thing\) there and 'hat' \(id 9, thing\)"
    with pytest.raises(InputError, match=expected):
        run.call("trainer.steps=4", new_schedule=True)


def test_category_ids_too_large_for_predictions(run):
    run.split.categories = [Category(16778, "hat", True, (0, 0, 0))]
    with pytest.raises(InputError, match="'hat' must be from 1 to 16777"):
        run.call("model.num_classes=1")
    with pytest.raises(InputError, match="got 10 and 1"):
        run.call()
    assert not run.folder.exists()


def test_output_is_a_file(run):
    run.folder.write_text("")
    with pytest.raises(InputError, match="is a file"):
        run.call()


def test_stops_on_a_loss_that_is_not_finite(run):
    run.options["bad_step"] = 4
    with pytest.raises(WorkError) as error:
        run.call("trainer.steps=20")
    message = str(error.value)
    assert message.startswith(
        "training stopped at step 6: step 5 has values that are not finite: squared is "
        "nan, absolute is nan; "
    )
    prefix = run.folder / "checkpoints" / "step-4"
    assert f"{prefix} holds the last good state, step 4" in message
    assert "\n" not in message
    assert [line["step"] for line in run.lines()] == [2, 4]
    names = {p.name for p in (run.folder / "checkpoints").glob("*.index")}
    assert names == {"step-3.index", "step-4.index"}

    run.options["bad_step"] = -1
    assert run.call("trainer.steps=6", new_schedule=True).step == 6
    assert [line["step"] for line in run.lines()] == [2, 4, 6]


def test_the_first_step_is_bad(run):
    run.options["bad_step"] = 0
    with pytest.raises(WorkError, match=r"step 1 has .*step-0 holds the last good"):
        run.call("trainer.steps=20")
    assert run.lines() == []
    run.options["bad_step"] = -1
    assert run.call("trainer.steps=2").step == 2


def test_the_last_good_state_cannot_be_written(run, monkeypatch):
    def fail(self, step, **_):
        raise WorkError(f"step {step} cannot be written")

    monkeypatch.setattr(RunCheckpoints, "save", fail)
    run.options["bad_step"] = 1
    with pytest.raises(WorkError, match=r"squared is nan.*step 1, is lost: step 1 can"):
        run.call("trainer.steps=20")


def test_images_that_cannot_be_named_lose_nothing(run, monkeypatch):
    describe = NotFinite.describe

    def fail_on_names(self, image_names=None):
        if image_names is not None:
            raise InputError("the shards are gone")
        return describe(self)

    monkeypatch.setattr(NotFinite, "describe", fail_on_names)
    run.options["bad_step"] = 5
    with pytest.raises(WorkError, match="step 6 .*squared is nan.*last good state"):
        run.call("trainer.steps=20")
    assert (run.folder / "checkpoints/step-5.index").is_file()


def test_not_finite_on_the_command_line(run, capsys):
    run.options["bad_step"] = 4
    settings = ("trainer.steps=9", "trainer.global_batch_size=4")
    settings = (*settings, "trainer.learning_rate.warmup_steps=0")
    options = [part for each in settings for part in ("--set", each)]
    with pytest.raises(SystemExit) as caught:
        main(["train", "scenes/tiny", "--output", str(run.folder), *options])
    assert caught.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "step 5 has values that are not finite: squared is nan" in last
    assert (run.folder / "checkpoints" / "step-4.index").is_file()


def test_metrics_are_json_whatever_happens(run):
    run.options["evaluation"] = lambda step: {"total": float("inf"), "pq": 50.0}
    run.call("trainer.steps=2", "trainer.evaluate_every_steps=2",
             'data.validation.tfrecords="x"')  # fmt: skip

    def refuse(name):
        raise AssertionError(name)

    (line,) = (run.folder / "metrics.jsonl").read_text().splitlines()
    line = json.loads(line, parse_constant=refuse)
    assert line["validation/total"] is None and line["validation/pq"] == 50.0


def test_the_loss_knows_which_classes_are_things(tiny):
    categories = [Category(i, f"c{i}", i % 3 == 0, (i, 0, 0)) for i in range(1, 11)]
    experiment = load_experiment("scenes/tiny")
    trainer = factory.build_trainer(experiment, tiny.build_network(), categories)
    assert list(trainer.objective.is_thing) == [i % 3 == 0 for i in range(1, 11)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_writes_a_checkpoint(run, number, monkeypatch):
    class SendSignal(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                os.kill(os.getpid(), number)

    fit = tf_keras.Model.fit

    def fit_and_signal(self, *arguments, callbacks, **keywords):
        callbacks.append(SendSignal())
        return fit(self, *arguments, callbacks=callbacks, **keywords)

    monkeypatch.setattr(tf_keras.Model, "fit", fit_and_signal)
    before = signal.getsignal(number)
    summary = run.call("trainer.steps=50")
    assert (summary.step, summary.signal) == (4, signal.Signals(number).name)
    assert summary.checkpoint.endswith("step-4")
    assert signal.getsignal(number) is before


def test_smoke_leaves_nothing(run):
    seen = []
    run.options["evaluation"] = lambda step: seen.append(step) or {"total": 1.0}
    summary = run.call('data.validation.tfrecords="x"', smoke=True)
    assert summary.step == 2 and seen == [2]
    assert list(run.folder.parent.iterdir()) == []


def test_batch_and_replicas(run):
    experiment = load_experiment("scenes/tiny", ["trainer.global_batch_size=8"])
    from cmt import config

    with pytest.raises(InputError, match=r"8.*divisible.*3; use 6 or 9"):
        config.check(experiment, num_replicas=3)
