"""The files of docs/serving: clients against loopback servers, configs by their fields.

The loopback servers run an exported model behind the messages of TensorFlow Serving.
They are no TensorFlow Serving.
"""

from __future__ import annotations

import base64
import http.server
import json
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)
from PIL import Image

from cmt.data.panoptic.masks import read_ids
from cmt.serving import export
from tests import fakes

Field = descriptor_pb2.FieldDescriptorProto


@pytest.fixture(scope="module")
def model(predictor, samples, tmp_path_factory):
    """The signatures of an exported model."""
    directory = tmp_path_factory.mktemp("served") / "panoptic"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "check_parity", lambda *_: {})
        saved = dict(samples=samples, step=1, config_name="fake", config_text="")
        folder = export.export_model(predictor, directory, **saved)
    return tf.saved_model.load(str(folder))


@pytest.fixture
def photos(samples, tmp_path) -> list[Path]:
    paths = [tmp_path / "photo.jpg", tmp_path / "drawing.png"]
    for path, content in zip(paths, samples, strict=True):
        path.write_bytes(content)
    return paths


def run_client(
    checkout: Path, name: str, *words: str | Path
) -> subprocess.CompletedProcess:
    script = checkout / "docs" / "serving" / name
    return subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def rest_url(model):
    """A server that reads and writes json as the REST API describes it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/models/panoptic:predict"
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            inputs = {
                name: tf.constant([base64.b64decode(v["b64"]) for v in values])
                for name, values in request["inputs"].items()
            }
            try:
                outputs = model.signatures[request["signature_name"]](**inputs)
                found = {k: v.numpy().tolist() for k, v in outputs.items()}
                code, answer = 200, {"outputs": found}
            except tf.errors.InvalidArgumentError as error:
                code, answer = 400, {"error": error.message}
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


def listed(predictor, files: list[bytes]) -> list[list[str]]:
    """The lines that a client prints of the segments of each file."""
    lines = []
    for content in files:
        outputs = {
            k: v.numpy()[0] for k, v in predictor.predict_bytes([content]).items()
        }
        lines.append(
            [
                f"  category {number // 1000}: {(outputs['panoptic'] == number).sum()} "
                f"pixels, score {outputs['scores'][index]:.2f}"
                for index, number in enumerate(outputs["segment_ids"])
                if number
            ]
        )
    return lines


def test_the_rest_client(rest_url, predictor, samples, photos, checkout):
    done = run_client(checkout, "rest_client.py", *photos, "--url", rest_url)
    assert done.returncode == 0, done.stderr
    first, second = listed(predictor, samples)
    assert first and second
    assert done.stdout.splitlines() == [
        f"{photos[0]}: 70 x 50",
        *first,
        f"{photos[1]}: 40 x 90",
        *second,
    ]
    photos[1].write_text("no image")
    done = run_client(checkout, "rest_client.py", *photos, "--url", rest_url)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "refused: " in done.stderr and "at index] [1]" in done.stderr


@pytest.fixture
def grpc_address(model):
    """The official stub's servicer on a loopback port."""
    reason = "NOT VERIFIED: tensorflow-serving-api is not installed"
    pytest.importorskip("tensorflow_serving", reason=reason)
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            inputs = {
                name: tf.constant(tf.make_ndarray(value))
                for name, value in request.inputs.items()
            }
            signature = model.signatures[request.model_spec.signature_name]
            try:
                outputs = signature(**inputs)
            except tf.errors.InvalidArgumentError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
            answer = predict_pb2.PredictResponse()
            for name, value in outputs.items():
                proto = tf.make_tensor_proto(value.numpy(), value.dtype)
                answer.outputs[name].CopyFrom(proto)
            return answer

    server = grpc.server(futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Servicer(), server
    )
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}"
    server.stop(None)


def test_the_grpc_client(grpc_address, predictor, samples, photos, checkout):
    large = photos[0].with_name("large.jpg")
    Image.fromarray(fakes.make_image(960, 1280)).save(large)
    files = [*photos, large]  # Its integers would take more than gRPC's 4 MiB.
    done = run_client(checkout, "grpc_client.py", *files, "--address", grpc_address)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    expected = listed(predictor, [*samples, large.read_bytes()])
    segments = [line for line in lines if line.startswith("  ")]
    assert segments == [line for of_file in expected for line in of_file]
    for path, content in zip(photos, samples, strict=True):
        ids = read_ids(path.with_name(f"{path.stem}_panoptic.png"))
        found = predictor.predict_bytes([content])["panoptic"][0]
        np.testing.assert_array_equal(ids, found)
    photos[0].write_text("no image")
    done = run_client(checkout, "grpc_client.py", *photos, "--address", grpc_address)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "refused, INVALID_ARGUMENT: " in done.stderr
    assert "at index] [0]" in done.stderr


def message_class(messages: dict[str, list[tuple]]) -> type:
    """The class of the last message; fields are (name, number, type, many)."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{next(iter(messages))}.proto", package="asked", syntax="proto3"
    )
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, number, kind, many in fields:
            added = message.field.add(name=field, number=number, label=3 if many else 1)
            if isinstance(kind, str):
                added.type, added.type_name = Field.TYPE_MESSAGE, f".asked.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"asked.{name}"))


def test_batching_parameters(checkout):
    """By the fields of tensorflow/serving's session_bundle_config.proto."""
    parameters = message_class(
        {
            "Int64Value": [("value", 1, Field.TYPE_INT64, False)],
            "BatchingParameters": [
                ("max_batch_size", 1, "Int64Value", False),
                ("batch_timeout_micros", 2, "Int64Value", False),
                ("max_enqueued_batches", 3, "Int64Value", False),
                ("num_batch_threads", 4, "Int64Value", False),
                ("allowed_batch_sizes", 6, Field.TYPE_INT64, True),
                ("pad_variable_length_inputs", 7, Field.TYPE_BOOL, False),
            ],
        }
    )
    text = (checkout / "docs" / "serving" / "batching.config").read_text()
    found = text_format.Parse(text, parameters())
    assert found.max_batch_size.value == 8
    # Images of different sizes are refused without it.
    assert found.pad_variable_length_inputs


def test_models_config_and_compose_file_agree(checkout):
    folder = checkout / "docs" / "serving"
    models = message_class(
        {
            "Latest": [("num_versions", 1, Field.TYPE_UINT32, False)],
            "Policy": [("latest", 100, "Latest", False)],
            "ModelConfig": [
                ("name", 1, Field.TYPE_STRING, False),
                ("base_path", 2, Field.TYPE_STRING, False),
                ("model_platform", 4, Field.TYPE_STRING, False),
                ("model_version_policy", 7, "Policy", False),
            ],
            "ModelConfigList": [("config", 1, "ModelConfig", True)],
            "ModelServerConfig": [("model_config_list", 1, "ModelConfigList", False)],
        }
    )
    found = text_format.Parse((folder / "models.config").read_text(), models())
    (config,) = found.model_config_list.config
    assert config.model_version_policy.latest.num_versions == 1
    compose = (folder / "compose.yaml").read_text()
    for file in ("models.config", "batching.config"):
        assert f"./{file}:/config/{file}:ro" in compose
        assert f"=/config/{file}" in compose
    assert "./models:/models:ro" in compose
    assert config.base_path == f"/models/{config.name}"
    for client in ("rest_client.py", "grpc_client.py"):
        assert f'"--model", default="{config.name}"' in (folder / client).read_text()
