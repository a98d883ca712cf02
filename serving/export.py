"""A trained network as a SavedModel for TensorFlow Serving, proven equal.

The model is written beside its final place, loaded by a new process that has nothing
but TensorFlow, and compared; only if every integer agrees is it renamed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from orbax.export import ExportManager, ServingConfig, constants
from orbax.export.modules.orbax_module_base import OrbaxModuleBase
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

import cmt
from cmt.errors import InputError, few
from cmt.io.files import atomic_directory, write_json
from cmt.serving.network_graph import drop_shapes, optimize_once, shrink
from cmt.serving.parity import VALIDATION_FILE, check_parity, make_requests
from cmt.serving.predictor import PanopticPredictor
from cmt.serving.saved_model import (
    BYTES_SIGNATURE,
    IMAGES_SIGNATURE,
    MODEL_FILE,
    PNG_SIGNATURE,
    SIGNATURES,
    is_version,
)
from cmt.serving.warmup_requests import Request, write_warmup


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
        "signatures": {name: s._asdict() for name, s in SIGNATURES.items()},
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
            write_json(temporary / MODEL_FILE, description)
            report = check_parity(predictor, temporary, requests, score_tolerance)
            write_json(temporary / VALIDATION_FILE, report)
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
    """Writes the SavedModel: prepare -> segment -> restore, for each signature."""
    traced = predictor.trace_segment()
    segment, variables = shrink(traced, predictor.network.variables)
    module = NetworkModule(variables, {"segment": segment})
    images = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
    files = tf.TensorSpec([None], tf.string, name="image_bytes")
    parts = {
        IMAGES_SIGNATURE: (images, predictor.prepare, predictor.restore),
        BYTES_SIGNATURE: (files, predictor.prepare_bytes, predictor.restore),
        PNG_SIGNATURE: (files, predictor.prepare_bytes, predictor.restore_png),
    }
    configs = [
        ServingConfig(
            name,
            input_signature=[spec],
            tf_preprocessor=prepare,
            tf_postprocessor=restore,
            method_key="segment",
        )
        for name, (spec, prepare, restore) in parts.items()
    ]
    ExportManager(module, configs).save(str(folder))
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    (meta,) = model.meta_graphs
    _drop_saving(meta)
    optimize_once(meta)
    drop_shapes(meta)
    path.write_bytes(model.SerializeToString(deterministic=True))
    # It is the fingerprint of the graph as it was.
    (folder / "fingerprint.pb").unlink(missing_ok=True)


def _drop_saving(meta: meta_graph_pb2.MetaGraphDef) -> None:
    """Takes out of the graph what would write a checkpoint.

    TensorFlow puts it in, and every server would load it; restoring stays.
    """
    name = meta.saver_def.save_tensor_name.partition(":")[0]
    (node,) = (node for node in meta.graph_def.node if node.name == name)
    functions = meta.graph_def.library.function
    (saving,) = (f for f in functions if f.signature.name == node.attr["f"].func.name)
    functions.remove(saving)
    meta.graph_def.node.remove(node)


def _repeated(requests: Sequence[Request], number: int) -> list[Request]:
    """Returns `number` requests for each signature, repeated where there are fewer."""
    chosen = []
    for signature in SIGNATURES:
        known = [item for item in requests if item.signature == signature]
        chosen += [known[index % len(known)] for index in range(number)]
    return chosen
