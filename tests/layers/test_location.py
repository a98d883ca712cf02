"""Location at the start of a training: it is felt, and its points can move."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt import clustering
from cmt.layers.conv import Style
from cmt.layers.dual_path import DualPathState, TransformerLayer, TransformerSizes

NUM_POINTS = 8
STYLE = Style()
# Channels of centers and pixels, of scenes/tiny and of the paper's networks.
WIDTHS = [(64, 128), (256, 512), (256, 2048)]


def normal(*shape: int) -> tf.Tensor:
    return tf.random.stateless_normal(shape, [1, sum(shape)])


def build(center_channels: int, pixel_channels: int) -> TransformerLayer:
    sizes = TransformerSizes(center_channels, ffn_channels=64)
    layer = TransformerLayer(sizes, num_points=NUM_POINTS, style=STYLE)
    layer(
        DualPathState(
            normal(1, 3, 3, pixel_channels),
            normal(1, 5, center_channels),
            reference_embedding=normal(1, 5, 2 * NUM_POINTS),
        )
    )
    return layer


def location_share(features: tf.Tensor, coordinates: tf.Tensor, projection) -> float:
    """The part of the variance of what is projected that comes from coordinates."""
    kernel = projection.dense.kernel
    joined = clustering.coordinate_convolution(features, coordinates, tf.identity)
    channels = features.shape[-1]
    of_features = np.var(joined[..., :channels] @ kernel[:channels])
    of_coordinates = np.var(joined[..., channels:] @ kernel[channels:])
    return of_coordinates / (of_features + of_coordinates)


@pytest.mark.parametrize("widths", WIDTHS)
def test_most_of_what_a_layer_sees_first_is_location(widths):
    layer = build(*widths)
    centers = STYLE.activate(normal(4, 128, widths[0]))
    points = tf.sigmoid(normal(4, 128, 2 * NUM_POINTS))
    pixels = STYLE.activate(normal(1, 13 * 13, widths[1]))
    grid = tf.reshape(clustering.pixel_coordinates(13, 13, tf.float32), [1, -1, 2])
    # With coordinates as they are it is 0.04 and less.
    assert 0.5 < location_share(centers, points, layer.center_input) < 0.95
    assert 0.5 < location_share(pixels, grid, layer.pixel_input) < 0.95


@pytest.mark.parametrize("growth", [pytest.param(1.0, marks=pytest.mark.slow), 100.0])
def test_points_do_not_saturate(growth):
    """However large a rate has made the kernels, the sigmoid keeps its gradient."""
    embedding = normal(4, 128, 2 * NUM_POINTS)
    for _ in range(6):
        mlp = build(64, 128).reference_mask
        for dense in (mlp.hidden1, mlp.hidden2, mlp.output_layer):
            dense.dense.kernel.assign(growth * dense.dense.kernel)
        change = mlp(normal(4, 128, 64), training=True)
        embedding = clustering.update_reference_embedding(embedding, change)
    points = clustering.reference_mask(embedding)
    assert np.mean(points * (1 - points)) > 0.25 / 3  # 0.25 in the middle
