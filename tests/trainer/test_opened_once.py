"""A training run with evaluations opens each file of its data once."""

from __future__ import annotations

import builtins
import collections
import io
import json

import pytest
import tensorflow as tf

from cmt.config import parse_experiment
from cmt.data.scenes.generate import generate_scenes
from cmt.trainer import factory
from cmt.trainer.train import train
from tests.data.conversions import convert
from tests.fakes import RandomMasks

_SPLITS = {"train": 4, "val": 3}


class Objective:
    """One term, of the masks and the classes."""

    def terms(self, targets, predictions):
        masks = tf.reduce_mean(predictions.mask_logits**2, axis=[1, 2, 3])
        return {"size": masks + tf.reduce_mean(predictions.class_logits**2, [1, 2])}

    def total(self, terms):
        return terms["size"]


@pytest.fixture
def experiment(tmp_path):
    generate_scenes(tmp_path, train=4, val=3, size=65, seed=2, workers=1)
    for split in _SPLITS:
        convert(
            images=tmp_path / "images" / split,
            annotations=tmp_path / "annotations" / f"panoptic_{split}.json",
            masks=tmp_path / "annotations" / f"panoptic_{split}",
            output=tmp_path / "out",
            split=split,
            shards=2,
            workers=1,
        )
    settings = ("steps=2", "evaluate_every_steps=1", "learning_rate.warmup_steps=0")
    settings = [f"trainer.{s}" for s in (*settings, "global_batch_size=2")]
    settings += ["data.crop_height_pixels=65", "data.crop_width_pixels=65"]
    for name, split in (("train", "train"), ("validation", "val")):
        settings.append(f'data.{name}.tfrecords="{tmp_path}/out/{split}-*.tfrecord"')
    return parse_experiment("", "once", [*settings, "model.num_classes=10"])


@pytest.fixture
def read(monkeypatch) -> collections.Counter:
    """How often each file is opened to be read, by its name."""
    counts: collections.Counter = collections.Counter()
    for module in (builtins, io):  # `Path.open` looks it up in the second.

        def counted(path, mode="r", *others, _open=module.open, **keywords):
            if not set(mode) & set("wxa"):
                counts[str(path).rpartition("/")[2]] += 1
            return _open(path, mode, *others, **keywords)

        monkeypatch.setattr(module, "open", counted)
    return counts


@pytest.mark.slow
def test_a_run_opens_its_data_once(experiment, read, tmp_path, monkeypatch):
    def build_network(_):
        network = RandomMasks(classes=10)
        network.build((None, 65, 65, 3))
        return network

    monkeypatch.setattr(factory, "build_network", build_network)
    monkeypatch.setattr(factory, "build_loss", lambda *_, **__: Objective())
    read.clear()
    assert train(experiment, tmp_path / "run").step == 2
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert ["validation/pq" in json.loads(line) for line in lines] == [True, True]
    for split in _SPLITS:
        assert read[f"{split}.manifest.json"] == 1
        for shard in range(2):
            assert read[f"{split}-0000{shard}-of-00002.tfrecord.index"] == 1
    assert read["panoptic_val.json"] == 1
