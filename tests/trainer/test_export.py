"""A SavedModel: what is in it, that a new process agrees, that bad ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import cmt
from cmt.data.input.decode import decode_image
from cmt.data.panoptic.categories import Category
from cmt.errors import InputError, WorkError
from cmt.serving import export, predict
from cmt.serving.predict import find_inputs, predict_files
from cmt.serving.saved_model import load_saved_model
from cmt.serving.warmup_requests import prediction_log_class
from tests import fakes

OUTPUTS = {
    "panoptic": (tf.int32, 3),
    "sizes": (tf.int32, 2),
    "segment_ids": (tf.int32, 2),
    "category_ids": (tf.int32, 2),
    "scores": (tf.float32, 2),
    "is_thing": (tf.bool, 2),
}


@pytest.fixture(scope="module")
def predictor():
    return fakes.make_predictor()


@pytest.fixture(scope="module")
def samples() -> list[bytes]:
    images = [fakes.make_image(*size) for size in ((50, 70), (90, 40))]
    return [fakes.encode(images[0], "JPEG"), fakes.encode(images[1])]


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
    assert set(signatures) == {"serving_default", "image_bytes"}
    (images,) = signatures["serving_default"].structured_input_signature[1].values()
    assert (images.name, images.dtype) == ("images", tf.uint8)
    assert images.shape.as_list() == [None, None, None, 3]
    (content,) = signatures["image_bytes"].structured_input_signature[1].values()
    assert (content.name, content.dtype) == ("image_bytes", tf.string)
    assert content.shape.as_list() == [None]
    for signature in signatures.values():
        found = signature.structured_outputs
        assert {k: (v.dtype, v.shape.rank) for k, v in found.items()} == OUTPUTS


def test_weights_are_stored_once(exported, predictor):
    reader = tf.train.load_checkpoint(str(exported / "variables" / "variables"))
    stored = [
        shape
        for name, shape in reader.get_variable_to_shape_map().items()
        if name.startswith("tf_var_leaves")
    ]
    expected = [variable.shape.as_list() for variable in predictor.network.variables]
    assert sorted(stored) == sorted(expected)
    values = sum(
        np.prod(shape) for shape in reader.get_variable_to_shape_map().values()
    )
    assert values <= sum(np.prod(shape) for shape in expected) + 10


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


def test_prediction_from_the_folder(exported, samples, tmp_path, monkeypatch):
    decoded = []
    for owner, name in ((tf.io, "decode_jpeg"), (predict, "decode_rgb")):
        decode = getattr(owner, name)
        monkeypatch.setattr(
            owner,
            name,
            lambda *a, decode=decode, **k: decoded.append(1) or decode(*a, **k),
        )
    for index, sample in enumerate(samples):
        (tmp_path / f"{index}.jpg").write_bytes(sample)
    files = find_inputs([str(tmp_path)])
    outcome = predict_files(load_saved_model(exported), files, tmp_path / "out")
    assert not outcome.unreadable
    assert len(decoded) == len(files) == 2
    names = {segment["category"] for segment in outcome.images[0]["segments"]}
    assert names == {"ball", "grass", "cube", "sky"}


def read_warmup(folder: Path) -> list[export.Request]:
    """The requests of a warm-up file, in order."""
    path = str(folder / "assets.extra" / "tf_serving_warmup_requests")
    requests = []
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
        message = prediction_log_class().FromString(record).predict_log.request
        inputs = {}
        for name, content in message.inputs.items():
            tensor = tf.make_tensor_proto(0)
            tensor.ParseFromString(content)
            inputs[name] = tf.convert_to_tensor(tf.make_ndarray(tensor))
        requests.append(export.Request(message.model_spec.signature_name, inputs))
    return requests


def test_warmup_requests_fit_the_signatures(exported):
    requests = read_warmup(exported)
    assert [request.signature for request in requests] == [
        "serving_default",
        "serving_default",
        "image_bytes",
        "image_bytes",
    ]
    signatures = tf.saved_model.load(str(exported)).signatures
    for request in requests:
        outputs = signatures[request.signature](**request.inputs)
        assert outputs["panoptic"].shape[0] == len(*request.inputs.values())


def test_warmup_bytes_are_those_of_the_message(tmp_path):
    """Field by field, as TensorFlow Serving's PredictionLog numbers them."""
    images = tf.constant(fakes.make_image(2, 3)[None])
    request = export.Request("serving_default", {"images": images})
    export.write_warmup(tmp_path, "name", [request])
    path = tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    (record,) = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()

    def field(number: int, content: bytes) -> bytes:
        size = len(content)
        length = [size] if size < 128 else [size & 127 | 128, size >> 7]
        return bytes([number << 3 | 2, *length]) + content

    tensor = tf.make_tensor_proto(images).SerializeToString()
    spec = field(1, field(1, b"name") + field(3, b"serving_default"))
    entry = field(2, field(1, b"images") + field(2, tensor))
    assert record == field(6, field(1, spec + entry))


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


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        (
            "panoptic",
            lambda value: value + (np.arange(value.size) == 5).reshape(value.shape),
            "1 of ",
        ),
        ("scores", lambda value: value + np.float32(1e-3), "score_tolerance"),
        ("scores", lambda value: value * np.float32("nan"), "score_tolerance"),
        ("is_thing", lambda value: ~value, "integers"),
        ("sizes", lambda value: value.astype(np.int64), "expected int32"),
        ("segment_ids", lambda value: None, "missing"),
    ],
)
def test_a_difference_leaves_nothing(
    tmp_path, predictor, samples, monkeypatch, name, change, reason
):
    """As if the SavedModel were wrong in one output."""

    def run(model_dir, requests):
        assert (model_dir / "saved_model.pb").is_file()
        results = {}
        for index, request in enumerate(requests):
            (value,) = request.inputs.values()
            is_bytes = request.signature == "image_bytes"
            outputs = (predictor.predict_bytes if is_bytes else predictor.predict)(
                value
            )
            for key, tensor in outputs.items():
                results[f"{index}/{key}"] = tensor.numpy()
        last = f"{len(requests) - 1}/{name}"
        changed = change(results.pop(last))
        return results if changed is None else {**results, last: changed}

    monkeypatch.setattr(export, "run_in_fresh_process", run)
    with pytest.raises(WorkError, match=f"output '{name}' of signature 'image_bytes'"):
        run_export(predictor, tmp_path / "models" / "m", samples)
    assert not (tmp_path / "models" / "m").exists()


def test_a_process_that_fails_is_reported(tmp_path, samples, monkeypatch):
    script = tmp_path / "script.py"
    monkeypatch.setattr(export, "_SCRIPT", script)
    requests = export.make_requests(samples)
    script.write_text("raise ValueError('no such op')")
    with pytest.raises(WorkError, match="ended with code 1: ValueError: no such op"):
        export.run_in_fresh_process(tmp_path, requests)
    script.write_text(
        "import sys, numpy; numpy.savez(sys.argv[3], modules=numpy.array(['cmt']))"
    )
    with pytest.raises(WorkError, match="imported cmt"):
        export.run_in_fresh_process(tmp_path, requests)


def test_made_up_images():
    wide, high = (tf.io.decode_image(i) for i in export.made_up_images((97, 129)))
    assert wide.shape == (64, 160, 3) and high.shape == (114, 64, 3)
    assert len(np.unique(wide.numpy().reshape(-1, 3), axis=0)) > 100
