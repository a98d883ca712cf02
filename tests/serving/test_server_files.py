"""The files of docs/serving: clients against loopback servers, configs by their fields.

The loopback servers run an exported model behind the messages of TensorFlow Serving.
They are no TensorFlow Serving.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
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
from cmt.serving.saved_model import SIGNATURES
from cmt.serving.warmup_requests import WARMUP_FILE
from tests import fakes

Field = descriptor_pb2.FieldDescriptorProto


@pytest.fixture
def photos(samples, tmp_path) -> list[Path]:
    paths = [tmp_path / "photo.jpg", tmp_path / "drawing.png"]
    for path, content in zip(paths, samples, strict=True):
        path.write_bytes(content)
    return paths


@pytest.fixture
def run_client(checkout, capsys, monkeypatch):
    """Runs an example as `python NAME WORDS` does; returns its lines.

    Raises SystemExit as it does.
    """

    def run(name: str, *words: str | Path) -> list[str]:
        script = str(checkout / "docs" / "serving" / name)
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        runpy.run_path(script, run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture(scope="module")
def model_server(served):
    """The real server, where it is: its gRPC address and its REST URL."""
    program = shutil.which("tensorflow_model_server")
    if program is None:
        pytest.skip("NOT VERIFIED: there is no tensorflow_model_server on the PATH")
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("localhost", 0))
        port, rest_port = (one.getsockname()[1] for one in (first, second))
    name = served.parent.name
    process = subprocess.Popen(
        [program, f"--port={port}", f"--rest_api_port={rest_port}"]
        + [f"--model_name={name}", f"--model_base_path={served.parent}"]
    )
    url = f"http://localhost:{rest_port}"
    try:
        until = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < until
            status = f"{url}/v1/models/{name}"
            with contextlib.suppress(OSError), urllib.request.urlopen(status) as answer:
                if b"AVAILABLE" in answer.read():
                    break
            time.sleep(0.1)
        yield f"localhost:{port}", url
    finally:
        process.terminate()
        process.wait()


SERVERS = pytest.mark.parametrize(
    "server", ["loopback", pytest.param("model_server", marks=pytest.mark.slow)]
)


@pytest.fixture
def rest_url(server, request):
    """A server that reads and writes json as the REST API describes it."""
    if server == "model_server":
        yield request.getfixturevalue("model_server")[1]
        return
    signatures = request.getfixturevalue("signatures")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/models/panoptic:predict"
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            inputs = {
                name: tf.constant([base64.b64decode(v["b64"]) for v in values])
                for name, values in asked["inputs"].items()
            }
            try:
                outputs = signatures[asked["signature_name"]](**inputs)
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


@SERVERS
def test_the_rest_client(rest_url, predictor, samples, photos, run_client):
    lines = run_client("rest_client.py", *photos, "--url", rest_url)
    first, second = listed(predictor, samples)
    assert first and second
    assert lines == [f"{photos[0]}: 70 x 50", *first, f"{photos[1]}: 40 x 90", *second]
    photos[1].write_text("no image")
    with pytest.raises(SystemExit, match=r"(?s)refused: .*at index\] \[1\]"):
        run_client("rest_client.py", *photos, "--url", rest_url)


@pytest.fixture
def grpc_address(server, request, serving_api):
    """The official stub's servicer on a loopback port."""
    if server == "model_server":
        yield request.getfixturevalue("model_server")[0]
        return
    from tests.serving.loopback import start_server

    grpc_server, port = start_server(request.getfixturevalue("signatures"))
    yield f"localhost:{port}"
    grpc_server.stop(None)


@SERVERS
def test_the_grpc_client(grpc_address, predictor, samples, photos, run_client):
    large = photos[0].with_name("large.jpg")
    Image.fromarray(fakes.make_image(960, 1280)).save(large)
    files = [*photos, large]  # Its integers would take more than gRPC's 4 MiB.
    lines = run_client("grpc_client.py", *files, "--address", grpc_address)
    expected = listed(predictor, [*samples, large.read_bytes()])
    segments = [line for line in lines if line.startswith("  ")]
    assert segments == [line for of_file in expected for line in of_file]
    for path, content in zip(photos, samples, strict=True):
        ids = read_ids(path.with_name(f"{path.stem}_panoptic.png"))
        found = predictor.predict_bytes([content])["panoptic"][0]
        np.testing.assert_array_equal(ids, found)
    photos[0].write_text("no image")
    told = r"(?s)refused, INVALID_ARGUMENT: .*at index\] \[0\]"
    with pytest.raises(SystemExit, match=told):
        run_client("grpc_client.py", *photos, "--address", grpc_address)


@SERVERS
def test_warmup_requests_are_answered(grpc_address, served):
    """Each as the file has it, sent with the official stub."""
    import grpc
    from tensorflow_serving.apis import prediction_log_pb2, prediction_service_pb2_grpc

    records = tf.data.TFRecordDataset(str(served / WARMUP_FILE)).as_numpy_iterator()
    asked = []
    with grpc.insecure_channel(grpc_address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for record in records:
            request = prediction_log_pb2.PredictionLog.FromString(record)
            request = request.predict_log.request
            assert request.model_spec.name == "panoptic"
            name = request.model_spec.signature_name
            (value,) = request.inputs.values()
            number = value.tensor_shape.dim[0].size
            outputs = stub.Predict(request, timeout=60).outputs
            assert set(outputs) == set(SIGNATURES[name].outputs)
            assert {o.tensor_shape.dim[0].size for o in outputs.values()} == {number}
            asked.append((name, number))
    assert asked == [(name, number) for name in SIGNATURES for number in (1, 2)]


def test_batching_parameters(checkout):
    """By the fields of tensorflow/serving's session_bundle_config.proto.

    tensorflow-serving-api does not have it.
    """
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", syntax="proto3")
    number = file.message_type.add(name="Int64Value")
    number.field.add(name="value", number=1, label=1, type=Field.TYPE_INT64)
    parameters = file.message_type.add(name="BatchingParameters")
    names = "max_batch_size batch_timeout_micros max_enqueued_batches num_batch_threads"
    for place, name in enumerate(names.split(), 1):
        field = parameters.field.add(name=name, number=place, label=1)
        field.type, field.type_name = Field.TYPE_MESSAGE, ".Int64Value"
    parameters.field.add(
        name="pad_variable_length_inputs", number=7, label=1, type=Field.TYPE_BOOL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message = message_factory.GetMessageClass(
        pool.FindMessageTypeByName("BatchingParameters")
    )
    text = (checkout / "docs" / "serving" / "batching.config").read_text()
    found = text_format.Parse(text, message())
    assert found.max_batch_size.value == 8
    # Images of different sizes are refused without it.
    assert found.pad_variable_length_inputs


def test_models_config_and_compose_file_agree(checkout, serving_api):
    from tensorflow_serving.config import model_server_config_pb2

    folder = checkout / "docs" / "serving"
    models = model_server_config_pb2.ModelServerConfig
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
