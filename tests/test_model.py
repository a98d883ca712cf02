"""Shapes, switches, passes, precisions, and that the network is a Keras model."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from google.protobuf import text_format

import cmt
from cmt.factory import build_loss, build_model
from cmt.outputs import Targets
from cmt.protos import losses_pb2, model_pb2

SIZE = 33

MINIATURE = """
  num_classes: 3 num_centers: 5
  backbone {
    stem1_channels: 4 stem2_channels: 4 stem3_channels: 8
    stage2_blocks: 1 stage2_channels: 4
    stage3_blocks: 1 stage3_channels: 4
    stage4_blocks: 2 stage4_channels: 4
    stage5_blocks: 1 stage5_channels: 8
    num_heads: 2 max_relative_positions: 4
  }
  decoder { stage5_layers: 1 stage4_layers: 1 }
  transformer {
    center_channels: 8 bottleneck_channels: 8 key_channels: 4 value_channels: 8
    num_heads: 2 ffn_channels: 16
  }
  location { num_points: 3 mlp_channels: 8 }
  heads {
    center_feature_channels: 8 pixel_hidden_channels: 8 pixel_feature_channels: 4
  }
  auxiliary_semantic {
    channels: 4 stage3_projection_channels: 4 stage2_projection_channels: 4
  }
