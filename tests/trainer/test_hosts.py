"""Several hosts: each reads its own part of every step."""

from __future__ import annotations

import functools
import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from cmt.config import load_experiment, parse_experiment
from cmt.data.input.open import Data
from cmt.data.panoptic.categories import Category
from cmt.data.scenes.generate import generate_scenes
from cmt.protos import experiment_pb2
from cmt.trainer import factory, strategy
from cmt.trainer import train as train_module
from cmt.trainer.train import train
from tests.data.conversions import convert

_BATCH, _STEPS, _REPLICAS = 8, 3, 4


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> experiment_pb2.ExperimentConfig:
    folder = tmp_path_factory.mktemp("hosts")
    generate_scenes(folder, train=12, val=0, size=65, seed=3, workers=1)
    convert(
        images=folder / "images" / "train",
        annotations=folder / "annotations" / "panoptic_train.json",
        masks=folder / "annotations" / "panoptic_train",
        output=folder / "out",
        split="train",
        shards=2,
        workers=1,
    )
    experiment = parse_experiment(
        "", "defaults", [f"trainer.global_batch_size={_BATCH}"]
    )
    experiment.data.train.tfrecords = f"{folder}/out/train-*.tfrecord"
    experiment.data.validation.CopyFrom(experiment.data.train)
    experiment.data.crop_height_pixels = experiment.data.crop_width_pixels = 33
    experiment.data.augmentation.copy_paste.probability = 0.5
    return experiment


class Hosts:
    """What `dataset_of_hosts` needs of a strategy with two hosts of two devices."""

    def __init__(self, hosts: int = 2):
        names = [
            f"/job:worker/replica:0/task:{task}/device:TPU:{device}"
            for task in range(hosts)
            for device in range(_REPLICAS // hosts)
        ]
        self.extended = types.SimpleNamespace(worker_devices=tuple(names))
        self.num_replicas_in_sync = _REPLICAS
        self._hosts = hosts

    def distribute_datasets_from_function(self, make) -> list[tf.data.Dataset]:
        return [
            make(tf.distribute.InputContext(self._hosts, host, _REPLICAS))
            for host in range(self._hosts)
        ]


def arrays(dataset: tf.data.Dataset, count: int) -> list[list[np.ndarray]]:
    return [[p.numpy() for p in tf.nest.flatten(b)] for b in dataset.take(count)]


@pytest.mark.parametrize(
    ("kind", "first_step"),
    [
        pytest.param("training", 0, marks=pytest.mark.slow),
        pytest.param("training", 5, marks=pytest.mark.slow),
        ("validation", 5),
    ],
)
def test_hosts_together_read_the_steps_of_one(experiment, kind, first_step):
    data = Data(experiment.data)
    split = data.train if kind == "training" else data.validation
    make = functools.partial(
        split.batches, global_batch_size=_BATCH, seed=1, first_step=first_step
    )
    whole = arrays(make(), _STEPS)
    parts = strategy.dataset_of_hosts(Hosts(), make)
    per_host = _REPLICAS // 2
    read = [arrays(part, _STEPS * per_host) for part in parts]
    for step in range(_STEPS):
        places = range(step * per_host, (step + 1) * per_host)
        batches = [host[place] for host in read for place in places]
        assert all(len(batch[0]) == _BATCH // _REPLICAS for batch in batches)
        joined = [np.concatenate(part) for part in zip(*batches, strict=True)]
        for part, expected in zip(joined, whole[step], strict=True):
            np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize(
    "distribution",
    [
        Hosts(1),
        tf.distribute.OneDeviceStrategy("CPU:0"),
        tf.distribute.MirroredStrategy(["CPU:0"]),
        tf.distribute.get_strategy(),
    ],
)
def test_one_host_reads_whole_steps(distribution):
    made = []

    def make(**options):
        made.append(options)
        return "whole"

    assert strategy.dataset_of_hosts(distribution, make) == "whole"
    assert made == [{}]


_FIT = """
import importlib.util, sys
import numpy as np, tensorflow as tf

spec = importlib.util.spec_from_file_location("tiny", sys.argv[1])
tiny = importlib.util.module_from_spec(spec)
from cmt.trainer import strategy

mirrored = strategy.build_strategy("MIRRORED", logical_cpus=2)
spec.loader.exec_module(tiny)

def make(input_context=None):
    data = tiny.data(first_step=2)
    if input_context is None:
        return data
    size = input_context.get_per_replica_batch_size(4)
    return data.unbatch().batch(size, drop_remainder=True)

results = []
for hosts in (1, 2):
    strategy._num_hosts = lambda _: hosts
    tf.random.set_seed(0)
    with mirrored.scope():
        trainer = tiny.build(clip=0.3)
    dataset = strategy.dataset_of_hosts(mirrored, make)
    assert isinstance(dataset, tf.data.Dataset) == (hosts == 1)
    trainer.fit(dataset, epochs=1, steps_per_epoch=3, verbose=0)
    losses = trainer.validate(dataset, steps=2)
    results.append([w.numpy() for w in trainer.network.weights] + [losses["total"]])
for one, two in zip(*results, strict=True):
    np.testing.assert_array_equal(one, two)
print("equal")
"""


@pytest.mark.check
def test_fit_takes_what_hosts_read():
    fixtures = pathlib.Path(__file__).with_name("conftest.py")
    result = subprocess.run(
        [sys.executable, "-c", _FIT, str(fixtures)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split() == ["equal"]


def test_a_run_reads_by_host(tiny, tmp_path, monkeypatch):
    contexts = []

    def batches(*, global_batch_size, seed, first_step, input_context=None):
        contexts.append(input_context)
        return tiny.data(first_step=first_step)

    monkeypatch.setattr(factory, "build_network", lambda _: tiny.build_network())
    monkeypatch.setattr(
        factory, "build_trainer", lambda _, network, *__: tiny.build(network=network)
    )
    categories = [Category(i, f"c{i}", True, (i, 0, 0)) for i in range(1, 11)]
    split = types.SimpleNamespace(categories=categories, batches=batches, names=None)
    data = types.SimpleNamespace(train=split)
    monkeypatch.setattr(train_module, "Data", lambda _: data)
    settings = ("global_batch_size=4", "steps=3", "log_every_steps=1")
    settings += ("evaluate_every_steps=0",)
    settings += ("learning_rate.warmup_steps=0", "strategy.kind=ONE_DEVICE")
    experiment = load_experiment("scenes/tiny", [f"trainer.{s}" for s in settings])
    for hosts in (1, 2):
        monkeypatch.setattr(strategy, "_num_hosts", lambda _, hosts=hosts: hosts)
        assert train(experiment, tmp_path / str(hosts)).step == 3
    assert contexts[0] is None
    assert isinstance(contexts[1], tf.distribute.InputContext) and len(contexts) == 2
    totals = [
        [json.loads(line)["total"] for line in path.read_text().splitlines()]
        for path in (tmp_path / hosts / "metrics.jsonl" for hosts in "12")
    ]
    assert len(totals[0]) == 3 and totals[0] == totals[1]
