"""TFRecords -> batches, with tf.data."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cmt.data.input import preprocess, service
from cmt.data.input.loading import Loading
from cmt.data.input.prepare import Changes, Preparation, Sizes
from cmt.data.input.targets import Masks, unpack
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import load_json
from cmt.data.records.index import RecordIndex, index_records
from cmt.data.records.manifest import Manifest, Shard, manifest_path
from cmt.data.records.reader import ReadExample, example_reader, image_name
from cmt.data.records.snapshot import snapshot
from cmt.data.records.tfrecord import INDEX_SUFFIX, Example
from cmt.errors import InputError, tensorflow_reason
from cmt.io import storage
from cmt.outputs import Targets


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


class Split(NamedTuple):
    """The shards of a split, or some of them.

    Attributes:
      files: paths, in order.
      manifest: theirs; it lists these files alone and counts their images. Its
        `contents` are those of the whole split.
    """

    files: list[str]
    manifest: Manifest

    @property
    def num_images(self) -> int:
        """Images in the files."""
        return self.manifest.num_images


def find_source(
    pattern: str, manifest: str = "", annotations: str = "", masks: str = ""
) -> Split:
    """Finds the shards of a split and its manifest.

    Shards of DeepLab2 have no manifest: it is then made from `annotations`.

    Args:
      pattern: of the shard files, such as "coco/val-*.tfrecord", as `find_files` of
        `cmt.io.storage` takes it.
      manifest: path of the manifest; "" for the one beside the shards.
      annotations: COCO panoptic json whose categories, in order, are the classes of
        shards that have no manifest.
      masks: folder of its PNG files.

    Raises:
      InputError: no file fits the pattern, the manifest is missing or damaged, or
        it and the files do not belong together.
    """
    if not pattern:
        raise InputError("no TFRecord files given; set tfrecords to their pattern")
    files = [
        file for file in storage.find_files(pattern) if not file.endswith(INDEX_SUFFIX)
    ]
    if not files:
        raise InputError(
            f"{pattern}: no file fits this pattern; give the shards that `cmt data "
            'convert` wrote, such as "DIR/train-*.tfrecord"'
        )
    folders = sorted({storage.split(file)[0] for file in files})
    if len(folders) > 1:
        raise InputError(
            f"{pattern}: must fit the shards of one split, which are in one folder; "
            f"got {folders[0]} and {folders[1]}"
        )
    return open_split(files, manifest, annotations, masks)


def open_split(
    files: Sequence[str], manifest: str = "", annotations: str = "", masks: str = ""
) -> Split:
    """Some shards with their manifest; see `find_source`.

    Args:
      files: shards of one folder, in order.
      manifest: see `find_source`, as all others.
      annotations: of shards without manifest.
      masks: of shards without manifest.

    Raises:
      InputError: see `find_source`.
    """
    folder = storage.split(files[0])[0]
    if not manifest:
        splits = {split_name(file) for file in files}
        if len(splits) != 1 or "" in splits:
            raise InputError(
                f"{folder}: must be the shards of one split, named "
                f"{{split}}-00000-of-00001.tfrecord; got {storage.split(files[0])[1]} "
                "and others"
            )
        split = splits.pop()
        manifest = str(manifest_path(folder, split))
        if annotations and not storage.is_file(manifest):
            return _without_manifest(files, split, annotations, masks)
    return _matched(files, Manifest.read(manifest), manifest)


def split_name(file: str) -> str:
    """The first part of a shard's name; "" if it is not named as shards are."""
    name = storage.split(file)[1]
    return name.rpartition("-of-")[0].rpartition("-")[0]


def _without_manifest(
    files: Sequence[str], split: str, annotations: str, masks: str
) -> Split:
    entries = load_json(annotations).get("categories")
    try:
        categories = [Category.from_json(entry) for entry in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f'{annotations}: "categories" must list the classes of the shards, each '
            f"with id, name and isthing ({error!r})"
        ) from error
    # Whether damage ends the run is decided when the records are read.
    counts = np.bincount(
        index_records(files, skip_damaged=True).file_numbers, minlength=len(files)
    )
    shards = [
        Shard(storage.split(file)[1], int(count), sha256="")
        for file, count in zip(files, counts, strict=True)
    ]
    manifest = Manifest(
        split=split,
        categories=categories,
        num_images=sum(shard.num_images for shard in shards),
        shards=shards,
        annotations=storage.as_location(annotations),
        masks=storage.as_location(masks or posixpath.splitext(annotations)[0]),
        folder=storage.as_location(storage.split(files[0])[0]),
    )
    return Split(list(files), manifest)


def _matched(files: Sequence[str], manifest: Manifest, path: str) -> Split:
    shards = {shard.name: shard for shard in manifest.shards}
    folder = storage.split(files[0])[0]
    found = [storage.split(file)[1] for file in files]
    for file, name in zip(files, found, strict=True):
        if name not in shards:
            raise InputError(
                f"{file}: not a shard of {path}; narrow the pattern or convert again"
            )
    others = [name for name in shards if name not in found]
    there = storage.list_files(folder) if others else {}
    for name in others:
        if name not in there:
            raise InputError(
                f"{storage.join(folder, name)}: missing, though {path} lists it; copy "
                "it or convert again with --resume"
            )
    used = [shards[name] for name in found]
    num_images = sum(shard.num_images for shard in used)
    if num_images == 0:
        raise InputError(f"{path}: the shards have no images")
    return Split(
        list(files),
        dataclasses.replace(manifest, shards=used, num_images=num_images),
    )


