"""What users of other programs type is answered with the line to type here."""

from __future__ import annotations

import shlex

import pytest

from cmt import textproto
from cmt.cli import habits
from cmt.cli.main import main
from cmt.config import load_experiment
from cmt.protos import experiment_pb2

BATCH, RATE = "trainer.global_batch_size", "trainer.learning_rate.base"
KIND = "trainer.strategy.kind"


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize(
    ("typed", "before", "after"),
    [
        ("--batch 8", "", f"--set {BATCH}=8"),
        ("--batch-size=8 --smoke", "", f"--set {BATCH}=8 --smoke"),
        ("-b 8 --lr 0.01", "", f"--set {BATCH}=8 --set {RATE}=0.01"),
        ("--learning_rate 1e-4", "", f"--set {RATE}=1e-4"),
        ("lr=0.1 trainer.seed=3", "", f"--set {RATE}=0.1 --set trainer.seed=3"),
        ("trainer.stepz=3", "", "--set trainer.stepz=3"),
        ("trainer.strategy=mirrored", "", f"--set {KIND}=MIRRORED"),
        ("--device cpu", "CUDA_VISIBLE_DEVICES=-1 ", f"--set {KIND}=ONE_DEVICE"),
        ("--device cuda:1", "CUDA_VISIBLE_DEVICES=1 ", f"--set {KIND}=ONE_DEVICE"),
        ("--device 0,2", "CUDA_VISIBLE_DEVICES=0,2 ", f"--set {KIND}=MIRRORED"),
        ("--device gpu", "", f"--set {KIND}=ONE_DEVICE"),
        ("--device tpu", "", f"--set {KIND}=TPU"),
        ("--gpus 4", "", f"--set {KIND}=MIRRORED"),
        ("--gpus 1", "", f"--set {KIND}=ONE_DEVICE"),
        ("--epochs 12", "", "--set trainer.steps=..."),
        ("--steps 12", "", "--set trainer.steps=12"),
        ("--steps many", "", "--set trainer.steps=..."),
        ("--num-classes 12", "", "--set model.num_classes=12"),
        ("--trainer.steps 12", "", "--set trainer.steps=12"),
        ("--optimizer adamw", "", "--set trainer.optimizer.kind=ADAMW"),
        ("--optimizer sgd", "", "--set trainer.optimizer.kind=..."),
        ("--amp --resume", "", "--set model.precision=MIXED_BFLOAT16"),
        ("--weights 'a b'", "", "--set 'trainer.initial_checkpoint=a b'"),
        (
            "--imgsz 640",
            "",
            "--set data.crop_height_pixels=641 --set data.crop_width_pixels=641",
        ),
    ],
)
def test_the_line_to_type(typed, before, after, capsys):
    start = "train scenes/tiny --output runs/x"
    code, out, err = run(capsys, *shlex.split(f"{start} {typed}"))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert err.endswith(f"; type: {before}cmt {start} {after}\n")


def test_the_field_is_named_and_said_what_it_is(capsys):
    for typed, told in (
        ("--batch 8", f"--batch means {BATCH} (over all devices); type: "),
        ("--resume", "there is no --resume: the same command continues the run that"),
        ("trainer.seed=3", "trainer.seed is set with --set; type: "),
    ):
        _, _, err = run(capsys, "train", "scenes/tiny", "--output", "x", *typed.split())
        assert err.startswith(f"error: {told}")


def test_a_flag_takes_no_word_from_the_config(capsys):
    _, _, err = run(capsys, "train", "--amp", "scenes/tiny", "--output", "x")
    changed = "--set model.precision=MIXED_BFLOAT16"
    assert err.endswith(f"; type: cmt train {changed} scenes/tiny --output x\n")


def test_every_command_that_takes_changes_explains_them(capsys):
    _, _, err = run(capsys, "config", "show", "scenes/tiny", "trainer.steps=700")
    typed = "cmt config show scenes/tiny --set trainer.steps=700"
    assert err.endswith(f"; type: {typed}\n")
    assert run(capsys, *typed.split()[1:])[0] == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train scenes/tiny --output x --nothing 3", "No such option: --nothing"),
        ("train scenes/tiny other --output x", "unexpected extra argument"),
        ("train scenes/tiny --set", "'--set' requires an argument"),
        ("score --batch 3", "No such option: --batch"),
    ],
)
def test_other_wrong_usage_is_told_as_before(line, message, capsys):
    code, _, err = run(capsys, *line.split())
    assert code == 2
    assert message in err
    assert "type:" not in err


