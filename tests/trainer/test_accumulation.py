"""A step in parts is the step of the whole batch."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from google.protobuf import text_format

from cmt.config import load_experiment
from cmt.data.panoptic.categories import Category
from cmt.errors import InputError
from cmt.layers.norm import BatchNorm
from cmt.outputs import Targets
from cmt.trainer import factory
from tests.test_model import MINIATURE

BATCH, SIZE = 4, 33


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_equal_the_whole(tiny, parts):
    """With dropout: an image has its random numbers in whichever part it is."""
    whole, split = (tiny.build(clip=0.3, drop=0.5, parts=n) for n in (1, parts))
    for trainer in (whole, split):
        trainer.fit(tiny.data(), steps_per_epoch=5, verbose=0)
    for a, b in zip(whole.network.weights, split.network.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    expected, found = (t.loss_meter.means() for t in (whole, split))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_a_bad_image_is_found_in_any_part(tiny):
    trainer = tiny.build(parts=2)
    trainer.fit(tiny.data(bad_step=3), steps_per_epoch=6, verbose=0)
    assert trainer.not_finite().step == 4
    assert int(trainer.step) == 3


def _trainer(parts: int):
    settings = (f"global_batch_size={BATCH}", f"accumulation_steps={parts}")
    settings += ("learning_rate.warmup_steps=0", "learning_rate.base=0.001")
    experiment = load_experiment("scenes/tiny", [f"trainer.{s}" for s in settings])
    experiment.model.Clear()
    text_format.Parse(MINIATURE, experiment.model)
    experiment.data.crop_height_pixels = experiment.data.crop_width_pixels = SIZE
    experiment.loss.contrastive_pixels = 40
    classes = range(1, experiment.model.num_classes + 1)
    categories = [Category(i, f"c{i}", i % 2 == 0, (i, 0, 0)) for i in classes]
    tf_keras.utils.set_random_seed(3)
    network = factory.build_network(experiment)
    for layer in network._flatten_layers():
        if isinstance(layer, BatchNorm):
            layer.trainable = False  # Statistics of a part are not those of all.
    return factory.build_trainer(experiment, network, categories)


@pytest.mark.slow
def test_parts_of_the_real_network_equal_the_whole():
    """All losses, matching, drop path and sampled pixels; norms are frozen."""
    columns = tf.broadcast_to(tf.range(SIZE), [BATCH, SIZE, SIZE])
    edge = tf.constant([9, 12, 15, 18])[:, tf.newaxis, tf.newaxis]
    left, right = tf.cast(columns < edge, tf.int32), tf.cast(columns > 21, tf.int32)
    batch = (
        tf.random.stateless_uniform([BATCH, SIZE, SIZE, 3], [1, 2], maxval=255.0),
        (
            Targets(
                semantic=3 * left + right,
                mask_ids=-1 + left + 2 * right,
                mask_classes=tf.constant([[3, 1, 0, 0]] * BATCH),
                image_ids=tf.range(BATCH),
            )
        ),
    )
    results = []
    for parts in (1, 4):
        trainer = _trainer(parts)
        before = [w.numpy() for w in trainer.network.trainable_weights]
        trainer.train_step(batch)  # Not in a graph: to trace it takes longer.
        after = [w.numpy() for w in trainer.network.trainable_weights]
        moments = [
            v.numpy()
            for optimizer in trainer.optimizers.values()
            for v in optimizer.weights
            if v.name.endswith("/m:0")
        ]
        results.append((before, after, moments, trainer.loss_meter.means()))
    (start, _, expected, means), (again, _, found, means_of_parts) = results
    for a, b in zip(start, again, strict=True):
        np.testing.assert_array_equal(a, b)
    largest = max(np.abs(e).max() for e in expected)
    for a, b in zip(expected, found, strict=True):
        # The first moment is a tenth of the gradient.
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-6 * largest)
    for name, value in means.items():
        np.testing.assert_allclose(means_of_parts[name], value, rtol=1e-4, err_msg=name)


def test_parts_must_divide_the_batch():
    settings = ["trainer.accumulation_steps=3", "trainer.global_batch_size=8"]
    with pytest.raises(
        InputError, match=r"= 8.*divisible by.*_steps = 3.*; use 6 or 9"
    ):
        load_experiment("scenes/tiny", settings)
