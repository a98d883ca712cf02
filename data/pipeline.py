"""TFRecords -> batches, with tf.data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from cmt.data import preprocess
from cmt.data.augment import Augmentation, augment
from cmt.data.manifest import Manifest, manifest_path
from cmt.data.targets import make_targets
from cmt.data.tfrecord import decode_example
from cmt.errors import InputError

_GRAPH_SEED = 1
_SHARDS_READ_AT_ONCE = 8


class EvaluationBatch(NamedTuple):
    """Images of an evaluation.

    Attributes:
      images: [B, H, W, 3] float32, 0 to 255, resized and padded to the crop.
      names: [B] string, file names without extension.
      original_sizes: [B, 2] int32, height and width of the image.
      resized_sizes: [B, 2] int32, height and width of the image inside the crop.
    """

    images: tf.Tensor
    names: tf.Tensor
    original_sizes: tf.Tensor
    resized_sizes: tf.Tensor


class Source(NamedTuple):
    """The shards of a split.

    Attributes:
      files: paths, in order.
      num_images: images in them.
      manifest: the manifest that lists them.
    """

    files: list[str]
    num_images: int
    manifest: Manifest


def find_source(pattern: str, manifest: str = "") -> Source:
    """Finds the shards of a split and its manifest.

    Args:
      pattern: of the shard files, such as "coco/val-*.tfrecord".
      manifest: path of the manifest; "" for the one beside the shards.

    Raises:
      InputError: no file fits the pattern, the manifest is missing or damaged, or
        it and the files do not belong together.
    """
    if not pattern:
        raise InputError("no TFRecord files given; set tfrecords to their pattern")
    folder, name = Path(pattern).parent, Path(pattern).name
    files = sorted(path for path in folder.glob(name) if path.is_file())
    if not files:
        raise InputError(
            f"{pattern}: no file fits this pattern; give the shards that `cmt data "
            'convert` wrote, such as "DIR/train-*.tfrecord"'
        )
    if not manifest:
        splits = {path.name.rpartition("-of-")[0].rpartition("-")[0] for path in files}
        if len(splits) != 1 or "" in splits:
            raise InputError(
                f"{pattern}: must fit the shards of one split, named "
                f"{{split}}-00000-of-00001.tfrecord; got {files[0].name} and others"
            )
        manifest = str(manifest_path(files[0].parent, splits.pop()))
    return _matched(files, Manifest.read(manifest), manifest)


def _matched(files: Sequence[Path], manifest: Manifest, path: str) -> Source:
    sizes = {shard.name: shard.num_images for shard in manifest.shards}
    for file in files:
        if file.name not in sizes:
            raise InputError(
                f"{file}: not a shard of {path}; narrow the pattern or convert again"
            )
    found = {file.name for file in files}
    for name in sizes:
        if name not in found and not (files[0].parent / name).is_file():
            raise InputError(
                f"{files[0].parent / name}: missing, though {path} lists it; copy it "
                "or convert again with --resume"
            )
    num_images = sum(sizes[file.name] for file in files)
    if num_images == 0:
        raise InputError(f"{path}: the split has no images")
    return Source([str(file) for file in files], num_images, manifest)


def training_dataset(
    source: Source,
    *,
    crop_size: tuple[int, int],
    max_masks: int,
    augmentation: Augmentation,
    batch_size: int,
    seed: int,
    first_step: int,
    shuffle_buffer: int,
    parallel_calls: int,
    prefetch_batches: int,
    cache_records: bool,
) -> tf.data.Dataset:
    """Endless batches of (images, Targets), the same for the same seed.

    Args:
      source: the shards.
      crop_size: height and width of the images, in pixels.
      max_masks: G of `Targets`.
      augmentation: ranges of the random changes.
      batch_size: images in a batch.
      seed: of order and augmentation.
      first_step: batches to leave out; those after are what they would have been.
      shuffle_buffer: encoded images the shuffle draws from.
      parallel_calls: images decoded at a time; 0 lets tf.data choose.
      prefetch_batches: batches made ahead.
      cache_records: keep the encoded records in memory.

    Returns:
      Dataset of images [B, crop height, crop width, 3] float32, 0 to 255, and
      Targets.
    """
    first_record = first_step * batch_size
    records = _shuffled_records(
        source,
        seed=seed,
        first_record=first_record,
        buffer=shuffle_buffer,
        cache=cache_records,
    )

    def prepare(number: tf.Tensor, record: tf.Tensor) -> tuple:
        example = decode_example(record)
        image, labels = augment(
            example.image,
            example.labels,
            seed=tf.stack([tf.constant(seed, tf.int64), number]),
            crop_size=crop_size,
            augmentation=augmentation,
        )
        targets = make_targets(
            labels, is_thing=source.manifest.is_thing, max_masks=max_masks
        )
        return image, targets

    dataset = records.enumerate(start=first_record)
    dataset = dataset.map(prepare, parallel_calls or tf.data.AUTOTUNE)
    return dataset.batch(batch_size, drop_remainder=True).prefetch(prefetch_batches)


def _shuffled_records(
    source: Source, *, seed: int, first_record: int, buffer: int, cache: bool
) -> tf.data.Dataset:
    """Serialised examples, epoch after epoch, each in an order of its own.

    The order of an epoch depends on the seed and its number alone, so whole epochs
    before `first_record` are left out without being read.
    """
    first_epoch, skipped = divmod(first_record, source.num_images)
    files = tf.constant(source.files)
    cached = tf.data.TFRecordDataset(files).cache() if cache else None

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        # Of this function's graph: makes the order independent of the global seed.
        tf.random.set_seed(_GRAPH_SEED)
        seeds = tf.stack([tf.constant(seed, tf.int64), number])
        if cached is not None:
            records = cached
        else:
            order = tf.random.experimental.stateless_shuffle(files, seed=seeds)
            records = tf.data.Dataset.from_tensor_slices(order).interleave(
                tf.data.TFRecordDataset, cycle_length=_SHARDS_READ_AT_ONCE
            )
        shuffle_seed = tf.random.stateless_uniform(
            [], seed=seeds, minval=1, maxval=2**31, dtype=tf.int64
        )
        return records.shuffle(
            buffer, seed=shuffle_seed, reshuffle_each_iteration=False
        )

    epochs = tf.data.Dataset.counter(start=first_epoch)
    return epochs.flat_map(epoch).skip(skipped)


def evaluation_dataset(
    source: Source,
    *,
    crop_size: tuple[int, int],
    batch_size: int,
    parallel_calls: int,
    prefetch_batches: int,
    max_images: int,
) -> tf.data.Dataset:
    """Batches of every image once, in the order of the shards.

    Args:
      source: the shards.
      crop_size: height and width of the images, in pixels.
      batch_size: images in a batch; the last one may have fewer.
      parallel_calls: images decoded at a time; 0 lets tf.data choose.
      prefetch_batches: batches made ahead.
      max_images: stop after these; 0 for all.

    Returns:
      Dataset of EvaluationBatch.
    """

    def prepare(record: tf.Tensor) -> EvaluationBatch:
        example = decode_example(record)
        image, resized = preprocess.resize_and_pad(example.image, crop_size)
        return EvaluationBatch(
            images=image,
            names=example.name,
            original_sizes=tf.shape(example.image)[:2],
            resized_sizes=resized,
        )

    dataset = tf.data.TFRecordDataset(source.files)
    if max_images:
        dataset = dataset.take(max_images)
    dataset = dataset.map(prepare, parallel_calls or tf.data.AUTOTUNE)
    return dataset.batch(batch_size).prefetch(prefetch_batches)