"""


def miniature(changes: str = "") -> model_pb2.ModelConfig:
    settings = text_format.Parse(MINIATURE, model_pb2.ModelConfig())
    return text_format.Merge(changes, settings)


def build(settings: model_pb2.ModelConfig, size: int = SIZE) -> cmt.CMTDeepLab:
    model = build_model(settings)
    model.build((None, size, size, 3))
    return model


def images(batch: int) -> tf.Tensor:
    shape = [batch, SIZE, SIZE, 3]
    return tf.random.stateless_uniform(shape, [1, 2], maxval=255.0)


def targets(batch: int) -> Targets:
    """Stuff on the left, a thing on the right, void between."""
    columns = tf.broadcast_to(tf.range(SIZE), [batch, SIZE, SIZE])
    left, right = tf.cast(columns < 14, tf.int32), tf.cast(columns >= 18, tf.int32)
    return Targets(
        semantic=3 * left + right,
        mask_ids=-1 + left + 2 * right,
        mask_classes=tf.constant([[3, 1, 0, 0]] * batch),
    )


@pytest.fixture(scope="module")
def model() -> cmt.CMTDeepLab:
    return build(miniature())


def test_shapes(model):
    predictions = model(images(2))
    assert predictions.mask_logits.shape == (2, 9, 9, 5)
    assert predictions.class_logits.shape == (2, 5, 4)
    assert predictions.pixel_features.shape == (2, 9, 9, 4)
    assert predictions.semantic_logits.shape == (2, 9, 9, 4)
    assert len(predictions.layers) == 2
    for layer in predictions.layers:
        assert layer.affinity_logits.shape == (2, 3, 3, 5)
        assert layer.reference_points.shape == (2, 5, 3, 2)
        assert layer.center_attention.shape[2:] == (5, 3, 3)
    lengths = tf.norm(predictions.pixel_features, axis=-1)
    np.testing.assert_allclose(lengths, np.ones([2, 9, 9]), atol=1e-5)


def test_bytes_and_floats_are_the_same_image(model):
    pixels = tf.cast(images(1), tf.uint8)
    expected = model(tf.cast(pixels, tf.float32)).mask_logits
    np.testing.assert_allclose(model(pixels).mask_logits, expected, atol=1e-6)


def test_a_center_starts_as_void():
    """With zero logits void has probability 0.9, whatever the number of classes."""
    from cmt.heads import void_prior

    for num_classes in (2, 133):
        probability = tf.nn.softmax(void_prior(num_classes))[-1]
        assert float(probability) == pytest.approx(0.9, abs=1e-6)


@functools.cache
def switched(rule: str, location: bool, stronger: bool) -> cmt.CMTDeepLab:
    """A miniature that nobody changes."""
    return build(
        miniature(
            f"transformer {{ assignment: {rule} }}"
            f"location {{ enabled: {str(location).lower()} }}"
            f"decoder {{ stronger: {str(stronger).lower()} }}"
        )
    )


# Each value of each switch.
SOME = [
    ("CLUSTERING", False, False),
    ("CROSS_ATTENTION", True, False),
    ("KMEANS", True, True),
]
RULES, BOTH = ("CLUSTERING", "CROSS_ATTENTION", "KMEANS"), (False, True)
OTHERS = [case for case in itertools.product(RULES, BOTH, BOTH) if case not in SOME]


@pytest.mark.parametrize(
    ("rule", "location", "stronger"),
    [*SOME, *(pytest.param(*o, marks=pytest.mark.slow) for o in OTHERS)],
)
def test_switches(rule, location, stronger):
    network = switched(rule, location, stronger)
    clustering = rule != "CROSS_ATTENTION"
    predictions = network(images(1), training=False)
    assert len(predictions.layers) == 2
    for layer in predictions.layers:
        assert (layer.affinity_logits is not None) == clustering
        assert (layer.reference_points is not None) == location
        assert (layer.center_attention is not None) == (rule != "KMEANS")
    names = " ".join(variable.name for variable in network.variables)
    assert ("affinity_norm" in names) == clustering
    assert ("pixel_similarity_norm" in names) != clustering
    assert ("reference_mask" in names) == location
    assert ("fuse16" in names) == stronger
    backbone = " ".join(variable.name for variable in network.backbone_variables)
    assert "transformer" not in backbone
    assert ("dual_path_block1" in backbone) != stronger
    both = [*network.backbone_variables, *network.other_variables]
    assert {v.ref() for v in both} == {v.ref() for v in network.trainable_variables}
    assert len(both) == len(network.trainable_variables)


def test_the_last_affinity_is_part_of_the_mask_logits(model):
    """The residual path of Sec. 3.3 ends in the segmentation output."""
    gamma = model.head.mask_logits_norm.gamma
    before = gamma.numpy()
    gamma.assign([0.0])
    predictions = model(images(1), training=False)
    gamma.assign(before)
    affinity = predictions.layers[-1].affinity_logits
    np.testing.assert_allclose(
        predictions.mask_logits[:, ::4, ::4], affinity, atol=1e-5
    )


def test_a_gradient_reaches_every_variable():
    """Residual branches start at zero: their scales are set to one for this."""
    network = build(miniature("backbone { drop_path_rate: 0 }"))
    for variable in network.trainable_variables:
        if "gamma" in variable.name:
            variable.assign(tf.ones_like(variable))
    loss = build_loss(miniature(), losses_pb2.LossConfig())
    with tf.GradientTape() as tape:
        total = loss(targets(2), network(images(2), training=True))
    gradients = tape.gradient(total, network.trainable_variables)
    without = [
        variable.name
        for variable, gradient in zip(
            network.trainable_variables, gradients, strict=True
        )
        if gradient is None or not np.any(tf.convert_to_tensor(gradient).numpy())
    ]
    # A softmax over keys or centers takes away an offset that all of them have, so that
    # the gradient of one is 0 but for rounding.
    offsets = ("similarity_norm/beta", "affinity_norm/beta", "mask_logits_norm/beta")
    assert [name for name in without if not name.split(":")[0].endswith(offsets)] == []
    assert not any(isinstance(g, tf.IndexedSlices) for g in gradients)


@pytest.mark.slow
def test_compile_and_fit():
    # To trace a step takes most of the time: a few parts and a plain optimizer, built
    # already, since Keras would trace the step again after it made variables.
    settings = miniature(
        "auxiliary_semantic { enabled: false } location { enabled: false }"
        "backbone { stage4_blocks: 1 drop_path_rate: 0 }"
    )
    network = build(settings)
    loss = build_loss(settings, losses_pb2.LossConfig())
    optimizer = tf_keras.optimizers.SGD(1e-3)
    optimizer.build(network.trainable_variables)
    network.compile(optimizer=optimizer, loss=loss)
    batch = tf.data.Dataset.from_tensors((images(2), targets(2)))
    before = float(loss(targets(2), network(images(2), training=True)))
    history = network.fit(batch.repeat(12), epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    # The mean loss of `fit` is no part of the network nor of its checkpoints.
    (mean_loss,) = network.metrics
    assert float(mean_loss.result()) == pytest.approx(history.history["loss"][0])
    parts = tf.train.TrackableView(network).descendants()
    for variable in mean_loss.variables:
        assert not any(variable is v for v in (*network.variables, *parts))
    assert float(loss(targets(2), network(images(2), training=True))) < before


@pytest.mark.slow
@pytest.mark.parametrize("rfn", [False, True])
def test_config_and_keras_format_make_the_same_network_again(rfn, model, tmp_path):
    network = build(miniature("rfn: true")) if rfn else model
    again = type(network).from_config(network.get_config())
    again.build((None, SIZE, SIZE, 3))
    again.set_weights(network.get_weights())
    expected = network(images(1))
    np.testing.assert_array_equal(again(images(1)).mask_logits, expected.mask_logits)
    network.save(tmp_path / "network.keras")
    loaded = tf_keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(images(1)).mask_logits, expected.mask_logits)
    network.save_weights(tmp_path / "weights.h5")
    again.load_weights(tmp_path / "weights.h5")
    lines = []
    network.summary(print_fn=lines.append)
    assert any("Trainable params" in line for line in lines)


def test_rfn_is_two_networks(model):
    """Sec. 3.4: no weights shared; the second sees the first one's features."""
    network = build(miniature("rfn: true"))
    assert network.count_params() == 2 * model.count_params()
    assert len({v.name for v in network.variables}) == len(network.variables)
    predictions = network(images(2))
    first = network.first(images(2))
    np.testing.assert_allclose(
        predictions.first_pass.mask_logits, first.mask_logits, rtol=1e-6
    )
    second = network.second(images(2), stride4_features=first.stride4_features)
    np.testing.assert_allclose(
        predictions.mask_logits, second.mask_logits, rtol=1e-5, atol=1e-6
    )
    alone = network.second(images(2))
    assert np.abs(alone.mask_logits - predictions.mask_logits).max() > 1e-3
    both = [*network.backbone_variables, *network.other_variables]
    assert {v.ref() for v in both} == {v.ref() for v in network.trainable_variables}
    loss = build_loss(miniature(), losses_pb2.LossConfig())
    with tf.GradientTape() as tape:
        total = loss(targets(2), network(images(2), training=True))
    stem = network.first.backbone.stem[0].conv.kernel
    assert np.any(tape.gradient(total, stem).numpy())


