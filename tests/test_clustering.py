"""Eq. 3-12 against NumPy loops, with a different prime on each axis, and by hand."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import tensorflow as tf

from cmt import clustering
from cmt.equations import EQUATIONS

B, P, N, D, E, M = 2, 7, 5, 3, 11, 13
HEADS = 2


def values(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(sum(shape) * 1000 + len(shape))
    return rng.normal(size=shape).astype(np.float32)


def softmax(logits: list[float]) -> list[float]:
    largest = max(logits)
    powers = [math.exp(logit - largest) for logit in logits]
    return [power / sum(powers) for power in powers]


def dot(a, b) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def close(actual, expected) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def attend(query, key, value, **more):
    return clustering.retrieve(clustering.attention_weights(query, key, **more), value)


def test_attention_is_a_softmax_over_the_keys():  # Eq. 3
    query, key = values(B, N, HEADS, D), values(B, P, HEADS, D)
    value = values(B, P, HEADS, E)
    weights = np.zeros([B, HEADS, N, P])
    expected = np.zeros([B, N, HEADS, E])
    for b in range(B):
        for n in range(N):
            for h in range(HEADS):
                logits = [dot(query[b, n, h], key[b, p, h]) for p in range(P)]
                weights[b, h, n] = softmax(logits)
                for p in range(P):
                    expected[b, n, h] += weights[b, h, n, p] * value[b, p, h]
    close(clustering.attention_weights(query, key), weights)
    close(attend(query, key, value), expected)


def test_attention_normalizes_the_logits():
    query, key = values(B, N, HEADS, D), values(B, P, HEADS, D)
    value = values(B, P, HEADS, E)
    doubled = attend(query, key, value, normalize=lambda x: 2 * x)
    close(doubled, attend(2 * query, key, value))


def test_affinity_and_assignment():  # Eq. 4 and 6
    previous, key, query = values(B, P, N), values(B, P, D), values(B, N, D)
    logits = np.zeros([B, P, N])
    assignment = np.zeros([B, P, N])
    for b in range(B):
        for p in range(P):
            for n in range(N):
                logits[b, p, n] = previous[b, p, n] + dot(key[b, p], query[b, n])
            assignment[b, p] = softmax(list(logits[b, p]))
    actual = clustering.update_affinity(previous, key, query)
    close(actual, logits)
    close(clustering.assign(actual), assignment)
    close(tf.reduce_sum(clustering.assign(actual), axis=-1), np.ones([B, P]))


def test_first_affinity_starts_at_zero():
    key, query = values(B, P, D), values(B, N, D)
    first = clustering.update_affinity(None, key, query, normalize=lambda x: 3 * x)
    close(first, 3 * clustering.update_affinity(np.zeros([B, P, N]), key, query))


def test_pool_pixels():  # Eq. 5
    assignment, value = values(B, P, N), values(B, P, E)
    expected = np.zeros([B, N, E])
    for b in range(B):
        for n in range(N):
            for p in range(P):
                expected[b, n] += assignment[b, p, n] * value[b, p]
    close(clustering.pool_pixels(assignment, value), expected)


def test_update_centers_is_one_product_with_both_weights():  # Eq. 7
    centers, query = values(B, N, E), values(B, N, D)
    key, value = values(B, P, D), values(B, P, E)
    assignment = clustering.assign(values(B, P, N)).numpy()
    expected = np.array(centers, np.float64)
    for b in range(B):
        for n in range(N):
            attention = softmax([dot(query[b, n], key[b, p]) for p in range(P)])
            for p in range(P):
                expected[b, n] += (attention[p] + assignment[b, p, n]) * value[b, p]
    attended = attend(query[:, :, None], key[:, :, None], value[:, :, None])[:, :, 0]
    pooled = clustering.pool_pixels(assignment, value)
    update = clustering.combine_updates(attended, pooled)
    close(clustering.update_centers(centers, update), expected)
    close(clustering.combine_updates(attended, None), attended)


def test_update_pixels():  # Eq. 8
    features, center_value = values(B, P, E), values(B, N, E)
    assignment = values(B, P, N)
    expected = np.array(features, np.float64)
    for b in range(B):
        for p in range(P):
            for n in range(N):
                expected[b, p] += assignment[b, p, n] * center_value[b, n]
    spread = clustering.spread_centers(assignment, center_value)
    close(clustering.update_pixels(features, spread), expected)


def test_reference_mask():  # Eq. 9 and 10
    embedding, change = values(B, N, 2 * M), values(B, N, 2 * M)
    updated = clustering.update_reference_embedding(embedding, change)
    points = clustering.reference_mask(updated).numpy()
    assert points.shape == (B, N, M, 2)
    for b in range(B):
        for n in range(N):
            for m in range(M):
                for axis in range(2):
                    i = axis * M + m
                    e = float(embedding[b, n, i]) + float(change[b, n, i])
                    expected = 1 / (1 + math.exp(-e))
                    assert points[b, n, m, axis] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("batch_of_coordinates", [B, 1])
def test_coordinate_convolution(batch_of_coordinates):  # Eq. 11 and 12
    features, coordinates = values(B, N, D), values(batch_of_coordinates, N, M)
    kernel = values(D + M, E)
    scale = math.sqrt(12 * clustering.LOCATION_POWER * D / M)
    expected = np.zeros([B, N, E])
    for b in range(B):
        for n in range(N):
            own = [
                scale * (float(x) - 0.5) for x in coordinates[b % len(coordinates), n]
            ]
            joined = [*features[b, n], *own]
            for e in range(E):
                expected[b, n, e] = dot(joined, kernel[:, e])
    convolve = lambda joined: tf.matmul(joined, kernel)  # noqa: E731
    close(clustering.coordinate_convolution(features, coordinates, convolve), expected)


def test_pixel_coordinates():  # r^p of Eq. 12
    grid = clustering.pixel_coordinates(5, 3, tf.float32).numpy()
    for i in range(5):
        for j in range(3):
            assert grid[i, j].tolist() == [i / 4, j / 2]
    assert clustering.pixel_coordinates(1, 1, tf.float32).numpy().tolist() == [[[0, 0]]]


def test_a_cluster_update_by_hand():
    """Two pixels, two centers, features 1 apart: the numbers fit on a page."""
    assignment = clustering.assign(tf.constant([[[0.0, math.log(3.0)], [0.0, 0.0]]]))
    close(assignment, [[[0.25, 0.75], [0.5, 0.5]]])
    close(
        clustering.pool_pixels(assignment, tf.constant([[[4.0], [2.0]]])),
        [[[2.0], [4.0]]],
    )
    close(
        clustering.spread_centers(assignment, tf.constant([[[8.0], [4.0]]])),
        [[[5.0], [6.0]]],
    )


def test_permuting_centers_permutes_the_outputs():
    order = np.random.default_rng(0).permutation(N)
    key, query, value = values(B, P, D), values(B, N, D), values(B, P, E)
    assignment = clustering.assign(clustering.update_affinity(None, key, query))
    permuted = clustering.assign(clustering.update_affinity(None, key, query[:, order]))
    close(permuted, assignment.numpy()[:, :, order])
    close(
        clustering.pool_pixels(permuted, value),
        clustering.pool_pixels(assignment, value).numpy()[:, order],
    )


def test_every_equation_is_where_the_map_says():
    assert set(EQUATIONS) == set(range(3, 15))
    for number, places in EQUATIONS.items():
        for place in places:
            module, name = place.rsplit(".", 1)
            documentation = getattr(importlib.import_module(module), name).__doc__
            assert str(number) in documentation, (number, place)


def test_assign_to_best_by_hand():  # k-means: hard, first of equals, no gradient
    logits = tf.constant([[[1.0, 3.0, 2.0], [5.0, 0.0, 5.0], [-2.0, -2.0, -1.0]]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        assignment = clustering.assign_to_best(logits)
        total = tf.reduce_sum(assignment * tf.constant([1.0, 2.0, 4.0]))
    expected = [[[0, 1, 0], [1, 0, 0], [0, 0, 1]]]
    np.testing.assert_array_equal(assignment, expected)
    assert tape.gradient(total, logits) is None


def test_assign_to_best_sums_pixels_by_cluster():
    logits, pixels = values(B, P, N), values(B, P, D)
    expected = np.zeros([B, N, D])
    for b in range(B):
        for p in range(P):
            best = 0
            for n in range(N):
                if logits[b, p, n] > logits[b, p, best]:
                    best = n
            expected[b, best] += pixels[b, p]
    assignment = clustering.assign_to_best(tf.constant(logits))
    close(clustering.pool_pixels(assignment, pixels), expected)


def test_assignments_are_in_float32():
    """The softmax over the centers, whatever the logits are in."""
    logits = tf.cast(values(B, P, N), tf.bfloat16)
    assert clustering.assign(logits).dtype == tf.float32
