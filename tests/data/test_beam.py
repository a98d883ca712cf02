"""The conversion as an Apache Beam pipeline, on its local runner."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pathlib
import re
import sys

import pytest
from typer.testing import CliRunner

from cmt.cli.data import app
from cmt.data.convert.beam import beam_maker
from cmt.data.convert.shards import write_shard
from cmt.errors import InputError, WorkError
from tests.data.conversions import convert

pytestmark = pytest.mark.check
needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="NOT VERIFIED: Apache Beam is not installed; pip install '.[beam]'",
)
# Left alone the DirectRunner fetches Prism, a program of Beam's, over the network.
DIRECT = "--runner=DirectRunner --prism_location=none"
PROCESSES = "--direct_running_mode=multi_processing --direct_num_workers=2"


def listing(folder: pathlib.Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def run(sources: dict, output: pathlib.Path, *options: object, beam: str = DIRECT):
    paths = [part for name, path in sources.items() for part in (f"--{name}", path)]
    arguments = ["convert", *paths, "--split", "val", "--output", output, *options]
    return CliRunner().invoke(app, [str(a) for a in (*arguments, "--beam", beam)])


@needs_beam
def test_a_pipeline_writes_the_same_files(broken, tmp_path):
    convert(**broken, output=tmp_path / "plain", split="val", shards=3, workers=1)
    output = tmp_path / "beam"
    result = run(broken, output, "--shards", 3)
    assert result.exit_code == 0, result.output
    assert listing(output) == listing(tmp_path / "plain")
    # A shard that is lost is the only one made again.
    kept = output / "val-00000-of-00003.tfrecord"
    before = kept.stat().st_mtime_ns
    (output / "val-00002-of-00003.tfrecord").unlink()
    result = run(broken, output, "--shards", 3, "--resume")
    assert result.exit_code == 0, result.output
    assert listing(output) == listing(tmp_path / "plain")
    assert kept.stat().st_mtime_ns == before


@needs_beam
def test_processes_of_a_pipeline_write_the_same_files(broken, tmp_path, monkeypatch):
    """Everything goes to them as bytes, and paths do not depend on where they run."""
    convert(**broken, output=tmp_path / "plain", split="val", shards=3, workers=1)
    monkeypatch.chdir(tmp_path)
    relative = {name: path.relative_to(tmp_path) for name, path in broken.items()}
    options = f"{DIRECT} {PROCESSES}"
    result = run(relative, pathlib.Path("beam"), "--shards", 3, beam=options)
    assert result.exit_code == 0, result.output
    assert listing(tmp_path / "beam") == listing(tmp_path / "plain")


@needs_beam
def test_faults_of_a_pipeline(broken, tmp_path):
    for number in (2, 5):
        (broken["images"] / f"00000000000{number}.jpg").write_bytes(b"no")
    output = tmp_path / "beam"
    for max_bad in (0, 1):
        options = ("--shards", 3, "--max-bad", max_bad, "--overwrite")
        result = run(broken, output, *options)
        assert isinstance(result.exception, InputError)
        assert ".jpg: cannot be read: " in str(result.exception)
        assert not list(output.glob("*.tfrecord"))
    # No shard has more than one fault; that there are too many is seen at the end.
    assert "(1 image with faults before it)" in str(result.exception)
    assert len(list(output.glob(".val.partial/*.tfrecord"))) == 3
    assert not (output / "val.manifest.json").exists()
    result = run(broken, output, "--shards", 3, "--max-bad", 2, "--resume")
    assert result.exit_code == 0, result.output
    plain = tmp_path / "plain"
    convert(**broken, output=plain, split="val", shards=3, workers=1, max_bad=2)
    assert listing(output) == listing(plain)


@needs_beam
def test_a_pipeline_that_fails_is_one_error_and_goes_on(broken, tmp_path, monkeypatch):
    output = tmp_path / "beam"

    def write(path, *_):
        if "00001-of" in path:
            raise OSError(28, "No space left on device", path)
        return write_shard(path, *_)

    monkeypatch.setattr("cmt.data.convert.beam.write_shard", write)
    result = run(broken, output, "--shards", 3)
    assert isinstance(result.exception, WorkError)
    assert "No space left on device" in str(result.exception)
    assert "--resume" in str(result.exception)
    assert "\n" not in str(result.exception)
    monkeypatch.undo()
    result = run(broken, output, "--shards", 3, "--resume")
    assert result.exit_code == 0, result.output
    convert(**broken, output=tmp_path / "plain", split="val", shards=3, workers=1)
    assert listing(output) == listing(tmp_path / "plain")


@needs_beam
def test_a_shard_of_an_earlier_run_is_not_taken_for_this_ones(
    broken, tmp_path, monkeypatch
):
    output = tmp_path / "beam"
    (broken["images"] / "000000000005.jpg").write_bytes(b"no")
    run(broken, output, "--shards", 3)
    kept = output / ".val.partial" / "val-00000-of-00003.tfrecord"
    assert kept.is_file()
    # Its images change, and the next pipeline ends well but without making it.
    for image in broken["images"].iterdir():
        os.utime(image, (1, 1))
    monkeypatch.setattr("cmt.data.convert.beam.write_shard", lambda *_: None)
    result = run(broken, output, "--shards", 3, "--max-bad", 1, "--resume")
    assert isinstance(result.exception, WorkError)
    assert "val-00000-of-00003.tfrecord: the pipeline ended without this shard" in str(
        result.exception
    )
    assert not (output / "val.manifest.json").exists()


@needs_beam
@pytest.mark.parametrize(
    ("beam", "message"),
    [
        ("--runer=DirectRunner", "--beam must name a runner; got '--runer=Direct"),
        ("--runner=Nonsense", r"Unexpected pipeline runner: Nonsense.*options of"),
        ('--runner="Foo', r"--beam must hold options.*No closing quotation.*close"),
        (f"{DIRECT} --direct_num_workers=two", "--direct_num_workers: invalid int"),
        ("--runner=DataflowRunner", "workers of DataflowRunner cannot reach a folder"),
    ],
)
def test_options_of_a_pipeline_that_cannot_be_used(broken, tmp_path, beam, message):
    result = run(broken, tmp_path / "beam", beam=beam)
    assert isinstance(result.exception, InputError)
    assert re.search(message, str(result.exception))
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "beam").exists()


@needs_beam
def test_processes_of_this_machine_are_not_those_of_a_pipeline(broken, tmp_path):
    result = run(broken, tmp_path / "beam", "--workers", 2)
    assert isinstance(result.exception, InputError)
    assert "--workers 2 does not go with --beam" in str(result.exception)
    assert not (tmp_path / "beam").exists()


def test_without_beam_there_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(InputError, match=r"pip install 'cmt-deeplab\[beam\]'"):
        beam_maker("")
