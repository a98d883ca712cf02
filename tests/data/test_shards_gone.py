"""Shards that are there when a run begins, and cannot be opened later."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

# In a process of its own: what never ends could not be stopped in a test.
_PROGRAM = """
import os, pathlib, sys
import tensorflow as tf
from cmt.data.input.open import Data
from cmt.errors import CmtError
from cmt.protos import data_pb2

servers = []


def try_way(way, folder):
    shard = folder / "train-00001-of-00003.tfrecord"
    pattern = str(folder / "train-*.tfrecord")
    config = data_pb2.DataConfig(train={"tfrecords": pattern}, parallel_calls=2)
    config.validation.CopyFrom(config.train)
    config.crop_height_pixels = config.crop_width_pixels = 33
    config.skip_damaged_records = way.startswith("skipping")
    if way in ("cache_records", "snapshot_folder"):
        setattr(config, way, True if way == "cache_records" else str(folder / "snap"))
    data = Data(config)

    def lose():
        # Once the data knows its records, as in the midst of a run.
        assert data.train.index and data.validation.index
        shard.rename(folder / "elsewhere")
        if way == "skipping a folder":
            shard.mkdir()

    def make(data=data):
        return data.train.batches(global_batch_size=8, seed=1).take(3)

    if way in ("cache_records", "snapshot_folder"):
        lose()
        make()
        return
    if way == "evaluation":
        dataset = data.validation.evaluation_batches(batch_size=4)
    elif way == "inspection":
        lose()
        list(data.train.examples())
        return
    elif way == "service":
        service = tf.data.experimental.service
        dispatcher = service.DispatchServer()
        config.service = dispatcher.target
        data = Data(config)
        address = dispatcher.target.partition("://")[2]
        worker = service.WorkerServer(service.WorkerConfig(dispatcher_address=address))
        # TensorFlow hangs where these end before what was read from them.
        servers.extend((dispatcher, worker))
        dataset = make(data)
    else:
        dataset = make()
    lose()
    list(dataset)


for folder in sys.argv[1:]:
    try:
        try_way(pathlib.Path(folder).name, pathlib.Path(folder))
        print("nothing", flush=True)
    except (tf.errors.OpError, CmtError) as error:
        print(type(error).__name__, str(error).replace(chr(10), " "), flush=True)
os._exit(0)
"""
_WAYS = {
    "training": "NotFoundError",
    "skipping": "NotFoundError",
    "skipping a folder": "FailedPreconditionError",
    "cache_records": "InputError",
    "snapshot_folder": "InputError",
    "evaluation": "NotFoundError",
    "inspection": "InputError",
    "service": "NotFoundError",
}


@pytest.mark.check
@pytest.mark.parametrize(
    "ways",
    [
        ["training", "cache_records", "evaluation"],
        pytest.param([*_WAYS], marks=pytest.mark.slow),
    ],
)
def test_a_shard_that_cannot_be_opened_ends_the_run(shards, tmp_path, ways):
    """It is named with the reason: converting again would not help."""
    folders = [tmp_path / way for way in ways]
    for folder in folders:
        folder.mkdir()
        for path in shards.glob("train*"):
            shutil.copy(path, folder)
    command = [sys.executable, "-c", _PROGRAM, *map(str, folders)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"hangs after: {error.stdout}") from error
    lines = done.stdout.splitlines()
    assert len(lines) == len(ways), done.stderr
    for way, line, folder in zip(ways, lines, folders, strict=True):
        assert line.startswith(_WAYS[way]), (way, line)
        assert str(folder / "train-00001-of-00003.tfrecord") in line, way
        is_folder = way == "skipping a folder"
        assert ("Is a directory" if is_folder else "No such file") in line, way
        assert "convert the split again" not in line, way
    assert "damaged and skipped" not in done.stderr
    assert not list(pathlib.Path(tmp_path).glob("snapshot_folder/snap/*/*.tfrecord"))