def test_the_second_pass_takes_the_average_of_both_stride_4_features(model):
    backbone = model.backbone
    pixels = images(1) / 255
    alone = backbone(pixels)
    given = tf.ones_like(alone.stage2)
    joined = backbone(pixels, stride4_features=given)
    np.testing.assert_allclose(joined.stage2, (alone.stage2 + 1) / 2, rtol=1e-6)
    assert np.abs(joined.stage3 - alone.stage3).max() > 1e-4


RECOMPUTE_ALL = """
  recompute {
    bottleneck_blocks: true axial_blocks: true transformer_layers: true
    stem: true heads: true
  }
"""


@pytest.mark.slow  # Of each kind of block, tests/layers has a default test.
def test_recomputation_changes_no_number():
    """Outputs, gradients, moving statistics, with drop path at work."""
    results = []
    for changes in ("", RECOMPUTE_ALL):
        settings = miniature(changes)
        settings.auxiliary_semantic.enabled = False  # Dropout draws numbers too.
        tf_keras.utils.set_random_seed(0)
        network = build(settings)
        for variable in network.trainable_variables:
            if "gamma" in variable.name:
                variable.assign(tf.ones_like(variable))

        @tf.function(autograph=False)
        def step(network=network):
            with tf.GradientTape() as tape:
                logits = network(images(2), training=True).mask_logits
                total = tf.reduce_sum(tf.sin(logits))
            variables = network.trainable_variables
            gradients = tape.gradient(total, variables, unconnected_gradients="zero")
            return logits, gradients

        tf.random.set_seed(3)
        logits, gradients = step()
        moving = [v.numpy() for v in network.non_trainable_variables]
        operations = len(step.get_concrete_function().graph.get_operations())
        results.append((logits, gradients, moving, operations))
    (logits, gradients, moving, fewer), again = results[0], results[1]
    assert again[3] > 1.3 * fewer  # It is computed again indeed.
    np.testing.assert_allclose(again[0], logits, atol=1e-5)
    for one, other in zip(again[1], gradients, strict=True):
        scale = max(1.0, np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * scale)
    for one, other in zip(again[2], moving, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_mixed_precision(model):
    """bfloat16 inside; variables, predictions and their accumulation in float32."""
    network = build(miniature("precision: MIXED_BFLOAT16"))
    assert tf_keras.mixed_precision.global_policy().name == "float32"
    assert {v.dtype for v in network.variables} == {tf.float32}
    network.set_weights(model.get_weights())
    low, high = network(images(2)), model(images(2))
    assert low.stride4_features.dtype == tf.bfloat16
    for layer in low.layers:
        assert layer.affinity_logits.dtype == tf.float32
        assert layer.reference_points.dtype == tf.float32
    for name in ("mask_logits", "class_logits", "pixel_features", "semantic_logits"):
        one, other = getattr(low, name), getattr(high, name)
        assert one.dtype == tf.float32
        assert np.quantile(np.abs(one - other), 0.95) < 0.05 * np.abs(other).max()
    loss = build_loss(miniature(), losses_pb2.LossConfig())
    # Eager: to trace a step of a network this small takes longer than to make it.
    network.compile(tf_keras.optimizers.Adam(1e-3), loss, run_eagerly=True)
    batch = tf.data.Dataset.from_tensors((images(2), targets(2)))
    history = network.fit(batch, verbose=0)
    assert np.isfinite(history.history["loss"][0])


def test_keras_policy_is_followed():
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        network = build_model(miniature())
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    features = network.forward(images(1), training=False, stride4_features=None)
    assert features.stride4_features.dtype == tf.bfloat16


@pytest.mark.parametrize("classes", [0, -1, 2.5, "5", True])
def test_a_wrong_number_of_classes_is_named(classes):
    with pytest.raises(cmt.errors.InputError, match=f"got {classes!r}"):
        cmt.build_model(miniature(), num_classes=classes)


def test_what_keras_cannot_do_is_named(model, tmp_path):
    with pytest.raises(ValueError, match="height and width must be known"):
        build_model(miniature()).build((None, None, None, 3))
    with pytest.raises(ValueError, match="ends in .keras"):
        model.save(tmp_path / "folder")


@pytest.mark.slow
def test_in_kmeans_nobody_attends_to_pixels():
    """Centers attend to centers, and pixels have no key that nothing would read."""
    network = switched("KMEANS", location=True, stronger=True)
    layer = network.decoder.first.transformers[0]
    sizes = layer.sizes
    assert layer.pixel_projection.dense.kernel.shape[1] == (
        sizes.key_channels + sizes.value_channels
    )
    loss = build_loss(miniature(), losses_pb2.LossConfig())
    with tf.GradientTape() as tape:
        total = loss(targets(2), network(images(2), training=True))
    kernel = layer.pixel_projection.dense.kernel
    gradient = tape.gradient(total, kernel).numpy()
    # The query learns from the supervision of the affinity logits alone.
    assert np.all(np.any(gradient[:, : sizes.key_channels], axis=0))


def test_list_models():
    names = cmt.list_models()
    assert "scenes/tiny" in names
    assert cmt.build_model("scenes/tiny", num_classes=3).head.num_classes == 3
    with pytest.raises(cmt.errors.InputError, match="scenes/tiny"):
        cmt.build_model("scenes/tyni")


def test_tiny_config_is_the_same_code():
    """The example of CMTDeepLab calls it."""
    assert type(cmt.build_model("scenes/tiny")) is cmt.CMTDeepLab
