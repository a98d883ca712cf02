"""Conversions that are stopped say, as the last line, how to go on."""

from __future__ import annotations

import errno
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from cmt.cli import main as front
from cmt.data.convert import convert as convert_module
from cmt.data.convert import shards as shards_module
from cmt.errors import WorkError
from tests.data.conversions import convert

# Does as `cmt`, but stays at an image, and makes a file when it is there.
_SLOW = """
import pathlib, sys, time
from cmt.data.convert import convert
plain = convert.encode_image
def slow(encoding, entry):
    if entry.image_id == int(sys.argv[1]):
        pathlib.Path(sys.argv[2]).touch()
        time.sleep(60)
    return plain(encoding, entry)
convert.encode_image = slow
convert._CHUNK_IMAGES = 1
from cmt.cli.main import main
main(sys.argv[3:])
"""


def arguments(sources: dict, output: pathlib.Path, *more: str) -> list[str]:
    paths = [part for name, path in sources.items() for part in (f"--{name}", path)]
    options = ["--output", output, "--split", "val", "--shards", 3, "--workers", 1]
    return [str(part) for part in ("data", "convert", *paths, *options, *more)]


def run(capsys, words: list[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        front.main(words)
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
@pytest.mark.parametrize(("image", "overwrite"), [(1, False), (5, False), (5, True)])
def test_signals(broken, tmp_path, capsys, number, code, image, overwrite):
    output, here = tmp_path / "out", tmp_path / "here"
    more = ["--overwrite"] if overwrite else []
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, str(image), here]
        + arguments(broken, output, *more),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not here.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    lines = process.communicate(timeout=30)[1].splitlines()
    assert process.returncode == code
    assert "Traceback" not in "".join(lines)
    if image == 1:
        assert lines[-1] == (
            "stopped: this run finished no shard; run the same command again"
        )
        assert not output.exists()
        assert run(capsys, arguments(broken, output))[0] == 0
        return
    instead = " in place of --overwrite" if overwrite else ""
    assert lines[-1] == (
        "stopped: finished shards are kept; run the same command with "
        f"--resume{instead} to go on"
    )
    code, out, _ = run(capsys, arguments(broken, output, "--resume"))
    assert code == 0
    assert "6 images in 3 shards" in out and "of which 2 were there" in out


def test_afterwards_sigterm_is_what_it_was(broken, tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    run(capsys, arguments(broken, tmp_path / "out"))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_full_disk(broken, tmp_path, capsys, monkeypatch):
    output, plain = tmp_path / "out", shards_module.atomic_write

    def writing(path):
        if "00002-of" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return plain(path)

    monkeypatch.setattr(shards_module, "atomic_write", writing)
    code, _, err = run(capsys, arguments(broken, output))
    assert code == 1
    last = err.splitlines()[-1]
    assert last.startswith("error: no space left on the disk of ")
    assert last.endswith("; finished shards are kept for --resume")
    monkeypatch.undo()
    assert run(capsys, arguments(broken, output, "--resume"))[0] == 0


@pytest.mark.parametrize("image", [1, 5])
def test_a_worker_that_dies(broken, tmp_path, monkeypatch, image):
    """`test_parallel` has one that does; here it is what conversion makes of it."""

    def dies(function, items, **options):
        for item in items:
            if item.image_id == image:
                raise WorkError("a worker process died")
            yield function(item)

    monkeypatch.setattr(convert_module, "parallel_map", dies)
    output = tmp_path / "out"
    with pytest.raises(WorkError) as caught:
        convert(**broken, output=output, split="val", shards=3)
    kept = "; finished shards are kept for --resume" if image == 5 else ""
    assert str(caught.value) == f"a worker process died{kept}"
    assert output.exists() is (image == 5)