def training_dataset(
    source: Split,
    *,
    sizes: Sizes,
    changes: Changes,
    loading: Loading,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Endless batches of (images, Targets), the same for the same seed.

    Image i of step s is image s * batch_size + i of the run. Its record and its
    random changes depend on that number and the seed alone, so a run can begin at
    any step. (The order of a tf.data service is its own.)

    Args:
      source: the shards.
      sizes: of images and targets.
      changes: the random changes.
      loading: how records are read.
      batch_size: images in a step, over all hosts.
      seed: of order and changes.
      first_step: step of the first batch.
      input_context: which part of each step is wanted, in batches of one replica's
        images; None for whole steps.

    Returns:
      Dataset of images [B, crop height, crop width, 3] float32, 0 to 255, and
      Targets, whose `image_ids` name the records that were read.

    Raises:
      InputError: a shard is cut off or damaged, a category to paste is unknown, the
        service does not answer, or values do not go together.
    """
    loading.check()
    reader, num_records = _reader(source, loading)
    records: list[tf.Tensor] = []

    def read(record: tf.Tensor) -> Example:
        example = reader(record)
        records.append(example.record)
        return example

    prepare = Preparation(
        read,
        num_records=num_records,
        categories=source.manifest.categories,
        sizes=sizes,
        changes=changes,
        seed=seed,
    )

    def element(number: tf.Tensor) -> tuple[tuple[tf.Tensor, Masks], tf.Tensor]:
        records.clear()
        prepared = prepare(number)
        # The first is the image's own, in place of which another may have been read.
        return prepared, records[0]

    numbers, size = _image_numbers(batch_size, first_step, input_context)
    dataset = numbers.map(element, loading.parallel_calls or tf.data.AUTOTUNE)
    dataset = dataset.batch(size, drop_remainder=True)
    if loading.service:
        dataset = service.distribute(dataset, loading.service)
    # Last, so that the batches that wait and travel are small.
    dataset = dataset.map(_unpack)
    return dataset.prefetch(loading.prefetch_batches)


def _unpack(
    prepared: tuple[tf.Tensor, Masks], records: tf.Tensor
) -> tuple[tf.Tensor, Targets]:
    images, masks = prepared
    return images, unpack(masks)._replace(image_ids=tf.cast(records, tf.int32))


def _index(source: Split, skip_damaged: bool) -> RecordIndex:
    expected = {shard.name: shard.num_images for shard in source.manifest.shards}
    return index_records(
        source.files,
        skip_damaged=skip_damaged,
        expected={file: expected[storage.split(file)[1]] for file in source.files},
    )


def _reader(source: Split, loading: Loading) -> tuple[ReadExample, int]:
    """What reads a record of a split, and how many there are."""
    index = _index(source, loading.skip_damaged)
    damage = {
        "num_classes": len(source.manifest.categories),
        "skip_damaged": loading.skip_damaged,
    }
    try:
        if loading.snapshot_folder:
            index = snapshot(index, loading.snapshot_folder, **damage)
        read = example_reader(index, **damage, in_memory=loading.cache_records)
    except tf.errors.OpError as error:
        raise InputError(tensorflow_reason(error)) from error
    return read, index.num_records


def _image_numbers(
    batch_size: int, first_step: int, context: tf.distribute.InputContext | None
) -> tuple[tf.data.Dataset, int]:
    """The numbers of the images of a run, and how many make a batch."""
    hosts = context.num_input_pipelines if context else 1
    if batch_size % hosts:
        raise InputError(
            "the batch of all hosts must be divisible by the number of hosts; got "
            f"{batch_size} images and {hosts} hosts"
        )
    of_host = batch_size // hosts
    numbers = tf.data.Dataset.range(first_step * of_host, tf.int64.max)
    if not context:
        return numbers, batch_size
    first = context.input_pipeline_id * of_host
    numbers = numbers.map(lambda n: n // of_host * batch_size + first + n % of_host)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    of_replica = context.get_per_replica_batch_size(batch_size)
    return numbers.with_options(options), of_replica


def record_names(
    source: Split, records: Sequence[int], *, skip_damaged: bool = False
) -> list[str]:
    """Where images are, as "FILE: record NUMBER (NAME)".

    Args:
      source: the shards.
      records: as in `Targets.image_ids`.
      skip_damaged: as in `Loading`.
    """
    index = _index(source, skip_damaged)
    return [f"{index.describe(k)} ({image_name(index, k)})" for k in records]


def evaluation_dataset(
    source: Split,
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

    index = _index(source, False)
    read = example_reader(index, num_classes=len(source.manifest.categories))

    @tf.autograph.experimental.do_not_convert
    def prepare(number: tf.Tensor) -> EvaluationBatch:
        example = read(number)
        image, resized = preprocess.resize_and_pad(example.image, crop_size)
        return EvaluationBatch(
            images=image,
            names=example.name,
            original_sizes=tf.shape(example.image)[:2],
            resized_sizes=resized,
        )

    count = index.num_records
    numbers = tf.data.Dataset.range(min(max_images, count) if max_images else count)
    dataset = numbers.map(prepare, parallel_calls or tf.data.AUTOTUNE)
    return dataset.batch(batch_size).prefetch(prefetch_batches)
