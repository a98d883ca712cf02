"""TFRecords of a split -> batches, with tf.data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cmt.data.input import preprocess, service
from cmt.data.input.copy_paste import paste_shares
from cmt.data.input.prepare import Options, Preparation
from cmt.data.input.targets import Masks, unpack
from cmt.data.panoptic.categories import Category
from cmt.data.records.index import RecordIndex, index_records
from cmt.data.records.manifest import Manifest
from cmt.data.records.reader import (
    example_reader,
    image_name,
    image_names,
    why_damaged,
)
from cmt.data.records.snapshot import snapshot
from cmt.data.records.tfrecord import Example
from cmt.errors import InputError, tensorflow_reason
from cmt.io.tuning import untuned
from cmt.outputs import Targets


class EvaluationBatch(NamedTuple):
    """Images of an evaluation, resized and padded to the crop.

    Attributes:
      images: [B, H, W, 3] float32, 0 to 255.
      names: [B] string, file names without extension.
      original_sizes, resized_sizes: [B, 2] int32, height and width of the image
        itself, and inside the crop.
    """

    images: tf.Tensor
    names: tf.Tensor
    original_sizes: tf.Tensor
    resized_sizes: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Split:
    """The shards of a split, or some of them.

    Attributes:
      files: paths, in order.
      manifest: of these files alone; only its `contents` are of the whole split.
      options: what becomes of the records; None where no batches are wanted.
    """

    files: list[str]
    manifest: Manifest
    options: Options | None = None

    @property
    def categories(self) -> list[Category]:
        """The classes, in order."""
        return self.manifest.categories

    @property
    def num_images(self) -> int:
        """Images in the files."""
        return self.manifest.num_images

    @functools.cached_property
    def index(self) -> RecordIndex:
        """The places of the records, found at the first use.

        Raises:
          InputError: a shard is cut off or damaged.
        """
        counts = [shard.num_images for shard in self.manifest.shards]
        return index_records(
            self.files,
            skip_damaged=self.options is not None and self.options.skip_damaged_records,
            expected=dict(zip(self.files, counts, strict=True)),
        )

    def batches(
        self,
        *,
        global_batch_size: int,
        seed: int,
        first_step: int = 0,
        input_context: tf.distribute.InputContext | None = None,
    ) -> tf.data.Dataset:
        """Endless batches of (images, Targets), the same for the same seed.

        Image i of step s is image s * global_batch_size + i of the run. Its record and
        its random changes depend on that number and the seed alone, so a run can begin
        at any step. (A tf.data service has an order of its own.)

        Args:
          global_batch_size: images in a step, over all hosts.
          first_step: step of the first batch.
          input_context: whose part of each step is wanted, in batches of a replica;
            None for whole steps.

        Returns:
          Dataset of images [B, crop height, crop width, 3] float32, 0 to 255, and
          Targets, whose `image_ids` name the records that were read.

        Raises:
          InputError: a shard is cut off or damaged, a category to paste is unknown,
            the service does not answer, or options do not go together.
        """
        options = self.options
        for other, reason in (
            ("service", "which would send all that is kept to its workers"),
            ("snapshot_folder", "whose records are decoded, not kept as they are"),
        ):
            if options.cache_records and getattr(options, other):
                raise InputError(
                    f"data.cache_records cannot be used with data.{other}, {reason}; "
                    "leave one of them out"
                )
        index = self.index
        damage = {
            "num_classes": len(self.categories),
            "skip_damaged": options.skip_damaged_records,
        }
        try:
            if options.snapshot_folder:
                index = snapshot(index, options.snapshot_folder, **damage)
            read = example_reader(index, **damage, in_memory=options.cache_records)
        except tf.errors.OpError as error:
            raise InputError(tensorflow_reason(error)) from error
        prepare = Preparation(
            read,
            num_records=index.num_records,
            is_thing=self.manifest.is_thing,
            shares=paste_shares(options.changes.copy_paste, self.categories),
            options=options,
            seed=seed,
        )
        numbers, size = _image_numbers(global_batch_size, first_step, input_context)
        dataset = numbers.map(prepare, options.parallel_calls or tf.data.AUTOTUNE)
        dataset = dataset.batch(size, drop_remainder=True)
        if options.service:
            dataset = service.distribute(dataset, options.service)
        # Last, so that the batches that wait and travel are small.
        return untuned(dataset.map(_unpack).prefetch(options.prefetch_batches))

    def evaluation_batches(
        self, *, batch_size: int, max_images: int = 0
    ) -> tf.data.Dataset:
        """Dataset of EvaluationBatch: every image once, in the order of the shards.

        Args:
          batch_size: images in a batch; the last one may have fewer.
          max_images: stop after these; 0 for all.

        Raises:
          InputError: a shard is cut off or damaged.
        """
        read = example_reader(self.index, num_classes=len(self.categories))
        options = self.options

        @tf.autograph.experimental.do_not_convert
        def prepare(number: tf.Tensor) -> EvaluationBatch:
            example = read(number)
            image, resized = preprocess.resize_and_pad(example.image, options.crop_size)
            original = tf.shape(example.image)[:2]
            return EvaluationBatch(image, example.name, original, resized)

        numbers = tf.data.Dataset.range(self.index.num_records)
        numbers = numbers.take(max_images or -1)
        dataset = numbers.map(prepare, options.parallel_calls or tf.data.AUTOTUNE)
        return untuned(dataset.batch(batch_size).prefetch(options.prefetch_batches))

    def examples(self, records: Sequence[int] | None = None) -> Iterator[Example]:
        """Decoded records as NumPy arrays.

        Args:
          records: their numbers in the order of the shards; None for all.

        Raises:
          InputError: a shard is cut off, or a record is damaged; it is named.
        """
        index, num_classes = self.index, len(self.categories)
        read = example_reader(index, num_classes=num_classes)
        records = range(index.num_records) if records is None else records
        numbers = tf.data.Dataset.from_tensor_slices(np.array(records, np.int64))
        num_read = 0
        try:
            examples = untuned(numbers.map(read, tf.data.AUTOTUNE))
            for example in examples.as_numpy_iterator():
                yield example
                num_read += 1
        except tf.errors.OpError as error:
            for record in records[num_read:]:
                if reason := why_damaged(index, record, num_classes):
                    raise InputError(
                        f"{index.describe(record)}: {reason}; convert the split again"
                    ) from error
            raise

    def image_names(self, number: int) -> list[str]:
        """Names of the images of the first records, in order.

        Raises:
          InputError: a shard is cut off, or a record cannot be read.
        """
        try:
            return image_names(self.index, number)
        except tf.errors.OpError as error:
            raise InputError(
                f"{self.files[0]} and what belongs to it: a record cannot be read "
                f"({tensorflow_reason(error)}); convert the split again"
            ) from error

    def names(self, records: Sequence[int]) -> list[str]:
        """Where `image_ids` of Targets are, as "FILE: record NUMBER (NAME)"."""
        index = self.index
        return [f"{index.describe(k)} ({image_name(index, k)})" for k in records]


def _unpack(
    images: tf.Tensor, masks: Masks, records: tf.Tensor
) -> tuple[tf.Tensor, Targets]:
    return images, unpack(masks)._replace(image_ids=tf.cast(records, tf.int32))


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
    policy = tf.data.experimental.AutoShardPolicy.OFF
    options.experimental_distribute.auto_shard_policy = policy
    of_replica = context.get_per_replica_batch_size(batch_size)
    return numbers.with_options(options), of_replica
