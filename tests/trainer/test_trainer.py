"""The training step: rates, clipping, means, replicas."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from cmt.errors import InputError
from cmt.factory import build_model
from cmt.trainer import strategy
from cmt.trainer.optimizer import build_optimizer, has_weight_decay
from cmt.trainer.schedule import LearningRate
from tests.optimizers import HAS_ADDONS, RADAM_LOOKAHEAD, needs_addons
from tests.test_model import miniature


def _fit(trainer, dataset, steps):
    trainer.fit(dataset, steps_per_epoch=steps, verbose=0)


def _weights(trainer):
    return [w.numpy() for w in trainer.network.weights]


def test_groups_learn_at_their_rates(tiny):
    trainer = tiny.build(multiplier=0.1)
    network = trainer.network
    groups = (network.other_variables, network.backbone_variables)
    before = [[v.numpy() for v in group] for group in groups]
    _fit(trainer, tiny.data(), 1)
    # The first step of Adam is the learning rate, whatever the gradient.
    for group, old, rate in zip(groups, before, (0.01, 0.001), strict=True):
        for variable, value in zip(group, old, strict=True):
            moved = np.abs(variable.numpy() - value)
            expected = 0.0 if variable is network.unused else rate
            np.testing.assert_allclose(moved, expected, rtol=1e-3)
    assert int(trainer.step) == 1


def test_means_of_terms(tiny):
    trainer = tiny.build()
    batches = list(tiny.data().take(3))
    terms = []
    for batch in batches:
        outputs = trainer.network(batch[0])
        terms.append(trainer.objective.terms(batch[1], outputs))
        _fit(trainer, tf.data.Dataset.from_tensors(batch), 1)
    means = trainer.loss_meter.means()
    terms_of_loss = {"squared", "absolute", "total", "gradient_norm"}
    assert set(means) == terms_of_loss | {"moving_statistics"}
    assert means["moving_statistics"] == 0
    for name in ("squared", "absolute"):
        expected = np.mean([term[name] for term in terms])
        np.testing.assert_allclose(means[name], expected, rtol=1e-5)
    expected = 2 * means["squared"] + means["absolute"]
    np.testing.assert_allclose(means["total"], expected, rtol=1e-5)
    trainer.loss_meter.reset()
    assert trainer.loss_meter.means() == {}


def test_validation_changes_nothing(tiny):
    trainer = tiny.build()
    before = _weights(trainer)
    losses = trainer.validate(tiny.data(), steps=2)
    terms = [
        trainer.objective.terms(y, trainer.network(x)) for x, y in tiny.data().take(2)
    ]
    expected = np.mean([term["squared"] for term in terms])
    np.testing.assert_allclose(losses["squared"], expected, rtol=1e-5)
    assert set(losses) == {"squared", "absolute", "total"}
    assert trainer.loss_meter.means() == {}
    for old, new in zip(before, _weights(trainer), strict=True):
        np.testing.assert_array_equal(old, new)


def test_validation_in_several_steps_an_execution(tiny):
    single, together = (
        tiny.build(steps_per_execution=n).validate(tiny.data(), steps=6) for n in (1, 4)
    )
    assert single == together and len(single) == 3


def test_gradient_is_clipped_over_all_variables(tiny):
    seen = {}
    for clip in (0.0, 0.05):
        trainer = tiny.build(clip=clip)
        _fit(trainer, tiny.data(), 1)
        # After one step the first moment is (1 - beta1) times the gradient.
        slots = [
            v.numpy()
            for optimizer in trainer.optimizers.values()
            for v in optimizer.variables()
            if v.name.endswith("/m:0")
        ]
        norm = np.sqrt(sum(np.sum(np.square(slot / 0.1)) for slot in slots))
        seen[clip] = norm, trainer.loss_meter.means()["gradient_norm"]
    assert seen[0.0][1] > 0.05
    np.testing.assert_allclose(seen[0.0][0], seen[0.0][1], rtol=1e-4)
    np.testing.assert_allclose(seen[0.05][0], 0.05, rtol=1e-4)
    np.testing.assert_allclose(seen[0.05][1], seen[0.0][1], rtol=1e-4)


@pytest.mark.parametrize("kind", ["ADAMW", RADAM_LOOKAHEAD])
def test_weight_decay_is_of_kernels_only(kind):
    names = ("a/kernel", "a/bias", "a/gamma", "a/depthwise_kernel")
    variables = [tf.Variable(tf.fill([2], 4.0), name=name) for name in names]
    optimizer = build_optimizer(
        kind,
        variables=variables,
        learning_rate=LearningRate(base=0.5, steps=10, warmup_steps=0, power=0.0),
        weight_decay=0.1,
    )
    zeros = [tf.zeros([2]) for _ in variables]
    optimizer.apply_gradients(zip(zeros, variables, strict=True))
    decayed = [v.numpy()[0] for v in variables]
    np.testing.assert_allclose(decayed, [3.8, 4.0, 4.0, 3.8], rtol=1e-5)


def test_weight_decay_spares_norms_biases_and_tables_of_the_network():
    network = build_model(miniature())
    network.build((None, 33, 33, 3))
    decayed = {v.name for v in network.trainable_variables if has_weight_decay(v)}
    spared = {v.name for v in network.trainable_variables} - decayed
    ends = {name.rpartition("/")[2].partition(":")[0] for name in spared}
    tables = {"query_positions", "key_positions", "value_positions"}
    assert {"gamma", "beta", "bias", "cluster_centers"} | tables <= ends
    assert all(name.partition(":")[0].endswith("kernel") for name in decayed)
    assert not any(end.endswith("kernel") for end in ends)
    assert len(decayed) > 50


@needs_addons
def test_lamb_by_hand():
    """Steps of a kernel are as long as the rate says of its norm; others are Adam's."""
    names, rate, decay = ("a/kernel", "a/gamma"), 0.1, 0.5
    variables = [tf.Variable([3.0, 4.0], name=name) for name in names]
    schedule = LearningRate(base=rate, steps=10, warmup_steps=0, kind="CONSTANT")
    optimizer = build_optimizer(
        "LAMB",
        variables=variables,
        learning_rate=schedule,
        weight_decay=decay,
        epsilon=1e-9,
    )
    gradient = tf.constant([0.2, -7.0])
    optimizer.apply_gradients([(gradient, v) for v in variables])
    update = np.array([1 + decay * 3, -1 + decay * 4])
    kernel = [3, 4] - rate * 5 * update / np.linalg.norm(update)
    np.testing.assert_allclose(variables[0], kernel, rtol=1e-5)
    np.testing.assert_allclose(variables[1], [3 - rate, 4 + rate], rtol=1e-5)


