"""DataConfig -> data sets. The only file here that reads config messages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tensorflow as tf

from cmt.data import pipeline
from cmt.data.augment import Augmentation
from cmt.data.manifest import Manifest
from cmt.protos import data_pb2


def training_dataset(
    data_config: data_pb2.DataConfig,
    *,
    global_batch_size: int,
    seed: int,
    first_step: int = 0,
) -> tf.data.Dataset:
    """Endless batches of (images, Targets); see `pipeline.training_dataset`.

    Raises:
      InputError: the shards or their manifest are missing or damaged.
    """
    augmentation = data_config.augmentation
    return pipeline.training_dataset(
        _source(data_config.train),
        crop_size=_crop_size(data_config),
        max_masks=data_config.max_masks,
        augmentation=Augmentation(
            min_scale=augmentation.min_scale,
            max_scale=augmentation.max_scale,
            scale_step=augmentation.scale_step,
            flip_probability=augmentation.flip_probability,
        ),
        batch_size=global_batch_size,
        seed=seed,
        first_step=first_step,
        shuffle_buffer=data_config.shuffle_buffer_images,
        parallel_calls=data_config.parallel_calls,
        prefetch_batches=data_config.prefetch_batches,
        cache_records=data_config.cache_records,
    )


def evaluation_dataset(
    data_config: data_pb2.DataConfig, *, batch_size: int, max_images: int = 0
) -> tf.data.Dataset:
    """Every validation image once; see `pipeline.evaluation_dataset`.

    Raises:
      InputError: the shards or their manifest are missing or damaged.
    """
    return pipeline.evaluation_dataset(
        _source(data_config.validation),
        crop_size=_crop_size(data_config),
        batch_size=batch_size,
        parallel_calls=data_config.parallel_calls,
        prefetch_batches=data_config.prefetch_batches,
        max_images=max_images,
    )


def training_manifest(data_config: data_pb2.DataConfig) -> Manifest:
    """The manifest of the training split, with the config's ground truth."""
    return _manifest(data_config.train)


def validation_manifest(data_config: data_pb2.DataConfig) -> Manifest:
    """The manifest of the validation split, with the config's ground truth."""
    return _manifest(data_config.validation)


def _source(dataset: data_pb2.DatasetConfig) -> pipeline.Source:
    return pipeline.find_source(dataset.tfrecords, dataset.manifest)


def _crop_size(data_config: data_pb2.DataConfig) -> tuple[int, int]:
    return data_config.crop_height_pixels, data_config.crop_width_pixels


def _manifest(dataset: data_pb2.DatasetConfig) -> Manifest:
    manifest = _source(dataset).manifest
    return dataclasses.replace(
        manifest,
        annotations=Path(dataset.annotations or manifest.annotations),
        masks=Path(dataset.masks or manifest.masks),
    )
