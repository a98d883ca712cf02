"""Which ways to load records go together, and services that are not there."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
import tensorflow as tf

from cmt.config import parse_experiment
from cmt.data.input import service
from cmt.data.input.open import Data
from cmt.data.input.service import distribute
from cmt.errors import InputError
from cmt.protos import data_pb2


@pytest.mark.parametrize(
    ("field", "value"), [("service", "grpc://localhost:1"), ("snapshot_folder", "snap")]
)
def test_a_cache_stands_alone(shards, tmp_path, monkeypatch, field, value):
    monkeypatch.chdir(tmp_path)
    cached = "data.cache_records=true"
    rule = f"data.cache_records = true .* cannot be used with data.{field} = .*{value}"
    with pytest.raises(InputError, match=rule):
        parse_experiment("", "x", [cached, f'data.{field}="{value}"'])
    parse_experiment("", "x", [cached])
    parse_experiment("", "x", [f'data.{field}="{value}"'])

    train = data_pb2.DatasetConfig(tfrecords=str(shards / "train-*.tfrecord"))
    config = data_pb2.DataConfig(train=train, cache_records=True)
    setattr(config, field, value)
    with pytest.raises(InputError, match=f"cache_records.* with data.{field}"):
        Data(config).train.batches(global_batch_size=2, seed=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "address",
    [
        "localhost:5000",
        "http://localhost:5000",
        "grpc://localhost",
        "grpc://:5000",
        "grpc://localhost:port",
        "grpc://localhost:70000",
        "grpc://localhost:5000/path",
        "grpc://[::1",
    ],
)
def test_addresses_that_are_none(address):
    with pytest.raises(InputError) as error:
        distribute(tf.data.Dataset.range(3), address)
    assert f'grpc://HOST:PORT, such as "grpc://localhost:5000"; got "{address}"' in str(
        error.value
    )


@pytest.fixture
def silent() -> Iterator[str]:
    """An address whose connections nobody accepts: further ones get no answer."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        yield f"grpc://127.0.0.1:{server.getsockname()[1]}"
        for one in waiting:
            one.close()


def test_an_address_where_nobody_is():
    with socket.socket() as taken:  # but not listened on
        taken.bind(("127.0.0.1", 0))
        address = f"grpc://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError) as error:
            distribute(tf.data.Dataset.range(3), address)
    assert f"nobody answers at {address} (" in str(error.value)
    assert "start a dispatcher" in str(error.value)


def test_an_address_that_does_not_answer(silent, monkeypatch):
    monkeypatch.setattr(service, "_TIMEOUT_SECONDS", 0.5)
    begin = time.monotonic()
    with pytest.raises(InputError, match="nobody answers"):
        distribute(tf.data.Dataset.range(3), silent)
    assert time.monotonic() - begin < 5
