"""Logits that are upsampled strip by strip, against all of them at once."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.upsampling import map_upsampled_strips


@pytest.mark.parametrize(
    ("columns", "width"),
    [(9, 33), (10, 37), (11, 31), (7, 7), (7, 12), (5, 3), (2, 9), (1, 1), (1, 4)],
)
def test_strips_are_columns_of_the_whole(columns, width):
    """Of 4 cells and less, of other factors, and where W - 1 is no multiple."""
    rng = np.random.default_rng(columns)
    logits = [rng.normal(size=[5, columns, n]).astype(np.float32) for n in (3, 2)]
    size = (17, width)
    wanted = [
        tf.raw_ops.ResizeBilinear(images=[part], size=size, align_corners=True)[0]
        for part in logits
    ]
    found = map_upsampled_strips(
        lambda *parts: parts,
        tuple(tf.constant(part) for part in logits),
        size,
        tuple(tf.TensorSpec([part.shape[-1]]) for part in logits),
    )
    for one, whole in zip(found, wanted, strict=True):
        np.testing.assert_allclose(np.swapaxes(one, 0, 1), whole, rtol=0, atol=1e-5)
