from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cmt.io.png import encode_png


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (13, 17)])
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64])
def test_labels_survive(shape, kind):
    labels = np.random.default_rng(2).integers(0, 65536, shape).astype(kind)
    labels.flat[0] = 65535
    encoded = encode_png(labels)
    decoded = tf.io.decode_png(encoded, channels=1, dtype=tf.uint16)[..., 0]
    np.testing.assert_array_equal(decoded, labels)
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.mode == "I;16" and image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), labels)


def test_a_view_is_encoded_as_it_looks():
    labels = np.arange(60).reshape(6, 10)[::2, ::-3]
    decoded = tf.io.decode_png(encode_png(labels), channels=1, dtype=tf.uint16)
    np.testing.assert_array_equal(decoded[..., 0], labels)


@pytest.mark.parametrize("compression", [1, 3])
def test_colours_survive(compression):
    colors = np.random.default_rng(3).integers(0, 256, (13, 17, 3)).astype(np.uint8)
    for pixels in (colors, colors[::-2, ::3], colors[..., ::-1]):
        encoded = encode_png(pixels, compression=compression)
        np.testing.assert_array_equal(tf.io.decode_png(encoded), pixels)
        with Image.open(io.BytesIO(encoded)) as image:
            assert image.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(image), pixels)


def test_label_maps_are_small():
    labels = np.zeros((480, 640), np.uint16)
    labels[100:300, 200:500] = 4 * 256 + 1
    assert len(encode_png(labels)) < 6000
