"""What TensorFlow says while it starts stays off the terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cmt.cli import quiet

NOISE = "I0000 port.cc:153] oneDNN custom operations are on"


def run(tmp_path, program: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs a program of a process whose `tensorflow` is what is in `tmp_path`."""
    # The library writes past Python, before it reads the level it should keep to.
    noise = f"import os\nos.write(2, {(NOISE + os.linesep).encode()!r})\n"
    module = tmp_path / "tensorflow.py"
    module.write_text(noise + environment.pop("then", "") + "\nvalue = 7\n")
    inherited = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    start += "from cmt.cli.quiet import quiet_tensorflow\nquiet_tensorflow()\n"
    return subprocess.run(
        [sys.executable, "-c", start + program],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
    )


def test_messages_of_the_import_are_withheld_and_later_ones_are_not(tmp_path):
    done = run(
        tmp_path,
        "import os, tensorflow\nprint(tensorflow.value, tensorflow.__name__)\n"
        "os.write(2, b'later\\n'); print('said', file=sys.stderr)",
    )
    assert (done.stdout, done.stderr) == ("7 tensorflow\n", "later\nsaid\n")


def test_an_import_that_fails_shows_all_it_said(tmp_path):
    done = run(tmp_path, "import tensorflow", then="raise ImportError('no libcudart')")
    assert done.returncode == 1
    assert done.stderr.startswith(NOISE)
    assert done.stderr.endswith("ImportError: no libcudart\n")


def test_the_import_does_not_see_jax_and_later_ones_do(tmp_path):
    (tmp_path / "jax.py").write_text("")
    done = run(
        tmp_path,
        "import tensorflow; print(tensorflow.seen); import jax; print(jax.__name__)",
        then="try:\n import jax; seen = True\nexcept ImportError:\n seen = False",
    )
    assert (done.stdout, done.stderr) == ("False\njax\n", "")


@pytest.mark.parametrize(("level", "said"), [("0", f"{NOISE}\n"), ("2", "")])
def test_a_level_of_the_user_is_kept(tmp_path, level, said):
    program = "import os, tensorflow; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    done = run(tmp_path, program, TF_CPP_MIN_LOG_LEVEL=level)
    assert (done.stdout, done.stderr) == (f"{level}\n", said)


def test_other_processes_are_told_the_level(monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    before = [f for f in sys.meta_path if not isinstance(f, quiet._QuietImport)]
    monkeypatch.setattr(sys, "meta_path", list(before))
    for _ in range(2):
        quiet.quiet_tensorflow()
        assert sys.meta_path[1:] == before
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    assert sys.meta_path[0].find_spec("tensorflow_nothing", None) is None


@pytest.mark.check
def test_no_message_of_tensorflow_reaches_the_terminal():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-m", "cmt", "model", "summary", "scenes/tiny"]
        + ["--size", "33x33", "--set", "model.backbone.stage3_blocks=1"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for word in ("0000 ", "oneDNN", "cuda_", "cpu_feature_guard", "absl::", "TF-TRT"):
        assert word not in done.stderr
