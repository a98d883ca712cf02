"""What Keras users do with a network: fit, checkpoints, save, load, train on."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import cmt
from cmt.losses import PanopticLoss
from tests.test_model import miniature

SIZE = 33
# Not the default of any field; is_thing as a table of a data set may give it.
LOSS = dict(
    num_classes=3,
    num_layers=4,
    pq_class_weight=1.25,
    pq_mask_weight=2.5,
    mask_id_weight=0.3,
    pixel_loss="INSTANCE_DISCRIMINATION",
    pixel_loss_weight=0.7,
    pixel_loss_temperature=0.2,
    contrastive_pixels=17,
    contrastive_sampling_power=0.6,
    mask_approximation_weight=0.1,
    semantic_weight=0.9,
    layer_weight=0.8,
    is_thing=np.array([True, False, True]),
    matcher="IN_GRAPH",
)


def dataset() -> tf.data.Dataset:
    """One batch: stuff on the left, a thing on the right, void between."""
    images = tf.random.stateless_uniform([2, SIZE, SIZE, 3], [1, 2], maxval=255.0)
    columns = tf.broadcast_to(tf.range(SIZE), [2, SIZE, SIZE])
    left, right = tf.cast(columns < 14, tf.int32), tf.cast(columns >= 18, tf.int32)
    targets = cmt.Targets(
        semantic=2 * left + right,
        mask_ids=-1 + left + 2 * right,
        mask_classes=tf.constant([[2, 1, 0]] * 2),
    )
    return tf.data.Dataset.from_tensors((images, targets))


def unfitted() -> cmt.CMTDeepLab:
    # Few parts, and nothing is dropped at random: two networks are compared over a step
    # of training.
    changes = (
        "auxiliary_semantic { enabled: false } location { enabled: false }"
        "backbone { stage4_blocks: 1 drop_path_rate: 0 }"
    )
    return cmt.build_model(miniature(changes))


def fit_in(folder: pathlib.Path) -> cmt.CMTDeepLab:
    """A model fitted for an epoch, with each kind of checkpoint written in `folder`."""
    model = unfitted()
    # Eager: to trace a step takes longer than to make it.
    model.compile(
        tf_keras.optimizers.Adam(1e-3), PanopticLoss(**LOSS), run_eagerly=True
    )
    checkpoint = tf_keras.callbacks.ModelCheckpoint
    callbacks = [
        checkpoint(str(folder / "best.keras"), monitor="val_loss", save_best_only=True),
        checkpoint(str(folder / "weights.h5"), save_weights_only=True),
        checkpoint(str(folder / "prefix"), save_weights_only=True),
    ]
    model.fit(dataset(), validation_data=dataset(), callbacks=callbacks, verbose=0)
    return model


@pytest.mark.slow
def test_a_loaded_model_trains_on_as_the_saved_one(tmp_path):
    fitted = fit_in(tmp_path)
    fitted.save(tmp_path / "model.keras")
    check_the_loss_of(tmp_path / "best.keras")
    ((images, _),) = dataset()
    # The file of the callback and that of `save` after it are of the same step.
    of_callback, loaded = (
        tf_keras.models.load_model(tmp_path / name)
        for name in ("best.keras", "model.keras")
    )
    expected = fitted(images)
    for model in (of_callback, loaded):
        found = model(images)
        np.testing.assert_array_equal(found.mask_logits, expected.mask_logits)
        np.testing.assert_array_equal(found.class_logits, expected.class_logits)
        assert int(model.optimizer.iterations) == 1
    before = fitted.get_weights()
    # The weights alone, in both formats of the callback.
    model = unfitted()
    model.build((None, SIZE, SIZE, 3))
    for name in ("weights.h5", "prefix"):
        for weight in model.weights:
            weight.assign(tf.zeros_like(weight))
        model.load_weights(tmp_path / name)
        for mine, other in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(mine, other)
    state = fitted.optimizer.variables
    # The moments too, or Adam's second step would be another one.
    for mine, other in zip(state, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine, other)
    histories = [m.fit(dataset(), verbose=0).history for m in (fitted, loaded)]
    assert histories[0] == histories[1]
    weights = fitted.get_weights()
    for mine, other in zip(weights, loaded.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-6)
    changed = [np.any(a != b) for a, b in zip(before, weights, strict=True)]
    assert np.mean(changed) > 0.5


def check_the_loss_of(file: pathlib.Path) -> None:
    """Every field of the loss is in the file, as a plain value."""
    expected = LOSS | {"is_thing": [True, False, True]}
    with zipfile.ZipFile(file) as opened:
        config = json.loads(opened.read("config.json"))
    stored = config["compile_config"]["loss"]
    assert stored["config"] == expected
    assert stored["registered_name"] == "cmt>PanopticLoss"
    loss = tf_keras.saving.deserialize_keras_object(stored)
    assert type(loss) is PanopticLoss
    assert loss.get_config() == expected
    assert loss.weights == PanopticLoss(**LOSS).weights


def test_a_loss_of_build_loss_can_be_serialized():
    loss = cmt.build_loss(miniature())
    text = json.dumps(tf_keras.saving.serialize_keras_object(loss))
    again = tf_keras.saving.deserialize_keras_object(json.loads(text))
    assert again.get_config() == loss.get_config()
    assert again.is_thing is None


def test_a_format_that_cannot_hold_the_model_names_those_that_can(tmp_path):
    for name in ("model.h5", "saved_model"):
        with pytest.raises(ValueError, match=r"ends in \.keras.*cmt export"):
            unfitted().save(tmp_path / name)


# In a process of its own: once imported, the other Keras changes what tf_keras does.
OTHER_KERAS = """
import keras
import cmt
from cmt.layers import base
from tests.test_model import miniature

model, loss = cmt.build_model(miniature()), cmt.build_loss(miniature())
policy = keras.mixed_precision.Policy("mixed_bfloat16")
for refused in (
    lambda: model.compile(keras.optimizers.Adam(), loss),
    lambda: model.compile(keras.optimizers.SGD(), loss),
    # A layer with a constructor of its own, and one without.
    lambda: cmt.layers.BatchNorm(dtype=policy),
    lambda: base.Layer(dtype=policy),
):
    try:
        refused()
        print("taken")
    except cmt.errors.InputError as error:
        print(error)
"""


@pytest.mark.check
def test_objects_of_the_other_keras_are_refused():
    done = subprocess.run(
        [sys.executable, "-c", OTHER_KERAS], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    for line, kind in zip(lines[:2], ("Adam", "SGD"), strict=True):
        assert "optimizer must be of tf_keras" in line
        assert f"got {kind} of the package keras" in line
        assert "TF_USE_LEGACY_KERAS=1" in line
    assert all("dtype must be of tf_keras" in line for line in lines[2:])


@pytest.mark.parametrize(
    "optimizer",
    [
        "adam",
        tf_keras.optimizers.SGD(tf_keras.optimizers.schedules.CosineDecay(0.1, 10)),
        pytest.param(tf_keras.optimizers.legacy.SGD(0.1), marks=pytest.mark.slow),
    ],
)
def test_what_tf_keras_takes_is_taken(optimizer):
    model = unfitted()
    model.compile(optimizer, cmt.build_loss(miniature()))
    again = unfitted()
    again.build((None, SIZE, SIZE, 3))
    again.compile_from_config(model.get_compile_config())
    assert type(again.optimizer) is type(model.optimizer)
    assert again.optimizer.get_config() == model.optimizer.get_config()
    assert again.loss.get_config() == model.loss.get_config()
