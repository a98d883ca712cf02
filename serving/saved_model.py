"""The SavedModels that `cmt export` writes: what they are called, and opening one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import load_json
from cmt.errors import InputError
from cmt.io.storage import plain_path

MODEL_FILE = "model.json"
IMAGES_SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
BYTES_SIGNATURE = "image_bytes"
PNG_SIGNATURE = "png_bytes"
_DAMAGED = (tf.errors.OpError, DecodeError)


class Signature(NamedTuple):
    """Names of the one input and of the outputs of a served function."""

    input: str
    outputs: tuple[str, ...]


_SEGMENTS = ("sizes", "segment_ids", "category_ids", "scores", "is_thing")
SIGNATURES = {
    IMAGES_SIGNATURE: Signature("images", ("panoptic", *_SEGMENTS)),
    BYTES_SIGNATURE: Signature("image_bytes", ("panoptic", *_SEGMENTS)),
    PNG_SIGNATURE: Signature("image_bytes", ("panoptic_png", *_SEGMENTS)),
}


class Segmenter(NamedTuple):
    """A model that segments images, however it was stored.

    Attributes:
      run: images [B, H, W, 3] uint8 of one size -> the outputs of a served model.
      categories: the classes.
      crop_size: height and width of what the network sees, in pixels.
    """

    run: Callable[[np.ndarray], Mapping[str, np.ndarray | tf.Tensor]]
    categories: list[Category]
    crop_size: tuple[int, int]


def find_saved_model(path: Path | str) -> Path | None:
    """Finds the folder of a SavedModel: `path`, or its highest version; else None."""
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    versions = [f for f in (path.iterdir() if path.is_dir() else ()) if is_version(f)]
    return max(versions, key=lambda folder: int(folder.name), default=None)


def is_version(folder: Path) -> bool:
    """Whether a folder is a version of a model: a number, with a SavedModel in it."""
    return folder.name.isdecimal() and (folder / "saved_model.pb").is_file()


def load_saved_model(path: Path) -> Segmenter:
    """Opens the folder of a SavedModel written by `cmt export`.

    Raises:
      InputError: it is damaged, or was not written by `cmt export`.
    """
    try:
        content = load_json(path / MODEL_FILE)
        categories = [Category.from_json(item) for item in content["categories"]]
        height, width = content["crop_size"]
        run = _open_signature(path, IMAGES_SIGNATURE)
    except (OSError, KeyError, TypeError, ValueError, *_DAMAGED) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{path}: not a model of `cmt export`: {first}; export it again"
        ) from error
    return Segmenter(run, categories, (int(height), int(width)))


def _open_signature(
    path: Path, name: str
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Loads what one signature needs, as a function of its input.

    `tf.saved_model.load` makes Python functions of all graphs, which takes twice as
    long as all of this. What is to be optimized says so itself; see `optimize_once`.
    """
    model = saved_model_pb2.SavedModel.FromString(
        (path / "saved_model.pb").read_bytes()
    )
    if not model.meta_graphs:
        raise ValueError("saved_model.pb holds no graph")
    meta = model.meta_graphs[0]
    if name not in meta.signature_def:
        raise ValueError(f"it has no signature '{name}'")
    signature = meta.signature_def[name]
    outside = tf.compat.v1.ConfigProto()
    outside.graph_options.rewrite_options.disable_meta_optimizer = True
    outside.graph_options.place_pruned_graph = True
    session = tf.compat.v1.Session(graph=tf.Graph(), config=outside)
    with session.graph.as_default():
        saver = tf.compat.v1.train.import_meta_graph(meta)
        saver.restore(session, plain_path(path / "variables" / "variables"))
    outputs = {key: info.name for key, info in signature.outputs.items()}
    given = signature.inputs[SIGNATURES[name].input].name
    call = session.make_callable(list(outputs.values()), [given])
    return lambda images: dict(zip(outputs, call(images), strict=True))
