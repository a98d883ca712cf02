"""Checkpoints of DeepLab2 for evaluation and prediction, with a config alone."""

from __future__ import annotations

import functools
import json
import logging

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

from cmt.cli.main import main
from cmt.config import load_experiment, parse_experiment, to_text
from cmt.data.input.open import Data
from cmt.data.panoptic.categories import read_categories
from cmt.errors import InputError
from cmt.factory import build_model
from cmt.protos import model_pb2
from cmt.serving.factory import find_categories, load_predictor
from cmt.weights.load import load_initial_checkpoint, load_weights
from cmt.weights.names import SUFFIX, deeplab2_key
from tests.golden_networks import SMALL_MAX_DEEPLAB_S
from tests.test_weights import MINIATURE, _filled, _values, _write

MAX_DEEPLAB = """
  activation: RELU
  decoder { stronger: false }
  transformer { assignment: CROSS_ATTENTION }
  location { enabled: false }
"""
CATEGORIES = [
    {"id": number, "name": f"class {number}", "isthing": number % 2, "color": [9, 9, 9]}
    for number in (3, 5, 8, 9, 12)
]


def model_config(*changes: str) -> model_pb2.ModelConfig:
    settings = text_format.Parse(MINIATURE, model_pb2.ModelConfig())
    for change in (MAX_DEEPLAB, *changes):
        text_format.Merge(change, settings)
    return settings


@functools.cache
def network_of(*changes: str, copy: int = 0):
    """The same object for the same arguments."""
    network = build_model(model_config(*changes))
    network.build((None, 33, 33, 3))
    return network


@pytest.fixture(scope="module")
def source():
    """Its kernels are small, so that its outputs are finite."""
    network = _filled(network_of(copy=1), seed=1)
    for variable in network.variables:
        if "kernel" in variable.name:
            variable.assign(variable / 50)
    return network


@pytest.fixture(scope="module")
def stored(source) -> dict[str, np.ndarray]:
    """The values as DeepLab2 names them, with what else it writes."""
    values = {
        deeplab2_key(name, stage5_blocks=2) + SUFFIX: value
        for name, value in _values(source).items()
    }
    values[f"global_step{SUFFIX}"] = np.int64(100_000)
    values[f"backbone_optimizer/iter{SUFFIX}"] = np.int64(7)
    values[f"save_counter{SUFFIX}"] = np.int64(2)
    return values


def test_all_values_and_the_step(source, stored, tmp_path):
    prefix = _write(tmp_path / "ckpt-1", stored)
    network = _filled(network_of(), seed=2)
    assert load_weights(network, str(prefix)) == 100_000
    wanted = _values(source)
    assert len(wanted) > 300
    for name, value in _values(network).items():
        np.testing.assert_array_equal(value, wanted[name], err_msg=name)


def test_the_semantic_branch_may_be_missing_or_too_much(stored, tmp_path):
    without = {k: v for k, v in stored.items() if not k.startswith("semantic_")}
    without.pop(f"global_step{SUFFIX}")
    assert len(without) < len(stored) - 20
    prefix = _write(tmp_path / "without", without)
    assert load_weights(network_of(), str(prefix)) == 0
    prefix = _write(tmp_path / "with", stored)
    bare = network_of("auxiliary_semantic { enabled: false }")
    assert load_weights(bare, str(prefix)) == 100_000


def without_a_head(values):
    del values[f"transformer_class_head/_conv/bias{SUFFIX}"]


def with_more(values):
    values[f"encoder/_stage6/_block1/_conv1_bn_act/_conv/kernel{SUFFIX}"] = np.ones([3])


def of_other_classes(values):
    for leaf in ("kernel", "bias"):
        key = f"transformer_class_head/_conv/{leaf}{SUFFIX}"
        values[key] = values[key][..., :3]


def not_finite(values):
    key = f"encoder/_stem/_conv1_bn_act/_conv/kernel{SUFFIX}"
    values[key] = np.full_like(values[key], np.nan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_head, r"1 missing in it \(head/class_head/bias\)"),
        (with_more, r"1 not in the model \(encoder/_stage6/_block1/"),
        (of_other_classes, r"2 of another shape \(head/class_head/"),
        (not_finite, "holds values that are not finite"),
    ],
)
def test_what_does_not_fit_is_one_line_and_loads_nothing(
    stored, tmp_path, change, message
):
    values = dict(stored)
    change(values)
    prefix = _write(tmp_path / "ckpt-1", values)
    network = _filled(network_of(), seed=2)
    before = _values(network)
    with pytest.raises(InputError, match=message) as caught:
        load_weights(network, str(prefix))
    assert "\n" not in str(caught.value)
    for name, value in _values(network).items():
        np.testing.assert_array_equal(value, before[name])


