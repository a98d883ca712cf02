"""A trained network as a SavedModel for TensorFlow Serving, proven equal.

The model is written beside its final place, loaded by a new process that has nothing
but TensorFlow, and compared; only if every integer agrees is it renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from orbax.export import ExportManager, ServingConfig, constants
from orbax.export.modules.orbax_module_base import OrbaxModuleBase

import cmt
from cmt.data.input.decode import decode_image
from cmt.errors import InputError, WorkError, few
from cmt.io.files import atomic_directory
from cmt.io.storage import plain_path
from cmt.serving.predictor import PanopticPredictor
from cmt.serving.saved_model import (
    BYTES_SIGNATURE,
    IMAGES_SIGNATURE,
    MODEL_FILE,
    is_version,
)
from cmt.serving.warmup_requests import Request, write_warmup

_SCRIPT = Path(__file__).with_name("fresh_process.py")


class NetworkModule(OrbaxModuleBase):
    """Presents a tf_keras network as a module that orbax.export can save."""

    def __init__(
        self,
        params: Sequence[tf.Variable],
        apply_fn: Mapping[str, Callable[..., Any]],
        **kwargs: Any,
    ):
        """Takes the variables, stored once for all signatures, and the methods."""
        super().__init__(params, apply_fn, **kwargs)
        self._tf_var_leaves = list(params)
        self._methods = dict(apply_fn)

    @property
    def apply_fn_map(self) -> Mapping[str, Callable[..., Any]]:
        """Functions by the name of their method."""
        return self._methods

    @property
    def export_version(self) -> constants.ExportModelType:
        """A SavedModel of TensorFlow."""
        return constants.ExportModelType.TF_SAVEDMODEL

    def export_module(self) -> NetworkModule:
        """The object that owns `_tf_var_leaves`."""
        return self

    @property
    def with_gradient(self) -> bool:
        """Whether the model can be trained on after loading: no."""
        return False

    @property
    def model_params(self) -> Sequence[tf.Variable]:
        """The variables."""
        return self._tf_var_leaves

    @property
    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """TensorFlow functions by the name of their method."""
        return self._methods

    @property
    def jax_methods(self) -> Mapping[str, Callable[..., Any]]:
        """Empty: nothing here is JAX."""
        return {}


def export_model(
    predictor: PanopticPredictor,
    directory: Path | str,
    *,
    samples: Sequence[bytes],
    step: int,
    config_name: str,
    config_text: str,
    version: int = 0,
    warmup_requests: int = 2,
    score_tolerance: float = 1e-5,
) -> Path:
    """Writes `directory`/<version>/, unless the parity check fails.

    Args:
      predictor: the predictor to export; its network is built and has its weights.
      directory: DIR/NAME; the name of the innermost folder is the model's.
      samples: JPEG or PNG files to compare on and to warm up with; at least one.
      step: training step of the weights.
      config_name: name of the config, for model.json.
      config_text: the resolved config as textproto, for model.json.
      version: name of the innermost folder; 0 takes the next free one.
      warmup_requests: requests in the warm-up file, for each signature.
      score_tolerance: largest difference of a score.

    Returns:
      The version folder.

    Raises:
      InputError: the version is there already.
      WorkError: the model as loaded by a new process does not agree.
    """
    directory = Path(directory)
    target = version_folder(directory, version)
    description = {
        "name": directory.name,
        "version": int(target.name),
        "config_name": config_name,
        "step": int(step),
        "package_version": cmt.__version__,
        "crop_size": list(predictor.crop_size),
        "categories": [category.to_json() for category in predictor.categories],
        "config": config_text,
    }
    requests = make_requests(samples)
    is_new = not directory.exists()
    try:
        with atomic_directory(target) as temporary:
            _save(predictor, temporary)
            warmup = _repeated(requests, warmup_requests)
            write_warmup(temporary, directory.name, warmup)
            text = json.dumps(description, indent=1) + "\n"
            (temporary / MODEL_FILE).write_text(text, encoding="utf-8")
            check_parity(predictor, temporary, requests, score_tolerance)
    except BaseException:
        with contextlib.suppress(OSError):
            if is_new:
                directory.rmdir()
        raise
    return target


def version_folder(directory: Path | str, version: int) -> Path:
    """Chooses the folder of a version, which must not be there yet.

    Args:
      directory: the folder of all versions, and of nothing else.
      version: the number; 0 for one more than the highest.

    Raises:
      InputError: the version is there already, or something that is no version.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; give a folder that is not there yet")
    # Hidden ones are of the file system, or left by an export that was killed.
    found = [p for p in sorted(directory.glob("*")) if not p.name.startswith(".")]
    others = [path.name for path in found if not is_version(path)]
    if others:
        raise InputError(
            f"{directory} must hold versions of one model alone, folders 1, 2, ... "
            f"with a SavedModel; got {few(others)}; give another folder, such as "
            f"{directory / 'NAME'}"
        )
    if version == 0:
        version = max((int(path.name) for path in found), default=0) + 1
    target = directory / str(version)
    if target.exists():
        raise InputError(
            f"{target}: version {version} is there already and is not replaced; set "
            "export.version to another, or to 0 for the next free one"
        )
    return target


