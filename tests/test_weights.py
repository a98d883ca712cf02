"""Initial weights: what is matched, what is refused, and that nothing is reshaped."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from cmt.errors import InputError
from cmt.factory import build_model
from cmt.layers.attention import relative_embeddings
from cmt.protos import model_pb2
from cmt.weights.load import load_initial_checkpoint
from cmt.weights.names import deeplab2_key, deeplab2_prefix, is_weight, local_name
from tests.golden_networks import small_max_deeplab_s

MINIATURE = """
  num_classes: 5 num_centers: 6
  backbone {
    stem1_channels: 4 stem2_channels: 4 stem3_channels: 8
    stage2_channels: 4 stage3_channels: 4 stage4_channels: 4 stage5_channels: 4
    stage2_blocks: 1 stage3_blocks: 1 stage4_blocks: 2 stage5_blocks: 2
    num_heads: 2 max_relative_positions: 5
  }
  decoder { stage5_layers: 1 stage4_layers: 1 basic_layers: 1 }
  transformer {
    center_channels: 8 bottleneck_channels: 8 key_channels: 8 value_channels: 8
    num_heads: 2 ffn_channels: 8
  }
  location { num_points: 2 mlp_channels: 8 }
  heads {
    center_feature_channels: 8 pixel_hidden_channels: 8 pixel_feature_channels: 8
  }
  auxiliary_semantic {
    channels: 8 stage3_projection_channels: 4 stage2_projection_channels: 4
  }
"""
HEADS = ("head/class_head/", "semantic_branch/head/last/")
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def _built(*changes):
    settings = text_format.Parse(MINIATURE, model_pb2.ModelConfig())
    for change in changes:
        text_format.Merge(change, settings)
    network = build_model(settings)
    network.build((None, 33, 33, 3))
    return network


@functools.cache
def _cached(seed, *changes):
    return _built(*changes)


def _network(*changes, seed=1):
    """A miniature with random values; the same object for the same arguments."""
    return _filled(_cached(seed, *changes), seed)


def _filled(network, seed):
    """Random values in all variables, norms and statistics too."""
    random = np.random.default_rng(seed)
    for variable in network.variables:
        variable.assign(random.uniform(0.5, 1.5, variable.shape).astype(np.float32))
    return network


def _values(network):
    """Values by name, as the report of a network of one pass has them."""
    return {local_name(v.name): v.numpy() for v in network.variables}


def _saved(network, folder):
    """As `cmt train` writes them."""
    parts = tf.train.Checkpoint(model=network, step=tf.Variable(3, dtype=tf.int64))
    return parts.write(str(folder / "step-3"))


def _write(path, values):
    """A checkpoint of these keys alone, without an object graph."""
    tf.raw_ops.SaveV2(
        prefix=str(path),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(values.values()),
    )
    return path


@pytest.fixture(scope="module")
def source():
    return _network()


@pytest.fixture(scope="module")
def stored(source, tmp_path_factory):
    return _saved(source, tmp_path_factory.mktemp("own"))


def _assert_equal(network, source, names):
    after, wanted = _values(network), _values(source)
    assert names
    for name in names:
        np.testing.assert_array_equal(after[name], wanted[name], err_msg=name)


def test_all_but_the_heads_of_another_class_count(source, stored):
    network = _network("num_classes: 7", seed=2)
    before = _values(network)
    report = load_initial_checkpoint(network, stored)
    assert report.kind == "cmt" and report.backbone_share == 1.0
    heads = [name for name in before if name.startswith(HEADS)]
    assert [text.split(":")[0] for text in report.skipped_heads] == heads
    assert "head/class_head/kernel: [8, 6], [8, 8]" in report.skipped_heads
    assert len(heads) == 4
    assert set(report.matched) == set(before) - set(heads)
    assert report.missing == report.unexpected == report.wrong_shape == []
    _assert_equal(network, source, report.matched)
    for name in heads:
        np.testing.assert_array_equal(_values(network)[name], before[name])
    counts = {name: value.size for name, value in before.items()}
    lost = sum(counts[name] for name in heads) / sum(counts.values())
    assert report.share == pytest.approx(1 - lost)


def test_the_report(stored):
    report = load_initial_checkpoint(_network("num_classes: 7", seed=2), stored)
    lines = report.summary_lines()
    assert "100% of the backbone's" in lines[0] and str(stored) in lines[0]
    assert lines[1].startswith("  head of another class count, starts fresh: 4 (")
    assert len(lines) == 2
    written = json.loads(report.to_json())
    name = "backbone/stem1/norm/gamma"
    assert written["matched"][name] == "model/backbone/stem/0/norm/gamma"
    assert written["skipped_heads"] == report.skipped_heads


def test_keras_weights(source, tmp_path):
    source.save_weights(str(tmp_path / "weights"))
    network = _network(seed=2)
    report = load_initial_checkpoint(network, tmp_path)
    assert report.share == 1.0 and report.unexpected == []
    _assert_equal(network, source, _values(source))


def test_parts_that_one_of_both_lacks(source, stored):
    """Keras's numbers of layers differ then."""
    network = _network("auxiliary_semantic { enabled: false }", seed=2)
    report = load_initial_checkpoint(network, stored)
    assert report.share == 1.0 and report.missing == report.wrong_shape == []
    assert {path.split("/")[0] for path in report.unexpected} == {"semantic_branch"}
    _assert_equal(network, source, _values(network))