def test_another_activation_is_told(stored, tmp_path, caplog):
    prefix = _write(tmp_path / "ckpt-1", stored)
    network = network_of("activation: GELU")
    with caplog.at_level(logging.WARNING):
        load_weights(network, str(prefix))
    assert "with RELU, and this one has GELU; set model.activation=RELU" in caplog.text
    report = load_initial_checkpoint(network, prefix)
    assert report.summary_lines()[-1].startswith("  another activation: DeepLab2 ")
    assert report.unexpected == []


def test_predict_takes_a_config_and_a_checkpoint(stored, tmp_path, capsys):
    """With the list of classes that the config names."""
    prefix = _write(tmp_path / "ckpt-1", stored)
    listed = tmp_path / "classes.json"
    listed.write_text(json.dumps(CATEGORIES))
    config = tmp_path / "max.textproto"
    changes = ["merge=PIXEL_WISE", "pixel_confidence=0"]
    for kind in ("thing", "stuff"):
        changes += [f"{kind}_confidence=0", f"min_{kind}_area_pixels=0"]
    changes = [f"evaluation.{change}" for change in changes]
    changes += ["data.crop_height_pixels=33", "data.crop_width_pixels=33"]
    changes += ["data.max_masks=6", "model.num_centers=6"]
    changes += [f'data.categories="{listed}"']
    experiment = parse_experiment("", "max.textproto", changes)
    experiment.model.CopyFrom(model_config())
    config.write_text(to_text(experiment))
    rng = np.random.default_rng(0)
    photo = tmp_path / "photo.png"
    Image.fromarray(rng.integers(0, 255, [40, 50, 3], np.uint8)).save(photo)
    line = ["predict", str(config), str(photo), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stopped:
        main([*line, "--checkpoint", str(prefix)])
    assert stopped.value.code == 0, capsys.readouterr().err
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    (entry,) = content["images"]
    assert entry["size"] == [40, 50] and entry["segments"]
    known = {c["id"]: c["name"] for c in CATEGORIES}
    for segment in entry["segments"]:
        assert segment["category"] == known[segment["category_id"]]


def test_the_classes_of_coco_are_in_the_package(shared):
    experiment = load_experiment("coco/max_deeplab_s_relu_641")
    found = find_categories(experiment, Data(experiment.data), "nowhere/ckpt-1")
    assert (len(found), sum(c.is_thing for c in found)) == (133, 80)
    annotations = shared / "coco_samples" / "annotations" / "panoptic_real.json"
    wanted = json.loads(annotations.read_text())["categories"]
    assert [c.to_json() for c in found] == [
        {**c, "supercategory": "thing" if c["isthing"] else "stuff"} for c in wanted
    ]


def test_a_list_of_classes_that_is_not_there():
    experiment = load_experiment("coco/max_deeplab_s_relu_641", ["data.categories=no"])
    with pytest.raises(InputError, match="no: no such file; it holds the classes"):
        find_categories(experiment, Data(experiment.data), "nowhere/ckpt-1")


def test_the_reference_checkpoint_predicts_as_its_own_code(shared):
    """With the config alone: the outputs of the reference, before merging."""
    folder = shared / "golden" / "axial_backbone"
    text = f"model {{ {SMALL_MAX_DEEPLAB_S} }} data {{ crop_height_pixels: 129 "
    text += 'crop_width_pixels: 129 categories: "coco/categories" }'
    experiment = parse_experiment(text, "small.textproto")
    predictor, step = load_predictor(
        experiment, Data(experiment.data), folder / "full_ckpt"
    )
    stored = tf.train.load_checkpoint(tf.train.latest_checkpoint(folder / "full_ckpt"))
    assert step == stored.get_tensor(f"global_step{SUFFIX}")
    assert predictor.categories == read_categories("configs/coco/categories.json")
    expected = np.load(folder / "full_io.npz")
    outputs = predictor.network(expected["image_uint8"], training=False)
    for found, name, tolerance in (
        (outputs.mask_logits, "pixel_space_mask_logits", 1e-3),
        (outputs.class_logits, "transformer_class_logits", 5e-4),
    ):
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=tolerance)