def _save(predictor: PanopticPredictor, folder: Path) -> None:
    """Writes the SavedModel: prepare -> segment -> restore, for both signatures."""
    module = NetworkModule(predictor.network.variables, {"segment": predictor.segment})
    images = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
    configs = [
        ServingConfig(
            IMAGES_SIGNATURE,
            input_signature=[images],
            tf_preprocessor=predictor.prepare,
            tf_postprocessor=predictor.restore,
            method_key="segment",
        ),
        ServingConfig(
            BYTES_SIGNATURE,
            input_signature=[image_bytes],
            tf_preprocessor=predictor.prepare_bytes,
            tf_postprocessor=predictor.restore,
            method_key="segment",
        ),
    ]
    ExportManager(module, configs).save(str(folder))


def made_up_images(crop_size: tuple[int, int]) -> list[bytes]:
    """Draws discs on a gradient: a JPEG wider than the crop, a PNG higher than it."""
    height, width = crop_size
    wide = _discs(max(2, height * 2 // 3), width + 31)
    high = _discs(height + 17, max(2, width // 2))
    return [tf.io.encode_jpeg(wide).numpy(), tf.io.encode_png(high).numpy()]


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
    """Makes requests to both signatures: one image and two, of one size and of two.

    Args:
      samples: JPEG or PNG files; at least one.
    """
    images = [decode_image(sample) for sample in samples]
    pair = tf.stack([images[0], images[0][:, ::-1]])
    requests = [
        Request(IMAGES_SIGNATURE, {"images": image[tf.newaxis]}) for image in images
    ]
    requests.append(Request(IMAGES_SIGNATURE, {"images": pair}))
    for chosen in ([samples[0]], [samples[0], samples[-1]]):
        content = tf.constant(chosen, tf.string)
        requests.append(Request(BYTES_SIGNATURE, {"image_bytes": content}))
    return requests


def _repeated(requests: Sequence[Request], number: int) -> list[Request]:
    """Returns `number` requests for each signature, repeated where there are fewer."""
    chosen = []
    for signature in (IMAGES_SIGNATURE, BYTES_SIGNATURE):
        known = [item for item in requests if item.signature == signature]
        chosen += [known[index % len(known)] for index in range(number)]
    return chosen


def check_parity(
    predictor: PanopticPredictor,
    model_dir: Path,
    requests: Sequence[Request],
    score_tolerance: float,
) -> None:
    """Compares a SavedModel, loaded in a new process, with the predictor.

    Raises:
      WorkError: the process failed, an integer differs, or a score differs by more
        than `score_tolerance`.
    """
    results = run_in_fresh_process(model_dir, requests)
    for index, request in enumerate(requests):
        (value,) = request.inputs.values()
        is_bytes = request.signature == BYTES_SIGNATURE
        run = predictor.predict_bytes if is_bytes else predictor.predict
        for name, tensor in run(value).items():
            found = results.get(f"{index}/{name}")
            problem = _difference(tensor.numpy(), found, score_tolerance)
            if problem:
                raise WorkError(
                    f"the SavedModel, run by a new process, differs from the network "
                    f"in output '{name}' of signature '{request.signature}': {problem}"
                    "; nothing was exported"
                )


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
        return f"{np.count_nonzero(found != expected)} of {found.size} integers"
    return None


def run_in_fresh_process(
    model_dir: Path | str, requests: Sequence[Request]
) -> dict[str, np.ndarray]:
    """Runs requests in a new Python process that imports TensorFlow and not cmt.

    It runs on the CPU: a GPU may be taken by this process.

    Returns:
      "INDEX/OUTPUT" -> array, for each request and each output.

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
    if results.pop("modules").size:
        raise WorkError("the new process that runs the SavedModel imported cmt")
    return results


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