def test_without_location_only_input_projections_have_another_shape(stored):
    report = load_initial_checkpoint(_network("location { enabled: false }"), stored)
    assert report.missing == [] and report.wrong_shape
    for line in report.wrong_shape:
        assert "center_input/dense/kernel" in line or "pixel_input/" in line
    places = {path.split("/")[0] for path in report.unexpected}
    assert places == {"reference_embedding", "decoder"}


def test_stage_5_moves_between_backbone_and_decoder(source, stored, tmp_path):
    basic = _network("decoder { stronger: false }", seed=2)
    assert load_initial_checkpoint(basic, stored).backbone_share == 1.0
    back = _network(seed=2)
    report = load_initial_checkpoint(back, _saved(basic, tmp_path))
    assert report.backbone_share == 1.0 and report.share < 1.0
    for network in (basic, back):
        for ours, theirs in zip(
            network.backbone_variables, source.backbone_variables, strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_two_passes(source, stored, tmp_path):
    network = _network("rfn: true", seed=2)
    report = load_initial_checkpoint(network, stored)
    assert report.share == report.backbone_share == 1.0
    for part in (network.first, network.second):
        for ours, theirs in zip(part.variables, source.variables, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert "second/backbone/stem1/conv/kernel" in report.matched

    prefix = _saved(_filled(network, seed=3), tmp_path)
    wanted = [variable.numpy() for variable in network.variables]
    report = load_initial_checkpoint(_filled(network, seed=4), prefix)
    assert report.share == 1.0 and report.unexpected == []
    for ours, theirs in zip(network.variables, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    keys = {n: deeplab2_key(n, stage5_blocks=0) for n in _values(source)}
    values = {f"{keys[n]}{SUFFIX}": v for n, v in _values(source).items() if keys[n]}
    prefix2 = _write(tmp_path / "deeplab2", values)
    report = load_initial_checkpoint(_filled(network, seed=4), prefix2)
    assert report.kind == "DeepLab2" and report.backbone_share == 1.0
    matched = {n for n in report.matched if n.startswith("second/")}
    assert matched == {f"second/{name}" for name in keys if keys[name]}
    for part in (network.first, network.second):
        _assert_equal(part, source, [name for name in keys if keys[name]])

    _filled(network, seed=3)
    once = _network(seed=2)
    assert load_initial_checkpoint(once, prefix).share == 1.0
    for ours, theirs in zip(once.variables, network.first.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_too_little_of_the_backbone(source, stored):
    network = _network("backbone { stage4_blocks: 4 stem1_channels: 5 }", seed=2)
    before = _values(network)
    with pytest.raises(InputError, match="90% are needed") as error:
        load_initial_checkpoint(network, stored)
    message = str(error.value)
    assert "trainer.allow_partial_backbone=true in the config" in message
    assert "allow_partial_backbone=True in Python" in message and "\n" not in message
    assert "missing in it (backbone/stage4_block3/" in message
    assert "of another shape in it (backbone/stem1/conv/kernel: " in message
    for name, value in _values(network).items():
        np.testing.assert_array_equal(value, before[name])
    report = load_initial_checkpoint(network, stored, allow_partial_backbone=True)
    assert 0 < report.backbone_share < 0.9
    assert any(n.startswith("backbone/stage4_block3/") for n in report.missing)
    # Not by its number among all blocks, which is another one here.
    assert any(n.startswith("backbone/stage5_block1/") for n in report.matched)
    _assert_equal(network, source, report.matched)
    wrong = {text.split(":")[0] for text in report.wrong_shape}
    assert {"backbone/stem1/norm/beta", "backbone/stem2/conv/kernel"} < wrong
    for name in wrong:
        np.testing.assert_array_equal(_values(network)[name], before[name])


@pytest.mark.parametrize("reach", [3, pytest.param(9, marks=pytest.mark.slow)])
def test_tables_of_another_length(stored, source, reach):
    network = _network(f"backbone {{ max_relative_positions: {reach} }}", seed=2)
    report = load_initial_checkpoint(network, stored)
    tables = [name for name in report.matched if name.endswith("_positions")]
    assert len(report.resized_tables) == len(tables) == 6 * 5
    ours, theirs = _values(network), _values(source)
    for name in tables:
        assert ours[name].shape[0] == 2 * reach - 1
        # Beyond the shorter table the longer one knows more: up to it, all is equal.
        lengths = (1, 2, 3) if reach == 3 else (1, 4, 5, 7, 12)
        for length in lengths:
            np.testing.assert_array_equal(
                relative_embeddings(tf.constant(ours[name]), length),
                relative_embeddings(tf.constant(theirs[name]), length),
            )


@pytest.mark.slow
def test_in_a_strategy_and_in_mixed_precision(source, stored):
    for strategy in (tf.distribute.MirroredStrategy(["/cpu:0"]), None):
        with (strategy or tf.distribute.get_strategy()).scope():
            network = _built("" if strategy else "precision: MIXED_BFLOAT16")
            report = load_initial_checkpoint(network, stored)
        assert report.share == 1.0
        for ours, theirs in zip(network.variables, source.variables, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_damaged_and_foreign(source, tmp_path):
    network = _network(seed=2)
    before = _values(network)
    prefix = _saved(source, tmp_path)
    data = tmp_path / "step-3.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0xFF
    data.write_bytes(content)
    with pytest.raises(InputError, match="damaged or not complete"):
        load_initial_checkpoint(network, prefix)
    foreign = _write(tmp_path / "foreign", {"some/kernel": tf.ones([3])})
    with pytest.raises(InputError, match="no network known here: .*with some;"):
        load_initial_checkpoint(network, foreign)
    with pytest.raises(InputError, match="no checkpoint .*nothing"):
        load_initial_checkpoint(network, tmp_path / "nothing")
    key = f"encoder/_stem/_conv1_bn_act/_conv/kernel{SUFFIX}"
    values = {key: tf.fill([3, 3, 3, 4], float("nan"))}
    nan = _write(tmp_path / "nan", values)
    with pytest.raises(InputError, match="not finite, in encoder/_stem/_conv1"):
        load_initial_checkpoint(network, nan, allow_partial_backbone=True)
    values = {key: tf.ones([3, 3, 4, 3])}
    other = _write(tmp_path / "other", values)
    with pytest.raises(InputError, match="holds nothing that fits"):
        load_initial_checkpoint(network, other, allow_partial_backbone=True)
    for name, value in _values(network).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_network_that_is_not_built(stored):
    settings = text_format.Parse(MINIATURE, model_pb2.ModelConfig())
    for changes in ("", "rfn: true"):
        network = build_model(text_format.Merge(changes, settings))
        with pytest.raises(InputError, match="is not built") as error:
            load_initial_checkpoint(network, stored)
        (line,) = str(error.value).splitlines()
        assert line.endswith("call model.build((None, height, width, 3)) first")
    # A call builds, too.
    network = build_model(text_format.Parse(MINIATURE, model_pb2.ModelConfig()))
    network(tf.zeros([1, 33, 33, 3]), training=False)
    assert load_initial_checkpoint(network, stored).share == 1.0


@pytest.mark.parametrize(
    ("name", "blocks", "key"),
    [
        ("backbone/stage4_block24/conv2/norm/beta", 0,
         "encoder/_stage4/_block24/_conv2_bn_act/_batch_norm/beta"),
        ("backbone/stage5_block3/conv1/conv/kernel", 0,
         "encoder/_stage5/_block3/_conv1_bn_act/_conv/kernel"),
        ("decoder/stage5/dual_path_block12/shortcut/conv/kernel", 12,
         "encoder/_stage5/_block12/_shortcut/_conv/kernel"),
        ("decoder/first/dual_path_block4/conv3/norm/gamma", 3,
         "encoder/_stage5_extra/_block1/_conv3_bn/_batch_norm/gamma"),
        ("decoder/first/dual_path_transformer2/ffn_output/dense/kernel", 0,
         "encoder/_stage5_extra/_block2_transformer/_memory_ffn_conv2_bn/_conv/kernel"),
        ("decoder/fuse16/conv/conv/kernel", 0, None),
        ("reference_embedding/kernel", 0, None),
    ],
)  # fmt: skip
def test_names_of_deeplab2(name, blocks, key):
    assert deeplab2_key(name, stage5_blocks=blocks) == key


def test_prefix_and_housekeeping():
    key = "encoder/_stem/_conv1_bn_act/_conv/kernel"
    assert deeplab2_prefix([f"ema/{key}", f"a/model/{key}", "x"]) == "a/model/"
    assert deeplab2_prefix([f"ema_model/{key}", f"{key}/.OPTIMIZER_SLOT/o/m"]) is None
    assert is_weight(key) and is_weight("a/moving_mean") and is_weight("a/_ember/x")
    assert not is_weight("save_counter/.ATTRIBUTES/VARIABLE_VALUE")
    assert not is_weight(f"{key}/.OPTIMIZER_SLOT/_optimizer/m/.ATTRIBUTES/VALUE")


@pytest.fixture(scope="module")
def golden(shared):
    """Values of the reference MaX-DeepLab-S, by key."""
    folder = shared / "golden/axial_backbone/full_ckpt"
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(folder))
    keys = [key for key in reader.get_variable_to_shape_map() if SUFFIX in key]
    return {key: reader.get_tensor(key) for key in keys}


def test_trained_further_with_other_classes(golden, tmp_path):
    """Below a prefix, with an optimizer's state and averages."""
    stem = "encoder/_stem/_conv1_bn_act/_conv/kernel"
    values = {f"model/{key}": value for key, value in golden.items()}
    values[f"model/{stem}/.OPTIMIZER_SLOT/optimizer/m{SUFFIX}"] = np.zeros([3])
    values[f"optimizer/iter{SUFFIX}"] = np.int64(3)
    values[f"backbone_optimizer/iter{SUFFIX}"] = np.int64(3)
    values[f"ema_model/{stem}{SUFFIX}"] = golden[stem + SUFFIX]
    values[f"model/classifier/kernel{SUFFIX}"] = np.zeros([256, 1000])
    prefix = _write(tmp_path / "ckpt", values)
    model = small_max_deeplab_s("num_classes: 7", size=33)
    report = load_initial_checkpoint(model, prefix)
    assert report.unexpected == ["model/classifier/kernel"]
    assert report.activation == ""
    assert report.missing == report.wrong_shape == []
    heads = {text.split(":")[0] for text in report.skipped_heads}
    assert heads == {head + leaf for head in HEADS for leaf in ("kernel", "bias")}
    assert report.backbone_share == 1.0
    kernel = model.backbone.stem[0].conv.kernel
    np.testing.assert_array_equal(kernel, golden[stem + SUFFIX])


def test_any_input_size(shared):
    folder = shared / "golden/axial_backbone"
    small = small_max_deeplab_s("decoder { stronger: true }", size=65)
    report = load_initial_checkpoint(small, folder / "backbone_ckpt")
    tables = [name for name in report.matched if name.endswith("_positions")]
    assert len(tables) == 48 and report.resized_tables == []
    expected = np.load(folder / "backbone_io.npz")
    found = small.backbone(expected["input_normalised"], training=False)
    np.testing.assert_allclose(found.stage5, expected["stage5"], rtol=0, atol=2e-4)
    wide = small.backbone(tf.zeros([1, 49, 97, 3]), training=False)
    assert wide.stage5.shape == [1, 4, 7, 256]
