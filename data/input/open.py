"""DataConfig -> its splits, each opened once. Only this file reads its messages."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from google.protobuf.message import Message

from cmt.data.input.augment import Augmentation
from cmt.data.input.colour import ColorJitter, Policy
from cmt.data.input.copy_paste import CopyPaste
from cmt.data.input.find import find_split
from cmt.data.input.pipeline import Split
from cmt.data.input.prepare import Changes, Options
from cmt.errors import InputError
from cmt.protos import data_pb2

Fields = TypeVar("Fields", bound=tuple)


def open_data(config: data_pb2.DataConfig) -> Data:
    """Opens the data of a config; a split is looked for when it is first used."""
    return Data(config)


class Data:
    """The splits of a config, each opened when it is first asked for, and only then.

    Raises:
      InputError: by an attribute: the split is not set, or its shards or their
        manifest are missing or damaged.
    """

    def __init__(self, config: data_pb2.DataConfig):
        """Takes the config; opens nothing yet."""
        self._config = config

    @functools.cached_property
    def train(self) -> Split:
        """The training split."""
        return self._open("train", read_options(self._config))

    @functools.cached_property
    def validation(self) -> Split:
        """The validation split: no random changes, and a damaged record is an error."""
        # A tf.data service is for what is slow: training.
        others = {"skip_damaged_records": False, "service": "", "changes": Changes()}
        return self._open("validation", read_options(self._config)._replace(**others))

    def _open(self, name: str, options: Options) -> Split:
        config = getattr(self._config, name)
        if not config.tfrecords:
            raise InputError(
                f"data.{name}.tfrecords is not set; add it to the config, or "
                f"--set 'data.{name}.tfrecords=\"DIR/{name}-*.tfrecord\"'"
            )
        return find_split(
            config.tfrecords, config.manifest, config.annotations, config.masks, options
        )


def read_options(config: data_pb2.DataConfig) -> Options:
    """What becomes of the records of a training split."""
    augmentation = config.augmentation
    changes = Changes(
        _read(Augmentation, augmentation),
        _read(ColorJitter, augmentation.color_jitter),
        _read(Policy, augmentation.policy),
        _read(CopyPaste, augmentation.copy_paste),
    )
    crop_size = config.crop_height_pixels, config.crop_width_pixels
    return _read(Options, config, crop_size=crop_size, changes=changes)


def _read(kind: type[Fields], message: Message, **others: Any) -> Fields:
    """A tuple of others, and of the fields that a message has under the same names."""
    names = [name for name in kind._fields if name not in others]
    return kind(**others, **{name: getattr(message, name) for name in names})
