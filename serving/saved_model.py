"""The SavedModels that `cmt export` writes: what they are called, and opening one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import load_json
from cmt.errors import InputError
from cmt.io.storage import plain_path

MODEL_FILE = "model.json"
IMAGES_SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
BYTES_SIGNATURE = "image_bytes"


class Segmenter(NamedTuple):
    """A model that segments images, however it was stored.

    Attributes:
      run: images [B, H, W, 3] uint8 of one size -> the outputs of a served model.
      categories: the classes.
    """

    run: Callable[[tf.Tensor], Mapping[str, tf.Tensor]]
    categories: list[Category]


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
        model = tf.saved_model.load(plain_path(path))
        if IMAGES_SIGNATURE not in model.signatures:
            raise ValueError(f"it has no signature '{IMAGES_SIGNATURE}'")
    except (OSError, KeyError, TypeError, ValueError, tf.errors.OpError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{path}: not a model of `cmt export`: {first}; export it again"
        ) from error

    def run(images: tf.Tensor) -> Mapping[str, tf.Tensor]:
        # Asked of the model, whose variables would not outlive it.
        return model.signatures[IMAGES_SIGNATURE](images=images)

    return Segmenter(run, categories)
