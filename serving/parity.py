"""The proof that a SavedModel gives what the network gives, in a process of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from orbax.export.validate import ValidationReport, ValidationReportOption
from orbax.export.validate.validation_job import ValidationSingleJobResult
from PIL import Image

from cmt.errors import WorkError
from cmt.io.decode import decode_image
from cmt.io.png import encode_png
from cmt.io.storage import plain_path
from cmt.serving.predictor import PanopticPredictor
from cmt.serving.saved_model import (
    BYTES_SIGNATURE,
    IMAGES_SIGNATURE,
    PNG_SIGNATURE,
    SIGNATURES,
)
from cmt.serving.warmup_requests import Request

VALIDATION_FILE = "validation.json"
# Numbers of images in the requests to each signature.
BATCHES = (1, 2, 5)
_SCRIPT = Path(__file__).with_name("fresh_process.py")
_JPEG_QUALITY = 95
# What the new process says beside the outputs, see `fresh_process.py`.
_MODULES, _SECONDS = "modules", "seconds"


def made_up_images(crop_size: tuple[int, int]) -> list[bytes]:
    """Draws a JPEG wider than the crop, a PNG higher than it, and a PNG of noise."""
    height, width = crop_size
    wide = _discs(max(2, height * 2 // 3), width + 31)
    high = _discs(height + 17, max(2, width // 2))
    random = np.random.default_rng(1)
    noise = random.integers(0, 256, (height // 2 + 1, width // 2 + 1, 3)).astype("u1")
    jpeg = io.BytesIO()
    Image.fromarray(wide).save(jpeg, "JPEG", quality=_JPEG_QUALITY)
    return [jpeg.getvalue(), encode_png(high), encode_png(noise)]


def _discs(height: int, width: int) -> np.ndarray:
    """Returns [height, width, 3] uint8, the same picture for the same size."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    image = np.stack([255 * x, 255 * y, 255 * (1 - x)], axis=-1)
    random = np.random.default_rng(0)
    for _ in range(12):
        center_y, center_x = random.uniform(0, 1, 2) * (y.max(), x.max())
        radius = random.uniform(0.03, 0.2)
        inside = (y - center_y) ** 2 + (x - center_x) ** 2 < radius**2
        image[inside] = random.uniform(0, 255, 3)
    return image.astype(np.uint8)


def make_requests(samples: Sequence[bytes]) -> list[Request]:
    """Makes requests to all signatures, in batches of `BATCHES`.

    Images of one size are the first sample turned and mirrored; of files, all samples
    come in turn, each batch starting with another.

    Args:
      samples: JPEG or PNG files; at least one.
    """
    image = decode_image(samples[0]).numpy()
    ways = image, image[:, ::-1], image[::-1], image[::-1, ::-1], 255 - image
    name = SIGNATURES[IMAGES_SIGNATURE].input
    requests = [
        Request(IMAGES_SIGNATURE, {name: tf.constant(np.stack(ways[:number]))})
        for number in BATCHES
    ]
    for signature in (BYTES_SIGNATURE, PNG_SIGNATURE):
        for first, number in enumerate(BATCHES):
            chosen = [samples[(first + i) % len(samples)] for i in range(number)]
            files = tf.constant(chosen, tf.string)
            requests.append(Request(signature, {SIGNATURES[signature].input: files}))
    return requests


def check_parity(
    predictor: PanopticPredictor,
    model_dir: Path,
    requests: Sequence[Request],
    score_tolerance: float,
) -> dict[str, Any]:
    """Compares a SavedModel, loaded in a new process, with the predictor.

    Returns:
      The validation report of orbax.export for each signature, as json has it. (It
      counts an output of integers only where all of it differs; here one is enough.)

    Raises:
      WorkError: the process failed, an integer or an encoded map differs, or a score
        differs by more than `score_tolerance`.
    """
    found, found_seconds = run_in_fresh_process(model_dir, requests)
    runs = {
        IMAGES_SIGNATURE: predictor.predict,
        BYTES_SIGNATURE: predictor.predict_bytes,
        PNG_SIGNATURE: predictor.predict_png,
    }
    results: dict[str, tuple[list[Any], ...]] = {}
    for index, request in enumerate(requests):
        start = time.perf_counter()
        outputs = runs[request.signature](*request.inputs.values())
        expected = {name: value.numpy() for name, value in outputs.items()}
        seconds = time.perf_counter() - start
        for name, value in expected.items():
            problem = _difference(value, found[index].get(name), score_tolerance)
            if problem:
                raise WorkError(
                    f"the SavedModel, run by a new process, differs from the network "
                    f"in output '{name}' of signature '{request.signature}': {problem}"
                    "; nothing was exported"
                )
        of_one = expected, found[index], seconds, found_seconds[index]
        lists = results.setdefault(request.signature, ([], [], [], []))
        for values, value in zip(lists, of_one, strict=True):
            values.append(value)
    return {name: _report(*of, score_tolerance) for name, of in results.items()}