def test_every_habit_names_a_field_that_exists():
    leaves = dict(textproto.leaf_paths(experiment_pb2.ExperimentConfig.DESCRIPTOR))
    named = {f for fields, _ in habits._MEANT.values() for f in fields.split()}
    assert len(named) > 8
    assert named <= set(leaves)


@pytest.mark.parametrize(
    ("change", "meant"),
    [
        ("trainer.strategy=MIRRORED", "trainer.strategy.kind=MIRRORED"),
        ("trainer.optimizer=adamw", "trainer.optimizer.kind=ADAMW"),
        ("trainer.learning_rate=0.1", "trainer.learning_rate.base=0.1"),
    ],
)
def test_a_message_that_is_set_names_the_field_meant(change, meant, capsys):
    code, _, err = run(capsys, "config", "show", "scenes/tiny", "--set", change)
    assert code == 2
    assert f"is a message; did you mean --set {meant}? Or set one of: " in err
    load_experiment("scenes/tiny", [meant])


@pytest.mark.parametrize("change", ["model.backbone=50", "trainer.strategy=fast"])
def test_a_message_is_not_guessed_at(change, capsys):
    code, _, err = run(capsys, "config", "show", "scenes/tiny", "--set", change)
    assert code == 2
    assert "is a message; set one of: " in err


@pytest.mark.parametrize(
    ("typed", "before", "after"),
    [
        ("--set lr=0.1", "", f"--set {RATE}=0.1"),
        ("--set=batch=8 --smoke", "", f"--set {BATCH}=8 --smoke"),
        ("--set batch-size=8", "", f"--set {BATCH}=8"),
        (
            "--set trainer.seed=3 --set bs=8",
            "",
            f"--set trainer.seed=3 --set {BATCH}=8",
        ),
        ("--set trainer.lr=0.1 --smoke", "", f"--set {RATE}=0.1 --smoke"),
        ("--set optim=sgdx", "", "--set trainer.optimizer.kind=..."),
        ("--set epochs=3", "", "--set trainer.steps=..."),
        ("--set device=0,1", "CUDA_VISIBLE_DEVICES=0,1 ", f"--set {KIND}=MIRRORED"),
    ],
)
def test_a_habit_that_is_set_is_answered_as_an_option_is(typed, before, after, capsys):
    start = "train scenes/tiny --output runs/x"
    code, out, err = run(capsys, *shlex.split(f"{start} {typed}"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert " means trainer." in err
    assert err.endswith(f"; type: {before}cmt {start} {after}\n")


def test_a_habit_that_is_no_field_stays_what_it_is(capsys):
    _, _, err = run(capsys, "config", "show", "scenes/tiny", "--set", "resume=true")
    assert err.startswith("error: there is no resume: the same command continues the")
    assert err.endswith("; type: cmt config show scenes/tiny\n")
    _, _, err = run(capsys, "config", "show", "scenes/tiny", "--set", "fruit=3")
    assert "ExperimentConfig has no field 'fruit'; choose from: name, model" in err


def test_a_change_in_the_place_of_the_config(capsys):
    code, _, err = run(capsys, "train", "trainer.steps=5", "--output", "x")
    assert code == 2
    assert err.endswith("give the config first: CONFIG --set trainer.steps=5\n")


@pytest.mark.parametrize(
    ("change", "meant"),
    [
        ("batch_size=8", "evaluation.batch_size' or 'trainer.global_batch_size"),
        ("global_batch=8", "trainer.global_batch_size"),
        ("seed=8", "trainer.seed"),
        ("trainer.num_class=8", "model.num_classes"),
    ],
)
def test_a_field_of_another_message_is_found(change, meant, capsys):
    code, _, err = run(capsys, "config", "show", "scenes/tiny", "--set", change)
    assert code == 2
    assert err.endswith(f"; did you mean '{meant}'?\n")
