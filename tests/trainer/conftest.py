"""A network and a loss small enough to train in milliseconds."""

from __future__ import annotations

import types

import pytest
import tensorflow as tf
import tf_keras

from cmt.trainer.optimizer import build_optimizer
from cmt.trainer.schedule import PolynomialWithWarmup
from cmt.trainer.trainer import Trainer

CHANNELS = 3


class TinyNetwork(tf_keras.Model):
    """Vectors [B, 3] -> [B, width], with a part called the backbone."""

    def __init__(self, width: int = 2):
        super().__init__()
        self.backbone = tf_keras.layers.Dense(5, activation="tanh")
        self.head = tf_keras.layers.Dense(width)
        self.unused = self.add_weight(name="unused", shape=[4])

    def call(self, images, training=False):
        return self.head(self.backbone(images))

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


def build_network(width: int = 2, seed: int = 7) -> TinyNetwork:
    """The tiny network, always with the same initial weights."""
    tf_keras.utils.set_random_seed(seed)
    network = TinyNetwork(width)
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
) -> Trainer:
    """A trainer of the tiny network, a new one if it is not given."""
    network = network or build_network(width, seed)
    optimizers = {
        name: build_optimizer(
            kind,
            variables=variables,
            learning_rate=PolynomialWithWarmup(
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
