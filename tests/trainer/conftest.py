"""A network and a loss small enough to train in milliseconds, and runs with them."""

from __future__ import annotations

import json
import types

import pytest
import tensorflow as tf
import tf_keras

from cmt.config import load_experiment
from cmt.data.panoptic.categories import Category
from cmt.layers.conv import Dropout, DropPath
from cmt.trainer import factory
from cmt.trainer import train as train_module
from cmt.trainer.optimizer import build_optimizer
from cmt.trainer.schedule import LearningRate
from cmt.trainer.trainer import Trainer

CHANNELS = 3
CATEGORIES = [Category(i, f"c{i}", True, (i, 0, 0)) for i in range(1, 11)]


class TinyNetwork(tf_keras.Model):
    """Vectors [B, 3] -> [B, width], with a part called the backbone."""

    def __init__(self, width: int = 2, drop: float = 0.0):
        super().__init__()
        self.dropout, self.drop_path = Dropout(drop), DropPath(drop / 2)
        self.backbone = tf_keras.layers.Dense(5, activation="tanh")
        self.head = tf_keras.layers.Dense(width)
        self.unused = self.add_weight(name="unused", shape=[4])

    def call(self, images, training=False):
        hidden = self.dropout(self.backbone(images), training=training)
        return self.head(self.drop_path(hidden, training=training))

    @property
    def backbone_variables(self):
        return self.backbone.trainable_variables

    @property
    def other_variables(self):
        return [*self.head.trainable_variables, self.unused]


class TinyObjective:
    """Two terms: squared distance (weight 2) and absolute distance (weight 1)."""

    def terms(self, targets, predictions):
        distance = predictions - targets
        return {
            "squared": tf.reduce_mean(distance**2, axis=-1),
            "absolute": tf.reduce_mean(tf.abs(distance), axis=-1),
        }

    def total(self, terms):
        return 2.0 * terms["squared"] + terms["absolute"]


def build_network(width: int = 2, seed: int = 7, drop: float = 0.0) -> TinyNetwork:
    """The tiny network, always with the same initial weights."""
    tf_keras.utils.set_random_seed(seed)
    network = TinyNetwork(width, drop)
    network.build((None, CHANNELS))
    return network


def build(
    *,
    kind: str = "ADAM",
    width: int = 2,
    batch: int = 4,
    clip: float = 0.0,
    multiplier: float = 0.1,
    seed: int = 7,
    weight_decay: float = 0.0,
    network: TinyNetwork | None = None,
    drop: float = 0.0,
    parts: int = 1,
    average_decay: float = 0.0,
    steps_per_execution: int = 1,
) -> Trainer:
    """A trainer of the tiny network, a new one if it is not given."""
    network = network or build_network(width, seed, drop)
    optimizers = {
        name: build_optimizer(
            kind,
            variables=variables,
            learning_rate=LearningRate(
                base=0.01, steps=100, warmup_steps=0, multiplier=scale
            ),
            weight_decay=weight_decay,
            name=name,
        )
        for name, variables, scale in (
            ("optimizer", network.other_variables, 1.0),
            ("backbone_optimizer", network.backbone_variables, multiplier),
        )
    }
    return Trainer(
        network,
        TinyObjective(),
        **optimizers,
        global_batch_size=batch,
        clip_global_norm=clip,
        seed=5,
        accumulation_steps=parts,
        averaged=build_network(width, seed, drop) if average_decay else None,
        average_decay=average_decay,
        steps_per_execution=steps_per_execution,
    )


def data(
    *, batch: int = 4, first_step: int = 0, width: int = 2, bad_step: int = -1
) -> tf.data.Dataset:
    """Endless batches that depend on the step alone; one may hold a NaN."""

    def make(step):
        seed = tf.stack([step, tf.constant(3, tf.int64)])
        images = tf.random.stateless_normal([batch, CHANNELS], seed)
        bad = tf.where(step == bad_step, float("nan"), 0.0)
        return images, tf.random.stateless_normal([batch, width], seed + 1) + bad

    return tf.data.Dataset.counter(first_step).map(make)


@pytest.fixture
def tiny() -> types.SimpleNamespace:
    """`build(...)` and `build_network(...)` make a trainer, `data(...)` its batches."""
    return types.SimpleNamespace(build=build, build_network=build_network, data=data)


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """`run.call(*overrides)` trains the tiny network in `run.folder`."""
    options = {"bad_step": -1, "evaluation": lambda step: {"total": 1.0, "pq": 50.0}}
    folder = tmp_path / "run"

    def trainer(experiment, network, categories):
        return tiny.build(
            batch=experiment.trainer.global_batch_size,
            network=network,
            steps_per_execution=experiment.trainer.steps_per_execution,
        )

    def batches(*, global_batch_size, seed, first_step):
        return tiny.data(first_step=first_step, bad_step=options["bad_step"])

    split = types.SimpleNamespace(
        categories=CATEGORIES, batches=batches, names=lambda places: map(str, places)
    )
    data = types.SimpleNamespace(train=split)

    monkeypatch.setattr(factory, "build_network", lambda _: tiny.build_network())
    monkeypatch.setattr(factory, "build_trainer", trainer)
    monkeypatch.setattr(train_module, "Data", lambda _: data)
    monkeypatch.setattr(factory, "open_validation", lambda *_: object())
    monkeypatch.setattr(factory, "build_evaluation", lambda *_: options["evaluation"])

    def call(*overrides, smoke=False, new_schedule=False):
        base = ("global_batch_size=4", "log_every_steps=2", "checkpoint_every_steps=3")
        base += ("learning_rate.warmup_steps=0", "learning_rate.base=0.001")
        overrides = (*(f"trainer.{b}" for b in base), *overrides)
        experiment = load_experiment("scenes/tiny", overrides)
        return train_module.train(
            experiment, folder, smoke=smoke, new_schedule=new_schedule
        )

    def lines():
        text = (folder / "metrics.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    return types.SimpleNamespace(
        call=call, folder=folder, lines=lines, options=options, split=split
    )