def test_adamw_is_that_of_keras():
    schedule = LearningRate(base=0.05, steps=10, warmup_steps=3)
    settings = dict(weight_decay=0.2, beta_2=0.9, epsilon=1e-3)
    start = np.float32([[0.3, -1.2], [2.0, 0.0]])
    theirs = [tf.Variable(start, name="a/kernel")]
    ours = [tf.Variable(start, name="a/kernel")]
    keras = tf_keras.optimizers.AdamW(schedule, **settings)
    keras.build(theirs)
    optimizer = build_optimizer(
        "ADAMW",
        variables=ours,
        learning_rate=schedule,
        weight_decay=0.2,
        beta2=0.9,
        epsilon=1e-3,
    )
    for step in range(6):
        gradient = tf.random.stateless_normal([2, 2], [step, 1])
        keras.apply_gradients([(gradient, theirs[0])])
        optimizer.apply_gradients([(gradient, ours[0])])
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-7)
    assert np.abs(ours[0] - start).min() > 0.01


@needs_addons
def test_radam_lookahead_trains(tiny):
    trainer = tiny.build(kind="RADAM_LOOKAHEAD")
    batch = next(iter(tiny.data()))
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    before = trainer.validate(dataset, steps=1)["total"]
    _fit(trainer, dataset, 12)
    assert trainer.validate(dataset, steps=1)["total"] < before


@pytest.mark.parametrize("kind", ["RADAM_LOOKAHEAD", "LAMB"])
def test_missing_tensorflow_addons(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)
    with pytest.raises(InputError, match=f"{kind} needs tensorflow-addons"):
        build_optimizer(kind, variables=[], learning_rate=None)


