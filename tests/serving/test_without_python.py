"""The exported model without Python, and without TensorFlow."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from cmt.serving.parity import make_requests
from cmt.serving.warmup_requests import Request

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory, checkout) -> Path:
    """A C++ program on the libraries of the wheel."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("NOT VERIFIED: no C++ compiler, g++ or c++")
    source = checkout / "tests" / "serving" / "run_model.cc"
    target = tmp_path_factory.mktemp("program") / "run_model"
    library = tf.sysconfig.get_lib()
    flags = [f"-L{library}", f"-Wl,-rpath,{library}", "-std=c++17"]
    names = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")
    subprocess.run(
        [compiler, source, "-o", target, f"-I{tf.sysconfig.get_include()}", *flags]
        + [f"-l:{name}" for name in names],
        check=True,
    )
    return target


def words(*values: object) -> str:
    return " ".join(map(str, (len(values), *values)))


def as_words(request: Request, meta, folder: Path) -> tuple[str, dict[str, Path]]:
    """A request as the program reads it, and where it writes each output."""
    signature = meta.signature_def[request.signature]
    ((name, value),) = request.inputs.items()
    folder.mkdir()
    if value.dtype == tf.string:
        kind, contents = "files", list(value.numpy())
    else:
        kind, contents = "images", [value.numpy().tobytes()]
    paths = [folder / f"{number}.given" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    outputs = {key: folder / key for key in signature.outputs}
    tensors = [info.name for info in signature.outputs.values()]
    line = (signature.inputs[name].name, kind, words(*value.shape), words(*paths))
    return " ".join((*line, words(*tensors), words(*outputs.values()))), outputs


def read_output(path: Path) -> np.ndarray:
    head, _, content = path.read_bytes().partition(b"\n")
    kind, *shape = map(int, head.split())
    dtype = tf.dtypes.as_dtype(kind)
    if dtype != tf.string:
        return np.frombuffer(content, dtype.as_numpy_dtype).reshape(shape)
    files = []
    while content:
        size, _, content = content.partition(b"\n")
        files.append(content[: int(size)])
        content = content[int(size) :]
    return np.array(files, object).reshape(shape)


def test_all_signatures_without_python(program, served, predictor, samples, tmp_path):
    content = (served / "saved_model.pb").read_bytes()
    (meta,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    requests = make_requests(samples)
    bad = Request("png_bytes", {"image_bytes": tf.constant([samples[0], b"no image"])})
    lines, written = [], []
    for number, request in enumerate([*requests, bad]):
        line, outputs = as_words(request, meta, tmp_path / str(number))
        lines.append(line)
        written.append(outputs)
    done = subprocess.run(
        [program, served], input="\n".join(lines), capture_output=True, text=True
    )
    # The last is refused, with the status of a bad argument and the index.
    assert done.returncode == 1 and "code 3" in done.stderr, done.stderr
    assert "at index] [1]" in done.stderr
    assert not any(path.exists() for path in written[-1].values())
    runs = {
        "serving_default": predictor.predict,
        "image_bytes": predictor.predict_bytes,
        "png_bytes": predictor.predict_png,
    }
    assert {request.signature for request in requests} == set(runs)
    for request, outputs in zip(requests, written[:-1], strict=True):
        expected = runs[request.signature](*request.inputs.values())
        assert outputs.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(read_output(outputs[name]), value.numpy())