def _report(
    expected: list[dict[str, np.ndarray]],
    found: list[dict[str, np.ndarray]],
    expected_seconds: list[float],
    found_seconds: list[float],
    tolerance: float,
) -> dict[str, Any]:
    """The validation report of a signature; the baseline is the network."""
    report = ValidationReport(
        ValidationSingleJobResult(expected_seconds, expected, "N/A", {}),
        ValidationSingleJobResult(found_seconds, found, "N/A", {}),
        ValidationReportOption(
            floating_atol=tolerance,
            floating_rtol=tolerance,
            max_non_floating_mismatch_ratio=0.0,
        ),
    )
    text = json.dumps(report.to_dict(), default=lambda value: value.name)
    return json.loads(text)


def _difference(
    expected: np.ndarray, found: np.ndarray | None, tolerance: float
) -> str | None:
    """Describes how an output differs, in a few words; None if it is equal."""
    if found is None:
        return "it is missing"
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return (
            f"expected {expected.dtype} {list(expected.shape)}, got {found.dtype} "
            f"{list(found.shape)}"
        )
    if np.issubdtype(expected.dtype, np.floating):
        largest = float(np.abs(found - expected).max(initial=0.0))
        # Not a number is never below the tolerance.
        if not largest <= tolerance:
            return (
                f"by {largest:.3g}, allowed is export.score_tolerance, {tolerance:.3g}"
            )
    elif not np.array_equal(found, expected):
        kind = "files" if expected.dtype == object else "integers"
        return f"{np.count_nonzero(found != expected)} of {found.size} {kind}"
    return None


def run_in_fresh_process(
    model_dir: Path | str, requests: Sequence[Request]
) -> tuple[list[dict[str, np.ndarray]], list[float]]:
    """Runs requests in a new Python process that imports TensorFlow and not cmt.

    It runs on the CPU: a GPU may be taken by this process.

    Returns:
      Of each request, the outputs by their names, and how many seconds it took.

    Raises:
      WorkError: the process failed.
    """
    with tempfile.TemporaryDirectory(prefix="cmt-export-") as folder:
        requests_file = Path(folder, "requests.npz")
        results_file = Path(folder, "results.npz")
        np.savez(requests_file, **_as_arrays(requests))
        command = [sys.executable, "-c", _SCRIPT.read_text(encoding="utf-8")]
        model = plain_path(Path(model_dir).resolve())
        done = subprocess.run(
            [*command, model, requests_file, results_file],
            cwd=folder,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise WorkError(
                "the new process that runs the SavedModel ended with code "
                f"{done.returncode}: {last}"
            )
        with np.load(results_file) as arrays:
            results = {name: arrays[name] for name in arrays.files}
    if results.pop(_MODULES).size:
        raise WorkError("the new process that runs the SavedModel imported cmt")
    seconds = results.pop(_SECONDS).tolist()
    return _as_outputs(results, len(requests)), seconds


def _as_arrays(requests: Sequence[Request]) -> dict[str, np.ndarray]:
    """Returns the requests in the form that `fresh_process.py` reads."""
    arrays = {}
    for index, request in enumerate(requests):
        for name, tensor in request.inputs.items():
            key = f"{index}/{request.signature}/{name}"
            if tensor.dtype == tf.string:
                for image, content in enumerate(tensor.numpy()):
                    arrays[f"{key}/{image:06d}"] = np.frombuffer(content, np.uint8)
            else:
                arrays[key] = tensor.numpy()
    return arrays


def _as_outputs(
    results: Mapping[str, np.ndarray], number: int
) -> list[dict[str, np.ndarray]]:
    """Returns what `fresh_process.py` wrote by request and output; files as bytes."""
    outputs: list[dict[str, Any]] = [{} for _ in range(number)]
    for key, value in results.items():
        index, name, *image = key.split("/")
        if image:
            outputs[int(index)].setdefault(name, []).append(value.tobytes())
        else:
            outputs[int(index)][name] = value
    return [
        {k: np.array(v, object) if isinstance(v, list) else v for k, v in one.items()}
        for one in outputs
    ]
