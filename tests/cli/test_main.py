"""The front door: help, versions, errors as one line, exit codes."""

from __future__ import annotations

import errno
import shlex
import subprocess
import sys

import pytest
import typer

import cmt
from cmt.cli import main as front
from cmt.config import available_configs, load_experiment
from cmt.errors import InputError, WorkError


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Runs the command line in this process; returns code, stdout, stderr."""
    with pytest.raises(SystemExit) as caught:
        front.main(arguments)
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def commands(group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Returns the words of every command of a group, inner ones too."""
    found = [path] if path else []
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*path, name))
    return found


ALL = commands(typer.main.get_command(front.app))


def raising(error: BaseException):
    def app(*arguments, **keywords):
        raise error

    return app


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"cmt {cmt.__version__}\n", "")


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_help_has_an_example(words, capsys):
    code, out, _ = run(capsys, *words, "--help")
    assert code == 0
    lines = [line.strip() for line in out.splitlines()]
    assert any(line in ("Example:", "Examples:") for line in lines)
    assert any(line.startswith("cmt " + " ".join(words)) for line in lines)


@pytest.mark.parametrize(
    "line",
    [
        "train scenes/tiny --output gs://bucket/run",
        "eval scenes/tiny --checkpoint gs://bucket/run --output out",
        "eval scenes/tiny --checkpoint run --output gs://bucket/out",
        "export scenes/tiny --checkpoint gs://bucket/run --output out",
        "export scenes/tiny --checkpoint run --output gs://bucket/out",
        "predict gs://bucket/model a.jpg --output out",
        "predict model a.jpg --output gs://bucket/out",
        "demo --output gs://bucket/demo",
    ],
)
def test_no_local_folder_is_named_after_a_scheme(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, *line.split())
    assert code == 2
    assert "must be on this machine; got gs://bucket/" in error
    assert not list(tmp_path.iterdir())


def packaged_examples() -> list[tuple[str, ...]]:
    """Returns (config, overrides...) of each example with a config of the package."""
    found = set()
    for words in [(), *ALL]:
        command = typer.main.get_command(front.app)
        for word in words:
            command = command.commands[word]
        for line in command.help.replace("\\\n", " ").splitlines():
            if line.strip().startswith("cmt "):
                parts = shlex.split(line)
                after = zip(parts, parts[1:], strict=False)
                changes = [value for word, value in after if word == "--set"]
                names = set(parts) & set(available_configs())
                found |= {(name, *changes) for name in names}
    return sorted(found)


def test_configs_of_examples_are_accepted():
    examples = packaged_examples()
    assert ("scenes/tiny", "trainer.steps=200") in examples
    for name, *changes in examples:
        load_experiment(name, changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "No such command 'nothing'; see `cmt --help`"),
        (["config", "shw"], "Did you mean 'show'?; see `cmt config --help`"),
        (["config", "show"], "Missing argument 'CONFIG'; see `cmt config show --help`"),
        (
            ["config", "show", "a", "--no"],
            "No such option: --no; see `cmt config show --help`",
        ),
        (
            ["demo", "--output", "a", "--minutes", "x"],
            "; see `cmt demo --help`",
        ),
    ],
)
def test_wrong_usage_is_one_line(arguments, message, capsys):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.endswith(f"{message}\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["config"]])
def test_no_command_shows_the_help(arguments, capsys):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ")
    assert "Example" in err and "Error" not in err


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (typer.Exit(3), 3, ""),
        (typer.Exit(), 0, ""),
        (typer.Abort(), 1, "error: stopped before it was done\n"),
    ],
)
def test_exit_and_abort(raised, code, message, capsys, monkeypatch):
    monkeypatch.setattr("cmt.config.load_experiment", raising(raised))
    assert run(capsys, "config", "show", "scenes/tiny") == (code, "", message)


def test_an_input_error_is_one_line(capsys):
    code, out, err = run(capsys, "config", "show", "scenes/tny")
    assert (code, out) == (2, "")
    assert err.startswith("error: no config 'scenes/tny'")
    assert err.count("\n") == 1


@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_shows_the_traceback_at_any_place(place, capsys):
    arguments = ["config", "show", "scenes/tny"]
    arguments.insert(place, "--debug")
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "Traceback" in err
    assert "in load_experiment" in err
    assert err.splitlines()[-1].startswith("error: no config 'scenes/tny'")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("a\n  b"), 2, "a b"),
        (WorkError("loss is not finite"), 1, "loss is not finite"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"),
            1,
            "no space left on the disk of runs/x; free some and run again",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "no space left on the disk of a file; free some and run again",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            2,
            "no permission for /x (Permission denied); change its mode or choose"
            " another path",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", b"x.json"),
            2,
            "x.json does not exist; check the path",
        ),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "x"),
            2,
            "x: Not a directory; check the path",
        ),
        (OSError("cannot identify image file"), 2, "cannot identify image file"),
        (
            ValueError("shapes\nand a graph"),
            1,
            "ValueError: shapes; run with --debug for the traceback",
        ),
        (
            MemoryError(),
            1,
            "MemoryError: no message; run with --debug for the traceback",
        ),
    ],
)
def test_errors_become_one_line_and_a_code(error, code, message, capsys, monkeypatch):
    monkeypatch.setattr(front, "app", raising(error))
    assert run(capsys, "config") == (code, "", f"error: {message}\n")


def test_an_interrupt_ends_with_130(capsys, monkeypatch):
    monkeypatch.setattr("cmt.config.load_experiment", raising(KeyboardInterrupt()))
    code, _, err = run(capsys, "config", "show", "scenes/tiny")
    assert code == 130
    assert "Traceback" not in err


def test_a_closed_pipe_is_no_traceback():
    program = f"{sys.executable} -m cmt config show scenes/tiny | head -n 1"
    done = subprocess.run(program, shell=True, capture_output=True, text=True)
    assert done.stdout == 'name: "tiny"\n'
    assert "Traceback" not in done.stderr


def test_main_prepares_tensorflow(monkeypatch, capsys):
    for name in ("TF_USE_LEGACY_KERAS", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    run(capsys, "--version")
    import os

    assert os.environ["TF_USE_LEGACY_KERAS"] == "1"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"


@pytest.mark.parametrize(
    ("words", "position", "expected"),
    [
        ("cmt expo", 1, ["export"]),
        ("cmt train --se", 2, ["--set", "--seed"]),
        ("cmt config show scenes/ti", 3, ["scenes/tiny"]),
        ("cmt eval coco/cmt_deeplab_axial_r50_6", 2, None),
    ],
)
def test_a_shell_completes_commands_options_and_configs(
    words, position, expected, capsys, monkeypatch
):
    monkeypatch.setenv("_CMT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(position))
    start = "coco/cmt_deeplab_axial_r50_6"
    expected = expected or [n for n in available_configs() if n.startswith(start)]
    assert run(capsys) == (0, "\n".join(expected) + "\n", "")
