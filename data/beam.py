"""The same conversion as an Apache Beam pipeline, for data beyond one machine.

A worker of the pipeline makes a whole shard, from paths that `tf.io.gfile` reads; the
plan before and the manifest after are made where the pipeline is started. What goes
between them are small files in the conversion's hidden folder, so that the graph of
the pipeline stays small and `--resume` works as without Beam.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

from cmt.data import storage
from cmt.data.annotations import PanopticImage, Segment
from cmt.data.convert import Maker
from cmt.data.encode import EncodingOptions, encode_image
from cmt.data.shards import Budget, MadeShard, ShardTask, read_record, write_shard
from cmt.data.storage import join
from cmt.errors import InputError, WorkError

_PLAN = ".plan"
_FAULT = ".fault"


def beam_maker(options: Sequence[str]) -> Maker:
    """Returns what makes shards by a pipeline.

    Args:
      options: of the pipeline, such as "--runner=DirectRunner".

    Raises:
      InputError: Apache Beam is not installed.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(
            f"Apache Beam cannot be imported ({error}); pip install "
            "'cmt-deeplab[beam]', or leave --beam out"
        ) from error
    return functools.partial(_make_shards, options=PipelineOptions(list(options)))


def _make_shards(
    tasks: Sequence[ShardTask],
    encoding: EncodingOptions,
    work: str,
    budget: Budget,
    *,
    options: Any,
) -> list[MadeShard]:
    import apache_beam as beam

    if not tasks:
        return []
    work, encoding = _absolute(work), _from_anywhere(encoding)
    for task in tasks:
        storage.remove(join(work, task.name + _FAULT))
        storage.write_json(join(work, task.name + _PLAN), [task.source, task.entries])
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "Shards" >> beam.Create([task.name for task in tasks])
            | "Spread" >> beam.Reshuffle()
            | "Write" >> beam.Map(_make_shard, work, encoding, budget.left)
        )
    return [_collect(join(work, task.name), budget) for task in tasks]


def _make_shard(name: str, work: str, encoding: EncodingOptions, max_bad: int) -> None:
    """Makes one shard; what is wrong with it is left in a file beside it."""
    path = join(work, name)
    source, entries = storage.read_json(path + _PLAN)
    task = ShardTask(name, [_entry(entry) for entry in entries], source)
    encoded = (encode_image(encoding, entry) for entry in task.entries)
    try:
        write_shard(path, task, encoded, Budget(max_bad))
    except InputError as error:
        storage.write_json(path + _FAULT, str(error))


def _entry(values: list) -> PanopticImage:
    entry = PanopticImage(*values)
    return entry._replace(segments=[Segment(*segment) for segment in entry.segments])


def _collect(path: str, budget: Budget) -> MadeShard:
    if storage.is_file(path + _FAULT):
        raise InputError(storage.read_json(path + _FAULT))
    made = read_record(path)
    if made is None:
        raise WorkError(
            f"{path}: the pipeline ended without this shard; look at its log and go on "
            "with --resume"
        )
    for skipped in made.skipped:
        budget.add(skipped)
    return made


def _from_anywhere(encoding: EncodingOptions) -> EncodingOptions:
    files = encoding.files
    files = files._replace(images=_absolute(files.images), masks=_absolute(files.masks))
    return encoding._replace(files=files)


def _absolute(path: storage.Location) -> str:
    return str(path) if storage.is_remote(path) else os.path.abspath(path)  # noqa: PTH100
