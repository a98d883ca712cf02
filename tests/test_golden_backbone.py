"""The backbone of the public predecessor, from its checkpoint, in both our layouts.

With the stronger decoder stage 5 is the backbone's, without it the decoder's.
"""

from __future__ import annotations

import numpy as np
import pytest

from cmt.weights.load import load_initial_checkpoint
from tests.golden_networks import small_max_deeplab_s

LAYOUTS = {"stronger": "decoder { stronger: true }", "basic": ""}
STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5")
NUM_BLOCKS = (3, 4, 6, 3)
NUM_VARIABLES = 491


@pytest.fixture
def folder(shared):
    return shared / "golden/axial_backbone"


def _stages(model, images, training):
    """Outputs of the stages by name, in one pass."""
    features, outputs = images, {}
    for layer in model.backbone.stem:
        features = layer(features, training=training)
    outputs["stage1"] = features
    blocks = list(model.backbone.blocks)
    if model.decoder.stage5 is not None:
        blocks += model.decoder.stage5.blocks
    assert len(blocks) == sum(NUM_BLOCKS)
    for name, count in zip(STAGES[1:], NUM_BLOCKS, strict=True):
        for _ in range(count):
            features = blocks.pop(0)(features, training=training)
        outputs[name] = features
    return outputs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_backbone_equals_reference(layout, folder):
    model = small_max_deeplab_s(LAYOUTS[layout])
    report = load_initial_checkpoint(model, folder / "backbone_ckpt")
    assert report.kind == "DeepLab2"
    assert report.backbone_share == 1.0 and report.share < 1.0
    assert len(report.matched) == NUM_VARIABLES
    assert report.unexpected == report.wrong_shape == report.skipped_heads == []
    assert {name.split("/")[0] for name in report.missing} == {
        "cluster_centers", "decoder", "head", "semantic_branch",
    }  # fmt: skip

    expected = np.load(folder / "backbone_io.npz")
    found = _stages(model, expected["input_normalised"], training=False)
    for name in STAGES:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=2e-4)
    final = np.maximum(found["stage5"], 0)
    np.testing.assert_allclose(final, expected["res5"], rtol=0, atol=2e-4)
    public = model.backbone(expected["input_normalised"], training=False)
    np.testing.assert_array_equal(public.stage4, found["stage4"])

    expected = np.load(folder / "backbone_train_io.npz")
    images = expected["image_uint8"].astype(np.float32) / 127.5 - 1
    found = _stages(model, images, training=True)
    for name in STAGES[2:]:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-3)
    _check_moving_statistics(model, report, expected)


def _check_moving_statistics(model, report, expected):
    names = {key: name for name, key in report.matched.items()}
    variables = {v.name.split(":")[0]: v for v in model.variables}
    keys = [k for k in expected.files if k.startswith("after_step/")]
    assert len(keys) >= 4
    for key in keys:
        stored = key.removeprefix("after_step/").removesuffix(
            "/.ATTRIBUTES/VARIABLE_VALUE"
        )
        name = names[stored]
        (variable,) = (v for n, v in variables.items() if n.endswith(name))
        # As in the layers' own golden test: relative to the size of the values.
        np.testing.assert_allclose(
            np.ravel(variable), np.ravel(expected[key]), rtol=1e-5, atol=1e-5
        )
