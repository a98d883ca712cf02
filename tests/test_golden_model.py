"""The whole MaX-DeepLab-S layout against a small reference checkpoint.

CMT-DeepLab without its three additions is MaX-DeepLab-S: here it takes its weights
from a checkpoint of the public predecessor at width 1/8, and its outputs are compared.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.weights.load import load_initial_checkpoint
from tests.golden_networks import small_max_deeplab_s

NUM_VARIABLES = 907


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "golden/axial_backbone"


@pytest.fixture(scope="module")
def expected(folder):
    return np.load(folder / "full_io.npz")


@pytest.fixture(scope="module")
def model(folder):
    model = small_max_deeplab_s()
    report = load_initial_checkpoint(model, folder / "full_ckpt")
    assert report.kind == "DeepLab2"
    assert len(report.matched) == len(set(report.matched.values())) == NUM_VARIABLES
    assert (report.share, report.backbone_share) == (1.0, 1.0)
    lists = (report.missing, report.unexpected, report.wrong_shape)
    assert lists == ([], [], [])
    assert report.skipped_heads == report.resized_tables == []
    return model


def test_final_outputs(model, expected):
    predictions = model(expected["image_uint8"], training=False)
    for output, name, tolerance in (
        (predictions.mask_logits, "pixel_space_mask_logits", 1e-3),
        (predictions.class_logits, "transformer_class_logits", 5e-4),
        (predictions.pixel_features, "pixel_space_normalized_feature", 5e-4),
        (predictions.semantic_logits, "semantic_logits", 5e-4),
    ):
        np.testing.assert_allclose(output, expected[name], rtol=0, atol=tolerance)


def test_what_is_between(model, expected):
    stages = model.backbone(expected["input_normalised"], training=False)
    centers = model.cluster_centers[tf.newaxis]
    decoded = model.decoder(stages, centers, None, training=False)
    centers = decoded.cluster_centers
    for output, name in (
        (decoded.semantic_features, "feature_semantic"),
        (tf.nn.relu(decoded.pixel_features), "feature_panoptic"),
        (model.head.class_feature(centers), "transformer_class_feature"),
        (model.head.mask_feature(centers), "transformer_mask_feature"),
    ):
        assert output.shape == expected[name].shape
        np.testing.assert_allclose(output, expected[name], rtol=0, atol=5e-4)
