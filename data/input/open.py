"""DataConfig -> data sets. The only file here that reads config messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from cmt.data.input import pipeline
from cmt.data.input.augment import Augmentation
from cmt.data.input.colour import ColorJitter, Policy
from cmt.data.input.copy_paste import CopyPaste
from cmt.data.input.prepare import Changes, Sizes
from cmt.data.records.manifest import Manifest
from cmt.io.storage import as_location
from cmt.protos import data_pb2


def training_dataset(
    data_config: data_pb2.DataConfig,
    *,
    global_batch_size: int,
    seed: int,
    first_step: int = 0,
    input_context: tf.distribute.InputContext | None = None,
    source: pipeline.Split | None = None,
) -> tf.data.Dataset:
    """Endless batches of (images, Targets); see `pipeline.training_dataset`.

    They are those of `source` where it is given, else of the training split.

    Raises:
      InputError: the shards or their manifest are missing or damaged.
    """
    return pipeline.training_dataset(
        source or _source(data_config.train),
        sizes=Sizes(
            crop=_crop_size(data_config),
            max_masks=data_config.max_masks,
            min_thing_pixels=data_config.min_thing_pixels,
        ),
        changes=_changes(data_config.augmentation),
        loading=pipeline.Loading(
            parallel_calls=data_config.parallel_calls,
            prefetch_batches=data_config.prefetch_batches,
            cache_records=data_config.cache_records,
            skip_damaged=data_config.skip_damaged_records,
            snapshot_folder=data_config.snapshot_folder,
            service=data_config.service,
        ),
        batch_size=global_batch_size,
        seed=seed,
        first_step=first_step,
        input_context=input_context,
    )


def _changes(config: data_pb2.AugmentationConfig) -> Changes:
    jitter, pasted = config.color_jitter, config.copy_paste
    return Changes(
        augmentation=Augmentation(
            min_scale=config.min_scale,
            max_scale=config.max_scale,
            scale_step=config.scale_step,
            flip_probability=config.flip_probability,
        ),
        jitter=ColorJitter(
            brightness=jitter.brightness,
            contrast=jitter.contrast,
            saturation=jitter.saturation,
            hue=jitter.hue,
        ),
        policy=Policy(
            num_operations=config.policy.num_operations,
            magnitude=config.policy.magnitude,
        ),
        copy_paste=CopyPaste(
            probability=pasted.probability,
            min_scale=pasted.min_scale,
            max_scale=pasted.max_scale,
            thing_probability=pasted.thing_probability,
            stuff_probability=pasted.stuff_probability,
            things=pasted.things,
            stuff=pasted.stuff,
        ),
    )


def record_names(data_config: data_pb2.DataConfig, records: Sequence[int]) -> list[str]:
    """Where training images are; see `pipeline.record_names`."""
    return pipeline.record_names(
        _source(data_config.train),
        records,
        skip_damaged=data_config.skip_damaged_records,
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
    """The manifest of the training shards, with the config's ground truth."""
    return _manifest(data_config.train)


def validation_manifest(data_config: data_pb2.DataConfig) -> Manifest:
    """The manifest of the validation shards, with the config's ground truth."""
    return _manifest(data_config.validation)


def _source(dataset: data_pb2.DatasetConfig) -> pipeline.Split:
    return pipeline.find_source(
        dataset.tfrecords, dataset.manifest, dataset.annotations, dataset.masks
    )


def _crop_size(data_config: data_pb2.DataConfig) -> tuple[int, int]:
    return data_config.crop_height_pixels, data_config.crop_width_pixels


def _manifest(dataset: data_pb2.DatasetConfig) -> Manifest:
    manifest = _source(dataset).manifest
    return dataclasses.replace(
        manifest,
        annotations=as_location(dataset.annotations or manifest.annotations),
        masks=as_location(dataset.masks or manifest.masks),
    )
