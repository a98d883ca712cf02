"""What centers attend to, as layers hand it out in inference."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.decoder import DualPath
from cmt.layers import blocks, conv, dual_path

SIZES = dual_path.TransformerSizes(12, 16, 8, 16, num_heads=2, ffn_channels=24)
STYLE = conv.Style()
B, H, W, N, HEADS = 3, 2, 7, 5, 2
P = H * W


def normal(*shape: int) -> tf.Tensor:
    return tf.random.stateless_normal(shape, seed=[len(shape), sum(shape)])


STATE = dual_path.DualPathState(normal(B, H, W, 20), normal(B, N, 12))


def layer(assignment: str, **more) -> dual_path.TransformerLayer:
    return dual_path.TransformerLayer(SIZES, assignment=assignment, style=STYLE, **more)


def projected(path: str, network, inputs, parts: int):
    """The first parts (query, key) of a projection, as NumPy arrays."""
    features = getattr(network, f"{path}_input")(inputs)
    outputs = getattr(network, f"{path}_projection")(features)
    return np.split(outputs.numpy()[..., : 8 * parts], parts, axis=-1)


@pytest.mark.parametrize("assignment", ["cross_attention", "clustering"])
def test_equals_a_loop(assignment):
    network = layer(assignment)
    actual = network(STATE, training=False).center_attention
    assert actual.dtype == tf.float32
    assert actual.shape == (B, HEADS, N, P + N)

    pixels = tf.reshape(STYLE.activate(STATE.pixel_features), [B, P, 20])
    query, center_key = projected("center", network, STATE.cluster_centers, 2)
    _, pixel_key = projected("pixel", network, pixels, 2)
    key = np.concatenate([pixel_key, center_key], axis=1)
    logits = np.zeros([B, HEADS, N, P + N], np.float32)
    for b, head, n, k in np.ndindex(*logits.shape):
        mine = slice(4 * head, 4 * head + 4)
        logits[b, head, n, k] = sum(query[b, n, mine] * key[b, k, mine])
    powers = np.exp(network.center_similarity_norm(tf.constant(logits)).numpy())
    expected = powers / powers.sum(-1, keepdims=True)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("recompute", [False, True])
def test_none_in_training_and_in_kmeans(recompute):
    network = layer("clustering", recompute=recompute)
    assert network(STATE, training=True).center_attention is None
    assert network(STATE).center_attention is not None
    assert layer("kmeans")(STATE).center_attention is None


def test_predictions_hold_the_pixels_alone():
    path = DualPath(
        [blocks.AxialBlock(5, num_heads=5, style=STYLE) for _ in range(2)],
        [layer("clustering", name=name) for name in ("one", "two")],
    )
    state, layers = path(STATE)
    assert state.center_attention is None
    for predicted in layers:
        assert predicted.center_attention.shape == (B, HEADS, N, H, W)
    first = path.blocks[0](STATE.pixel_features)
    alone = path.transformers[0](STATE._replace(pixel_features=first))
    weights = alone.center_attention.numpy()
    pixels = layers[0].center_attention.numpy().reshape([B, HEADS, N, P])
    np.testing.assert_allclose(pixels, weights[..., :P], atol=1e-6)
    rest = weights[..., P:].sum(-1)
    assert rest.min() > 0  # On the centers.
    np.testing.assert_allclose(pixels.sum(-1) + rest, 1, atol=1e-5)
    _, layers = path(STATE, training=True)
    assert [predicted.center_attention for predicted in layers] == [None, None]
