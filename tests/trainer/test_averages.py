"""Moving averages of weights: what they are, and who takes them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.errors import InputError
from cmt.trainer.checkpoint import RunCheckpoints
from cmt.weights.files import find_checkpoint
from cmt.weights.load import load_initial_checkpoint, load_weights


def _fit(trainer, dataset, steps):
    trainer.fit(dataset, steps_per_epoch=steps, verbose=0)


def _values(network):
    return [w.numpy() for w in network.weights]


def _equal(one, two):
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_they_follow_the_weights(tiny):
    trainer = tiny.build(average_decay=0.25)
    expected = _values(trainer.network)
    _equal(_values(trainer.averaged), expected)
    for step in range(1, 6):
        _fit(trainer, tiny.data(first_step=step - 1), 1)
        # Of the first steps less is kept.
        decay = min(0.25, (1 + step) / (10 + step))
        assert (decay < 0.25) == (step == 1)
        weights = _values(trainer.network)
        pairs = zip(expected, weights, strict=True)
        expected = [decay * e + (1 - decay) * w for e, w in pairs]
        for found, value in zip(_values(trainer.averaged), expected, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-7)
    moved = np.abs(weights[0] - expected[0]).max()
    assert moved > 1e-4


def test_they_are_evaluated(tiny):
    trainer = tiny.build(average_decay=0.9)
    _fit(trainer, tiny.data(), 5)
    losses = trainer.validate(tiny.data(), steps=2)
    for network, same in ((trainer.averaged, True), (trainer.network, False)):
        terms = [trainer.objective.terms(y, network(x)) for x, y in tiny.data().take(2)]
        mean = np.mean([term["squared"] for term in terms])
        assert np.isclose(losses["squared"], mean, rtol=1e-5) == same


def test_they_are_saved_continued_exported_and_begun_with(tiny, tmp_path):
    whole = tiny.build(average_decay=0.9)
    _fit(whole, tiny.data(), 6)
    first = tiny.build(average_decay=0.9)
    _fit(first, tiny.data(), 4)
    RunCheckpoints(tmp_path, first, keep=1).save(4)
    second = tiny.build(average_decay=0.9, seed=8)
    assert RunCheckpoints(tmp_path, second, keep=1).restore_latest() == 4
    _fit(second, tiny.data(first_step=4), 2)
    _equal(_values(whole.averaged), _values(second.averaged))
    _equal(_values(whole.network), _values(second.network))
    # Evaluation, prediction and export load this way, and a new run begins so.
    loaded, begun = tiny.build_network(seed=9), tiny.build_network(seed=10)
    assert load_weights(loaded, find_checkpoint(tmp_path)) == 4
    assert load_initial_checkpoint(begun, tmp_path).share == 1
    for network in (loaded, begun):
        _equal(_values(network), _values(first.averaged))
    assert np.abs(_values(loaded)[0] - _values(first.network)[0]).max() > 1e-4


def test_a_run_without_them_does_not_continue_with_them(tiny, tmp_path):
    RunCheckpoints(tmp_path, tiny.build(), keep=1).save(4)
    with pytest.raises(InputError, match="state of another optimizer"):
        RunCheckpoints(tmp_path, tiny.build(average_decay=0.9), keep=1).restore_latest()


def test_they_stay_where_a_step_is_bad(tiny):
    good, bad = tiny.build(average_decay=0.9), tiny.build(average_decay=0.9)
    _fit(good, tiny.data(), 3)
    _fit(bad, tiny.data(bad_step=3), 6)
    assert bad.not_finite().step == 4
    _equal(_values(good.averaged), _values(bad.averaged))
    assert all(np.isfinite(v).all() for v in _values(bad.averaged))


@pytest.mark.slow
def test_the_config_makes_them(tiny):
    from cmt.config import load_experiment
    from cmt.data.panoptic.categories import Category
    from cmt.trainer import factory

    ones = ("backbone.stage3_blocks", "backbone.stage4_blocks")
    ones += ("decoder.stage5_layers", "decoder.stage4_layers")
    overrides = [f"model.{field}=1" for field in ones]
    overrides += ["data.crop_height_pixels=33", "data.crop_width_pixels=33"]
    overrides.append("trainer.optimizer.average_decay=0.99")
    experiment = load_experiment("scenes/tiny", overrides)
    categories = [Category(i, f"c{i}", True, (i, 0, 0)) for i in range(1, 11)]
    network = factory.build_network(experiment)
    trainer = factory.build_trainer(experiment, network, categories)
    assert trainer.evaluated is trainer.averaged is not network
    _equal(_values(trainer.averaged), _values(network))
    assert any(isinstance(v, tf.Variable) for v in trainer.averaged.variables)
