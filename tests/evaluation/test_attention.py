"""The density of attention: by hand, against loops, and from the layers' outputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from cmt.evaluation import attention
from cmt.outputs import LayerPredictions, Predictions

B, HEADS, N, H, W = 2, 3, 5, 2, 7


def test_effective_pixels_by_hand():
    weights = np.zeros([5, 3, 4])
    weights[0] = 0.01  # uniform, whatever the sum
    weights[1, 2, 1] = 0.3  # one pixel
    weights[2, 0, :2] = 1.0  # two of them
    weights[3, 0, :3] = 0.5, 0.25, 0.25
    expected = [12, 1, 2, math.sqrt(8), 0]
    np.testing.assert_allclose(attention.effective_pixels(weights), expected)


def test_effective_pixels_is_exp_of_the_entropy():
    weights = np.random.default_rng(0).uniform(size=[B, N, H, W]).astype(np.float32)
    actual = attention.effective_pixels(weights)
    for b in range(B):
        for n in range(N):
            total = sum(float(x) for x in weights[b, n].ravel())
            shares = [float(x) / total for x in weights[b, n].ravel()]
            entropy = -sum(share * math.log(share) for share in shares)
            assert actual[b, n] == pytest.approx(math.exp(entropy))


def test_share_on_mask():
    weights = np.array([[[0.1, 0.3], [0.2, 0.2]], [[0.0, 0.0], [0.0, 0.0]]])
    masks = np.array([[[True, False], [False, True]]] * 2)
    np.testing.assert_allclose(attention.share_on_mask(weights, masks), [0.375, 0])


def layer(*, clusters: bool = True, attends: bool = True) -> LayerPredictions:
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.ones(H * W + N), size=[B, HEADS, N])[..., : H * W]
    weights = weights.reshape([B, HEADS, N, H, W])
    logits = rng.normal(size=[B, H, W, N])
    return LayerPredictions(
        tf.constant(logits, tf.float32) if clusters else None,
        None,
        tf.constant(weights, tf.float32) if attends else None,
    )


def predictions(layers) -> Predictions:
    logits = np.random.default_rng(2).normal(size=[B, 4 * H - 1, 4 * W - 2, N])
    return Predictions(tf.constant(logits), None, None, None, layers)


def test_weights_of_equation_7():
    given = layer()
    weights = attention.center_weights(given)
    for b, n, i, j in np.ndindex(B, N, H, W):
        heads = [float(given.center_attention[b, h, n, i, j]) for h in range(HEADS)]
        powers = [math.exp(x) for x in given.affinity_logits[b, i, j].numpy()]
        expected = sum(heads) / HEADS + powers[n] / sum(powers)
        assert weights.update[b, n, i, j] == pytest.approx(expected, rel=1e-5)
    without = attention.center_weights(layer(clusters=False))
    np.testing.assert_array_equal(without.update, weights.mean_attention)
    hard = attention.center_weights(layer(attends=False)).update
    assert set(np.unique(hard)) == {0, 1}
    np.testing.assert_array_equal(hard.argmax(1), weights.assignment.argmax(1))


def test_final_masks_lie_on_the_grid_of_the_layers():
    given = predictions(())
    masks = attention.final_masks(given)
    assert masks.shape == (B, N, H, W)
    for b, n, i, j in np.ndindex(B, N, H, W):
        best = given.mask_logits[b, 4 * i, 4 * j].numpy().argmax()
        assert masks[b, n, i, j] == (n == best)


def test_density_is_the_mean_over_the_centers_that_count():
    layers = layer(), layer(clusters=False), layer(attends=False)
    given = predictions(layers)
    centers = np.zeros([B, N], bool)
    centers[0, [1, 4]] = centers[1, 2] = True
    nobody = np.zeros([B, N], bool)
    results = attention.attention_density(
        [(given, centers), (given, nobody), (given, centers)]
    )
    masks = attention.final_masks(given)
    for one, result in zip(layers, results, strict=True):
        weights = attention.center_weights(one)
        kinds = {"update": weights.update}
        if one.center_attention is not None:
            kinds["attention"] = weights.mean_attention
        expected = {"pixels": H * W, "centers": 6}
        for name, values in kinds.items():
            chosen, inside = values[centers], masks[centers]
            expected[name] = np.mean([attention.effective_pixels(x) for x in chosen])
            shares = [x[m].sum() / x.sum() for x, m in zip(chosen, inside, strict=True)]
            expected[f"{name}_on_mask"] = np.mean(shares)
        if one.center_attention is not None:
            heads = np.moveaxis(weights.attention, 1, 2)[centers]
            assert heads.shape == (3, HEADS, H, W)
            expected["attention_of_a_head"] = attention.effective_pixels(heads).mean()
        assert result == pytest.approx(expected, rel=1e-6)
    assert "attention" not in results[2]


def test_density_of_no_center_is_no_number():
    nobody = np.zeros([B, N], bool)
    (result,) = attention.attention_density([(predictions((layer(),)), nobody)])
    assert math.isnan(result["attention"]) and result["centers"] == 0
    assert attention.attention_density([]) == []


def test_confident_centers():
    probs = np.array([[[0.5, 0.2, 0.3], [0.1, 0.2, 0.7], [0.39, 0.41, 0.2]]])
    found = attention.confident_centers(tf.math.log(probs), 0.4)
    np.testing.assert_array_equal(found, [[True, False, True]])
