"""A SavedModel: what is in it, that a new process agrees, that bad ones are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import cmt
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.masks import check_mask, color_ids, decode_mask
from cmt.errors import InputError
from cmt.io.decode import decode_image
from cmt.serving import export, predict
from cmt.serving.inputs import decode_file, find_inputs
from cmt.serving.predict import predict_files
from cmt.serving.saved_model import load_saved_model
from tests import fakes

OUTPUTS = {
    "panoptic": (tf.int32, 3),
    "sizes": (tf.int32, 2),
    "segment_ids": (tf.int32, 2),
    "category_ids": (tf.int32, 2),
    "scores": (tf.float32, 2),
    "is_thing": (tf.bool, 2),
}


def run_export(predictor, directory: Path, samples: list[bytes], **changes) -> Path:
    options = dict(
        samples=samples, step=42, config_name="fake", config_text="name: 'fake'\n"
    )
    return export.export_model(predictor, directory, **{**options, **changes})


@pytest.fixture(scope="module")
def exported(predictor, samples, tmp_path_factory) -> Path:
    """DIR/NAME/1, checked by a new process."""
    directory = tmp_path_factory.mktemp("models") / "scenes"
    return run_export(predictor, directory, samples)


@pytest.fixture
def unchecked(monkeypatch):
    """Exports without the new process, for what has nothing to do with it."""
    monkeypatch.setattr(export, "check_parity", lambda *_: None)


def test_files(exported):
    assert exported.name == "1"
    assert {path.name for path in exported.iterdir()} >= {
        "saved_model.pb",
        "variables",
        "assets.extra",
        "model.json",
    }
    assert list(exported.parent.iterdir()) == [exported]  # nothing left over
    description = json.loads((exported / "model.json").read_text())
    assert description["name"] == "scenes" and description["version"] == 1
    assert description["step"] == 42 and description["config"] == "name: 'fake'\n"
    assert description["crop_size"] == list(fakes.CROP_SIZE)
    assert description["package_version"] == cmt.__version__
    categories = [Category.from_json(item) for item in description["categories"]]
    assert categories == fakes.CATEGORIES


def test_signatures(exported):
    signatures = tf.saved_model.load(str(exported)).signatures
    assert set(signatures) == {"serving_default", "image_bytes", "png_bytes"}
    (images,) = signatures["serving_default"].structured_input_signature[1].values()
    assert (images.name, images.dtype) == ("images", tf.uint8)
    assert images.shape.as_list() == [None, None, None, 3]
    for name in ("image_bytes", "png_bytes"):
        (content,) = signatures[name].structured_input_signature[1].values()
        assert (content.name, content.dtype) == ("image_bytes", tf.string)
        assert content.shape.as_list() == [None]
    described = json.loads((exported / "model.json").read_text())["signatures"]
    assert described.keys() == signatures.keys()
    png_outputs = {**OUTPUTS, "panoptic_png": (tf.string, 1)}
    del png_outputs["panoptic"]
    for name, signature in signatures.items():
        expected = png_outputs if name == "png_bytes" else OUTPUTS
        found = signature.structured_outputs
        assert {k: (v.dtype, v.shape.rank) for k, v in found.items()} == expected
        assert all(value.shape[0] is None for value in found.values())
        (given,) = signature.structured_input_signature[1]
        assert described[name]["input"] == given
        assert set(described[name]["outputs"]) == set(expected)


def test_the_graph_restores_weights_and_saves_none(exported):
    content = (exported / "saved_model.pb").read_bytes()
    (meta,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    names = {f.signature.name: f for f in meta.graph_def.library.function}
    assert [name for name in names if "traced_restore" in name]
    operations = {n.op for f in names.values() for n in f.node_def}
    assert "RestoreV2" in operations and "SaveV2" not in operations
    called = [n.attr["f"].func.name for n in meta.graph_def.node if "f" in n.attr]
    assert set(called) <= set(names)


def test_weights_are_stored_once(exported, predictor):
    reader = tf.train.load_checkpoint(str(exported / "variables" / "variables"))
    stored = [
        shape
        for name, shape in reader.get_variable_to_shape_map().items()
        if name.startswith("tf_var_leaves")
    ]
    # All of this network are small, and stored as one.
    size = sum(np.prod(variable.shape) for variable in predictor.network.variables)
    assert stored == [[size]]
    values = sum(
        np.prod(shape) for shape in reader.get_variable_to_shape_map().values()
    )
    assert values <= size + 10


def test_any_batch_and_size(exported, predictor):
    serve = tf.saved_model.load(str(exported)).signatures["serving_default"]
    for batch, height, width in ((1, 65, 81), (3, 20, 200), (2, 131, 37)):
        images = np.stack([fakes.make_image(height, width, i) for i in range(batch)])
        served = serve(images=tf.constant(images))
        assert served["panoptic"].shape == (batch, height, width)
        for name, value in predictor.predict(images).items():
            np.testing.assert_array_equal(served[name], value, err_msg=name)


def test_decoded_pictures_and_encoded_ones_give_the_same_integers(exported, samples):
    """`cmt predict` decodes a picture itself and uses the signature of images."""
    signatures = tf.saved_model.load(str(exported)).signatures
    for sample in samples:
        image = decode_image(sample)
        of_image = signatures["serving_default"](images=image[tf.newaxis])
        of_bytes = signatures["image_bytes"](image_bytes=tf.constant([sample]))
        assert of_image.keys() == of_bytes.keys() == OUTPUTS.keys()
        for name, value in of_bytes.items():
            np.testing.assert_array_equal(of_image[name], value, err_msg=name)


def test_the_quick_loader_gives_what_tensorflow_loads(exported, samples):
    signature = tf.saved_model.load(str(exported)).signatures["serving_default"]
    segmenter = load_saved_model(exported)
    assert segmenter.categories == fakes.CATEGORIES
    assert segmenter.crop_size == fakes.CROP_SIZE
    images = np.stack([fakes.make_image(65, 81, i) for i in range(3)])
    for given in (images, images[:1], decode_image(samples[0]).numpy()[np.newaxis]):
        expected = signature(images=tf.constant(given))
        found = segmenter.run(given)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("damage", ["saved_model.pb", "variables/variables.index"])
def test_a_damaged_model_is_refused(exported, tmp_path, damage):
    folder = shutil.copytree(exported, tmp_path / "1")
    content = (folder / damage).read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\xff" * 50):
        (folder / damage).write_bytes(damaged)
        with pytest.raises(InputError, match="not a model of `cmt export`"):
            load_saved_model(folder)


def test_prediction_from_the_folder(exported, samples, tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        predict, "decode_file", lambda c: decoded.append(c) or decode_file(c)
    )
    for index, sample in enumerate(samples):
        (tmp_path / f"{index}.jpg").write_bytes(sample)
    files = find_inputs([str(tmp_path)])
    outcome = predict_files(load_saved_model(exported), files, tmp_path / "out")
    assert not outcome.unreadable
    assert sorted(decoded) == sorted(samples)
    names = {segment["category"] for segment in outcome.images[0]["segments"]}
    assert names == {"ball", "grass", "cube", "sky"}


def test_png_bytes_are_the_maps_of_image_bytes(exported, samples):
    """Each of its own size, as the files of `cmt predict --format coco` have it."""
    signatures = tf.saved_model.load(str(exported)).signatures
    files = tf.constant([*samples, fakes.encode(fakes.make_image(1, 1))])
    maps = signatures["image_bytes"](image_bytes=files)
    pngs = signatures["png_bytes"](image_bytes=files)
    for name in set(OUTPUTS) - {"panoptic"}:
        np.testing.assert_array_equal(pngs[name], maps[name], err_msg=name)
    for index, (height, width) in enumerate([(50, 70), (90, 40), (1, 1)]):
        content = pngs["panoptic_png"][index].numpy()
        ids = color_ids(decode_mask(content, check_mask(content)))
        assert ids.shape == (height, width) and ids.any()
        padded = maps["panoptic"][index].numpy()
        np.testing.assert_array_equal(ids, padded[:height, :width])


def test_an_answer_fits_what_a_client_takes(exported):
    """A photo of 1280 x 960: 4.9 MB as integers, and gRPC takes 4 MiB by default."""
    photo = fakes.encode(fakes.make_image(960, 1280), "JPEG")
    signatures = tf.saved_model.load(str(exported)).signatures
    size = {
        name: sum(
            tf.make_tensor_proto(value.numpy()).ByteSize()
            for value in signatures[name](image_bytes=tf.constant([photo])).values()
        )
        for name in ("image_bytes", "png_bytes")
    }
    assert size["image_bytes"] > 4 * 2**20
    assert size["png_bytes"] < 50_000


def test_no_warmup(tmp_path, predictor, samples, unchecked):
    target = run_export(predictor, tmp_path / "m", samples, warmup_requests=0)
    assert not (target / "assets.extra").exists()


def test_versions(tmp_path, predictor, samples, unchecked):
    directory = tmp_path / "m"
    (directory / ".snapshot").mkdir(parents=True)
    assert run_export(predictor, directory, samples, version=7).name == "7"
    assert run_export(predictor, directory, samples).name == "8"
    before = (directory / "7" / "saved_model.pb").stat()
    with pytest.raises(InputError, match="version 7 is there already"):
        run_export(predictor, directory, samples, version=7)
    assert (directory / "7" / "saved_model.pb").stat() == before
    assert {path.name for path in directory.iterdir()} == {".snapshot", "7", "8"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("notes/a.txt", "got notes"),
        ("config.textproto", "got config.textproto"),
        # A folder of evaluations has numbers too, but no SavedModels.
        ("2947/metrics.json", "got 2947"),
        ("saved_model.pb", "got saved_model.pb"),
    ],
)
def test_a_folder_of_other_things_is_refused(
    tmp_path, predictor, samples, unchecked, name, told
):
    path = tmp_path / "m" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(
        InputError, match=f"m must hold versions .*{told}; give another"
    ):
        run_export(predictor, tmp_path / "m", samples)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    with pytest.raises(InputError, match="is a file; give a folder"):
        run_export(predictor, path, samples)
