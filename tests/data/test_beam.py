"""The conversion as an Apache Beam pipeline, on its local runner."""

from __future__ import annotations

import hashlib
import importlib.util
import pathlib
import sys

import pytest
from typer.testing import CliRunner

from cmt.cli.data import app
from cmt.data.beam import beam_maker
from cmt.data.convert import convert
from cmt.errors import InputError

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="NOT VERIFIED: Apache Beam is not installed; pip install '.[beam]'",
)


def listing(folder: pathlib.Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def run(sources: dict, output: pathlib.Path, *options: object):
    paths = [part for name, path in sources.items() for part in (f"--{name}", path)]
    arguments = ["convert", *paths, "--split", "val", "--output", output, *options]
    beam = ("--beam", "--runner=DirectRunner")
    return CliRunner().invoke(app, [str(a) for a in (*arguments, *beam)])


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
def test_faults_of_a_pipeline(broken, tmp_path):
    for number in (2, 5):
        (broken["images"] / f"00000000000{number}.jpg").write_bytes(b"no")
    output = tmp_path / "beam"
    for max_bad in (0, 1):
        result = run(broken, output, "--shards", 3, "--max-bad", max_bad)
        assert isinstance(result.exception, InputError)
        assert ".jpg: cannot be read as an image" in str(result.exception)
        assert not list(output.glob("*.tfrecord"))
    result = run(broken, output, "--shards", 3, "--max-bad", 2, "--resume")
    assert result.exit_code == 0, result.output
    plain = tmp_path / "plain"
    convert(**broken, output=plain, split="val", shards=3, workers=1, max_bad=2)
    assert listing(output) == listing(plain)


def test_without_beam_there_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(InputError, match=r"pip install 'cmt-deeplab\[beam\]'"):
        beam_maker([])
