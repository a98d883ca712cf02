"""A value that is not finite: what stays as it was, and what is said of it."""

from __future__ import annotations

import functools
import pathlib
import subprocess
import sys
import tempfile
import textwrap

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from cmt.errors import WorkError
from cmt.layers.norm import BatchNorm
from cmt.outputs import Targets
from cmt.trainer.callbacks import Intervals, RunCallback
from cmt.trainer.checkpoint import RunCheckpoints
from cmt.trainer.finite_guard import NotFinite
from cmt.trainer.optimizer import build_optimizer
from cmt.trainer.schedule import LearningRate
from cmt.trainer.trainer import Trainer
from tests.optimizers import LAMB, RADAM_LOOKAHEAD, needs_addons

BATCH, CHANNELS = 4, 3
GOOD_STEPS = 7  # Beyond one period of Lookahead.
BAD_ROW = 2
KINDS = ("ADAM", "ADAMW", RADAM_LOOKAHEAD, LAMB)
# What is told of each: the term, and images by their row in the batch. Batch norm
# spreads a bad input over the images of a replica.
HARMS = {
    "term": ("absolute", lambda replicas: [BAD_ROW]),
    "input": ("squared", lambda replicas: range(BATCH)[-BATCH // replicas :]),
    "gradient": ("gradient_norm", lambda replicas: range(BATCH)),
    # A term that the total leaves out, such as one whose weight is 0.
    "apart": ("apart", lambda replicas: [BAD_ROW]),
}


class Network(tf_keras.Model):
    """Vectors [B, 3] -> [B, 2], with moving statistics."""

    def __init__(self):
        super().__init__()
        self.backbone = tf_keras.layers.Dense(5, activation="tanh")
        # A bad image then spoils those of its replica, not of all.
        self.norm = BatchNorm(synchronized=False)
        self.head = tf_keras.layers.Dense(2)

    def call(self, images, training=False):
        return self.head(self.norm(self.backbone(images), training=training))

    @property
    def backbone_variables(self):
        return self.backbone.trainable_variables

    @property
    def other_variables(self):
        return [*self.norm.trainable_variables, *self.head.trainable_variables]


class Objective:
    """Two distances; one image can be given a bad term or a bad gradient."""

    def __init__(self, harm: str):
        self.harm = harm

    def terms(self, targets, predictions):
        distance = predictions - tf.cast(targets.semantic, tf.float32)
        absolute = tf.reduce_mean(tf.abs(distance), axis=-1)
        is_bad = targets.image_ids == BATCH * GOOD_STEPS + BAD_ROW
        if self.harm == "term":
            # A constant: no gradient tells of it.
            absolute += tf.where(is_bad, float("inf"), 0.0)
        if self.harm == "gradient":
            absolute += tf.sqrt(absolute * tf.where(is_bad, 0.0, 1.0))
        terms = {"squared": tf.reduce_mean(distance**2, axis=-1), "absolute": absolute}
        if self.harm == "apart":
            terms["apart"] = tf.where(is_bad, float("nan"), 0.0)
        return terms

    def total(self, terms):
        return 2.0 * terms["squared"] + terms["absolute"]


def build(kind: str, harm: str = "") -> Trainer:
    tf_keras.utils.set_random_seed(7)
    network = Network()
    network.build((None, CHANNELS))
    schedule = LearningRate(base=0.01, steps=100, warmup_steps=0)
    groups = {
        "optimizer": network.other_variables,
        "backbone_optimizer": network.backbone_variables,
    }
    optimizers = {
        name: build_optimizer(
            kind,
            variables=variables,
            learning_rate=schedule,
            weight_decay=0.0 if kind == "ADAM" else 0.1,
            name=name,
        )
        for name, variables in groups.items()
    }
    return Trainer(
        network,
        Objective(harm),
        **optimizers,
        global_batch_size=BATCH,
        clip_global_norm=0.5,
    )


def data(harm: str = "") -> tf.data.Dataset:
    def make(step):
        seed = tf.stack([step, tf.constant(3, tf.int64)])
        images = tf.random.stateless_normal([BATCH, CHANNELS], seed)
        if harm == "input":
            is_bad = (step == GOOD_STEPS) & (tf.range(BATCH) == BAD_ROW)
            images += tf.where(is_bad, float("nan"), 0.0)[:, tf.newaxis]
        labels = tf.random.stateless_uniform([BATCH, 2], seed, 0, 9, tf.int32)
        places = tf.cast(step, tf.int32) * BATCH + tf.range(BATCH)
        return images, Targets(labels, labels, labels, places)

    return tf.data.Dataset.counter().map(make)


def state(trainer: Trainer, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """All that a checkpoint holds."""
    prefix = RunCheckpoints(folder, trainer, keep=1).save(1)
    reader = tf.train.load_checkpoint(prefix)
    names = [n for n in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in n]
    return {name: reader.get_tensor(name) for name in names}


def copies(trainer: Trainer) -> list[tf.Variable]:
    """The weights, once for each replica."""
    local = tf.distribute.get_strategy().experimental_local_results
    return [copy for weight in trainer.network.weights for copy in local(weight)]


@functools.cache
def clean(kind: str, harm: str) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """State and weights after the good steps of a run without a bad one."""
    trainer = build(kind, harm)
    trainer.fit(data(), steps_per_epoch=GOOD_STEPS, verbose=0)
    assert trainer.not_finite() is None
    with tempfile.TemporaryDirectory() as folder:
        saved = state(trainer, pathlib.Path(folder))
    return saved, [copy.numpy() for copy in copies(trainer)]


def check(kind: str, harm: str, folder: pathlib.Path) -> None:
    """A run that meets a bad step stays where a clean one is that ends before it."""
    # The objective of this harm has one more term in good steps, too.
    expected, weights = clean(kind, harm if harm == "gradient" else "")
    trainer = build(kind, harm)
    trainer.fit(data(harm), steps_per_epoch=GOOD_STEPS + 4, verbose=0)
    found = state(trainer, folder)
    assert found.keys() == expected.keys()
    for ours, theirs in zip(copies(trainer), weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs, ours.name)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert any("moving_variance" in name for name in expected)
    assert expected["step/.ATTRIBUTES/VARIABLE_VALUE"] == GOOD_STEPS
    report = trainer.not_finite()
    assert report.step == GOOD_STEPS + 1
    term, rows = HARMS[harm]
    assert next(iter(report.values)) == term
    first = BATCH * GOOD_STEPS
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    assert [place - first for place in report.images] == list(rows(replicas))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", HARMS)
def test_keeps_the_last_good_state(kind, harm, tmp_path):
    check(kind, harm, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_compiled(kind):
    trainer = build(kind, "term")
    step = tf.function(
        lambda *batch: trainer.train_step(batch), jit_compile=True, autograph=False
    )
    batches = list(data().take(GOOD_STEPS + 2))
    variables = [*trainer.network.variables, *trainer._restored]
    seen = []
    for images, targets in batches:
        step(images, targets)
        seen.append([v.numpy() for v in variables])
    good, *stopped = seen[GOOD_STEPS - 1 :]
    assert any(np.any(a != b) for a, b in zip(good, seen[GOOD_STEPS - 2], strict=True))
    for values in stopped:
        for ours, theirs in zip(values, good, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert list(trainer.not_finite().images) == [BATCH * GOOD_STEPS + BAD_ROW]


_REPLICAS = """
    import importlib.util
    import pathlib
    import sys

    import numpy as np

    from cmt.trainer import strategy

    mirrored = strategy.build_strategy("MIRRORED", logical_cpus=2)
    spec = importlib.util.spec_from_file_location("guard", sys.argv[1])
    guard = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(guard)
    kind, harm = sys.argv[3:]
    with mirrored.scope():
        assert mirrored.num_replicas_in_sync == 2
        guard.check(kind, harm, pathlib.Path(sys.argv[2]))
    print("equal")
"""


@pytest.mark.check
@pytest.mark.parametrize(
    ("kind", "harm"),
    [
        ("ADAMW", "gradient"),
        pytest.param(
            *("RADAM_LOOKAHEAD", "input"),
            marks=[pytest.mark.slow, needs_addons],
        ),
    ],
)
def test_two_replicas(tmp_path, kind, harm):
    script = textwrap.dedent(_REPLICAS)
    done = subprocess.run(
        [sys.executable, "-c", script, __file__, str(tmp_path), kind, harm],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["equal"]


def test_a_signal_after_the_bad_step(tmp_path):
    """What is saved then, before a log point, is the last good state, and says so."""
    trainer = build("ADAM", "term")
    callback = RunCallback(
        trainer,
        first_step=0,
        intervals=Intervals(steps=50, log=50, checkpoint=50, evaluate=0),
        global_batch_size=BATCH,
        learning_rates=lambda step: (0.001, 0.01),
        checkpoints=RunCheckpoints(tmp_path, trainer, keep=1),
        evaluate=None,
    )
    steps = GOOD_STEPS + 2
    trainer.fit(data("term"), steps_per_epoch=steps, verbose=0, callbacks=[callback])
    assert callback.step == steps
    with pytest.raises(WorkError, match=f"step-{GOOD_STEPS} holds the last good state"):
        callback.save()
    saved = [path.name for path in (tmp_path / "checkpoints").glob("*.index")]
    assert saved == [f"step-{GOOD_STEPS}.index"]


def test_describes():
    found = NotFinite(5, {"absolute": float("inf"), "total": float("inf")}, [17, 40])
    assert found.describe() == (
        "step 5 has values that are not finite: absolute is inf, training images 17, "
        "40 (counted from 0)"
    )
    names = found.describe(lambda places: [f"{place}.jpg" for place in places])
    assert "images 17 (17.jpg), 40 (40.jpg) (" in names
    only_gradient = NotFinite(5, {"gradient_norm": float("nan")}, [])
    assert only_gradient.describe().endswith("is not finite, its losses are")
    many = NotFinite(5, {"total": float("nan")}, list(range(20)))
    assert "total is nan, training images 0, 1, 2, 3 and 16 more (" in (many.describe())


def test_moving_statistics_count():
    """In training no loss shows them; evaluation and export would be broken."""
    trainer = build("ADAM")
    trainer.network.norm.moving_variance.assign([np.inf] * 5)
    trainer.fit(data(), steps_per_epoch=2, verbose=0)
    found = trainer.not_finite()
    assert found.step == 1
    assert "moving_statistics is nan" in found.describe()
    assert "moving_statistics" in trainer.loss_meter.means()


def test_only_the_gradient_is_said_so():
    found = NotFinite(3, {"gradient_norm": np.nan}, [4, 5])
    assert found.describe().startswith(
        "the gradient of step 3 is not finite, its losses are, training images 4, 5"
    )
