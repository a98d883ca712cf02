"""Logits that are upsampled strip by strip, against all of them at once."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.upsampling import map_upsampled_strips


@pytest.mark.parametrize(
    ("rows", "height"),
    [(9, 33), (10, 37), (11, 31), (7, 7), (7, 12), (5, 3), (2, 9), (1, 1), (1, 4)],
)
def test_strips_are_rows_of_the_whole(rows, height):
    """Of 4 cells and less, of other factors, and where H - 1 is no multiple."""
    rng = np.random.default_rng(rows)
    logits = [rng.normal(size=[rows, 5, n]).astype(np.float32) for n in (3, 2)]
    size = (height, 17)
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
    tolerance = 0 if height - 1 == 4 * (rows - 1) else 1e-5
    for one, whole in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, whole, rtol=0, atol=tolerance)
