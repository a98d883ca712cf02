"""Families of networks, exported: the gate, and what `cmt predict` makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from cmt.config import load_experiment
from cmt.data.panoptic.categories import Category
from cmt.factory import build_model
from cmt.serving import export, parity
from cmt.serving.factory import build_predictor, crop_size
from cmt.serving.saved_model import load_saved_model
from tests import fakes

pytestmark = pytest.mark.slow

# At random weights no center is sure of anything, and all have to count.
EVERYTHING = [
    f"evaluation.{name}=0"
    for name in (
        "thing_confidence",
        "stuff_confidence",
        "pixel_confidence",
        "min_thing_area_pixels",
        "min_stuff_area_pixels",
    )
]
NARROW = """
  backbone {
    stem1_channels: 8 stem2_channels: 8 stem3_channels: 16
    stage2_channels: 8 stage3_channels: 16 stage4_channels: 32 stage5_channels: 64
  }
  transformer {
    center_channels: 64 bottleneck_channels: 64 key_channels: 32 value_channels: 64
    ffn_channels: 128
  }
  heads {
    center_feature_channels: 64 pixel_hidden_channels: 32 pixel_feature_channels: 16
  }
"""


def exported(config: str, width: str, samples: list[bytes], folder: Path) -> Path:
    """A version folder of a network with random weights, 97 pixels wide."""
    tf.random.set_seed(3)
    sizes = [f"data.crop_{side}_pixels=97" for side in ("height", "width")]
    experiment = load_experiment(config, [*EVERYTHING, *sizes])
    text_format.Merge(width, experiment.model)
    network = build_model(experiment.model)
    # AutoGraph would rewrite all of tf_keras to no effect, in many times the time.
    build = tf.autograph.experimental.do_not_convert(network.build)
    build((None, *crop_size(experiment), 3))
    network.semantic_branch = None
    number = experiment.model.num_classes
    categories = [
        Category(i + 1, f"class {i}", i % 2 == 0, (0, 0, 0)) for i in range(number)
    ]
    predictor = build_predictor(experiment, network, categories)
    return export.export_model(
        predictor,
        folder / "model",
        samples=[*samples, *parity.made_up_images(predictor.crop_size)],
        step=0,
        config_name=experiment.name,
        config_text="",
    )


@pytest.mark.parametrize(
    ("config", "width"),
    [
        ("coco/max_deeplab_s_relu_641", NARROW),
        ("coco/cmt_deeplab_axial_r50_641", NARROW),
        ("coco/cmt_deeplab_axial_r104_641", NARROW),
        ("coco/cmt_deeplab_axial_r104_rfn_1281", NARROW),
        ("scenes/ablations/kmeans", NARROW),
        ("coco/cmt_deeplab_axial_r50_641", ""),
    ],
    ids=["max_deeplab_s", "r50", "r104", "r104_rfn", "kmeans", "r50_full_width"],
)
def test_exported_equal(config, width, samples, tmp_path):
    folder = exported(config, width, samples, tmp_path)
    segmenter = load_saved_model(folder)
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    for batch, height, width in ((1, 97, 97), (3, 60, 90)):
        images = np.stack([fakes.make_image(height, width, i) for i in range(batch)])
        served = signature(images=tf.constant(images))
        found = segmenter.run(images)
        assert np.asarray(served["segment_ids"]).any(axis=1).all()
        for name, value in served.items():
            if name == "scores":
                np.testing.assert_allclose(found[name], value, atol=1e-5)
            else:
                np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_openvino_agrees(samples, tmp_path):
    openvino = pytest.importorskip(
        "openvino", reason="NOT VERIFIED: openvino is not installed"
    )
    folder = exported("coco/cmt_deeplab_axial_r50_641", NARROW, samples, tmp_path)
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(folder), "CPU", settings)
    run = load_saved_model(folder).run
    for batch, height, width in ((1, 50, 70), (3, 90, 40)):
        images = np.stack([fakes.make_image(height, width, i) for i in range(batch)])
        found = compiled(images)
        by_name = {name: v for out, v in found.items() for name in out.get_names()}
        for name, value in run(images).items():
            if name == "scores":
                np.testing.assert_allclose(by_name[name], value, atol=1e-5)
            else:
                np.testing.assert_array_equal(by_name[name], value, err_msg=name)