def test_no_tpu():
    with pytest.raises(InputError, match=r"no TPU answers as 'local'.*AUTO") as error:
        strategy.build_strategy("TPU")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, '
        '"task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_workers_have_to_be_described(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    for kind in ("MULTI_WORKER_MIRRORED", "AUTO"):
        with pytest.raises(InputError, match=r"needs the variable TF_CONFIG") as error:
            strategy.build_strategy(kind)
        assert "\n" not in str(error.value) and repr(config) in str(error.value)


def test_one_device_and_auto(caplog):
    for kind in ("AUTO", "ONE_DEVICE"):
        assert strategy.build_strategy(kind).num_replicas_in_sync == 1
    assert "MIRRORED" not in caplog.text


def test_mirrored_without_gpus_says_that_it_runs_on_one_cpu(caplog):
    found = strategy.build_strategy("MIRRORED")
    assert strategy.describe(found) == "MirroredStrategy, 1 x CPU"
    [message] = [m for m in caplog.messages if "MIRRORED" in m]
    assert message == (
        "trainer.strategy.kind is MIRRORED, but TensorFlow finds no GPU: training runs "
        "on one CPU; `cmt doctor` says why"
    )


def test_cpu_cannot_be_split_late():
    tf.zeros([1])
    with pytest.raises(InputError, match="logical_cpus is 3, but this process"):
        strategy.build_strategy("MIRRORED", logical_cpus=3)


@pytest.mark.check
def test_number_of_threads_is_set_before_tensorflow_is_used_and_only_then(caplog):
    code = """
        import tensorflow as tf
        from cmt.config import load_experiment
        from cmt.trainer.factory import build_strategy

        build_strategy(load_experiment("scenes/tiny").trainer.strategy)
        tf.zeros([1])
        print(tf.config.threading.get_intra_op_parallelism_threads())
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.split() == ["1"]
    tf.zeros([1])
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    strategy.build_strategy("ONE_DEVICE", intra_op_threads=threads + 1)
    assert f"intra_op_threads is {threads + 1}, but this process" in caplog.text


_REPLICAS = """
    import importlib.util
    import json
    import sys

    import numpy as np

    spec = importlib.util.spec_from_file_location("tiny", sys.argv[1])
    tiny = importlib.util.module_from_spec(spec)

    from cmt.trainer import strategy

    mirrored = strategy.build_strategy("MIRRORED", logical_cpus=2)
    assert strategy.describe(mirrored) == "MirroredStrategy, 2 x CPU"
    assert mirrored.num_replicas_in_sync == 2
    spec.loader.exec_module(tiny)
    for kind in sys.argv[2:]:
        results = []
        for run in (strategy.build_strategy("ONE_DEVICE", logical_cpus=2), mirrored):
            with run.scope():
                trainer = tiny.build(
                    kind=kind, clip=0.3, drop=0.5, parts=2, average_decay=0.9)
            trainer.fit(tiny.data(), steps_per_epoch=5, verbose=0)
            weights = [w.numpy() for w in trainer.network.weights]
            weights += [w.numpy() for w in trainer.averaged.weights]
            means = trainer.loss_meter.means()
            means |= {f"v/{k}": v for k, v in trainer.validate(
                tiny.data(), steps=2).items()}
            results.append((weights, means, int(trainer.step.numpy())))
        (one, one_means, step), (two, two_means, _) = results
        assert step == 5
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        assert one_means.keys() == two_means.keys()
        for name in one_means:
            np.testing.assert_allclose(
                one_means[name], two_means[name], rtol=1e-4, err_msg=name)
    print("equal")
"""


@pytest.mark.slow
def test_two_replicas_equal_one():
    """Accumulated, clipped, dropped and averaged; `test_strategies` has whole runs."""
    fixtures = pathlib.Path(__file__).with_name("conftest.py")
    kinds = ["ADAM", "RADAM_LOOKAHEAD"] if HAS_ADDONS else ["ADAM"]
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_REPLICAS), str(fixtures), *kinds],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split() == ["equal"]
