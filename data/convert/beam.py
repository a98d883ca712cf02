"""The same conversion as an Apache Beam pipeline, for data beyond one machine.

A worker of the pipeline makes a whole shard, from paths that `tf.io.gfile` reads; the
plan before and the manifest after are made where the pipeline is started. What goes
between them are small files in the conversion's hidden folder, so that the graph of
the pipeline stays small and `--resume` works as without Beam.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from cmt.data.convert.convert import Maker
from cmt.data.convert.encode import EncodingOptions, encode_image
from cmt.data.convert.shards import (
    Budget,
    MadeShard,
    ShardTask,
    read_receipt,
    write_shard,
)
from cmt.data.panoptic.json import PanopticImage, Segment
from cmt.errors import CmtError, InputError, WorkError
from cmt.io import storage
from cmt.io.files import write_json
from cmt.io.storage import join

_PLAN = ".plan"
_REASON_LINES = 3


def beam_maker(options: str) -> Maker:
    """Returns what makes shards by a pipeline.

    `options` are the pipeline's, as a shell takes them: "--runner=DirectRunner ...".

    Raises:
      InputError: Apache Beam is not installed, or an option cannot be used.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(
            f"Apache Beam cannot be imported ({error}); pip install "
            "'cmt-deeplab[beam]', or leave --beam out"
        ) from error
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise InputError(
            f"--beam must hold options as a shell takes them; got {options!r} "
            f"({error}); close the quotation mark, or leave it out"
        ) from error
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            parsed = PipelineOptions(words)
            runner = parsed.get_all_options()["runner"]
    except SystemExit as error:  # Beam parses as a program of its own would.
        reason = printed.getvalue().strip().rpartition("error: ")[2]
        raise InputError(f"--beam: {reason}; correct this option") from error
    # Beam only warns of a misspelt name, and would run on this machine.
    if runner is None:
        raise InputError(
            f"--beam must name a runner; got {options!r}; add "
            "--runner=DirectRunner, or leave --beam out"
        )
    return functools.partial(_make_shards, options=parsed)


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
    work, files = _absolute(work), encoding.files
    files = files._replace(images=_absolute(files.images), masks=_absolute(files.masks))
    runner = options.get_all_options()["runner"]
    for folder in (work, files.images, files.masks):
        if runner.endswith("DataflowRunner") and not storage.is_remote(folder):
            raise InputError(
                f"{folder}: workers of {runner} cannot reach a folder of this machine; "
                "give gs:// paths for the data set and --output"
            )
    for task in tasks:
        write_json(join(work, task.name + _PLAN), task)
    with _one_line("be started", InputError, "correct the options of --beam"):
        pipeline = beam.Pipeline(options=options)
    _ = (
        pipeline
        | "Shards" >> beam.Create([task.name for task in tasks])
        | "Spread" >> beam.Reshuffle()
        | "Write" >> beam.Map(_make_shard, work, encoding._replace(files=files))
    )
    with _one_line("be finished", WorkError, "its log above says more"):
        pipeline.run().wait_until_finish()
    made = []
    for task in tasks:
        path = join(work, task.name)
        one = read_receipt(path)
        # An earlier run may have left a shard of other files.
        if one is None or one.shard.source != task.source:
            raise WorkError(
                f"{path}: the pipeline ended without this shard; its log says why"
            )
        made.append(one)
    # Only here it is known how many images all shards leave out.
    budget.add([image for one in made for image in one.skipped])
    return made


@contextlib.contextmanager
def _one_line(what: str, kind: type[CmtError], fix: str) -> Iterator[None]:
    """Turns whatever Beam raises into one error; some of its own are many lines."""
    try:
        yield
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = "; ".join(lines[:_REASON_LINES]) or type(error).__name__
        raise kind(f"the pipeline could not {what} ({reason}); {fix}") from error


def _make_shard(name: str, work: str, encoding: EncodingOptions) -> None:
    path = join(work, name)
    name, entries, source = storage.read_json(path + _PLAN)
    entries = [PanopticImage(*values) for values in entries]
    for number, entry in enumerate(entries):
        segments = [Segment(*segment) for segment in entry.segments]
        entries[number] = entry._replace(segments=segments)
    encoded = (encode_image(encoding, entry) for entry in entries)
    write_shard(path, ShardTask(name, entries, source), encoded, Budget(len(entries)))


def _absolute(path: storage.Location) -> str:
    return str(path) if storage.is_remote(path) else os.path.abspath(path)  # noqa: PTH100
