"""What `cmt data convert` prints, and how it ends when it is stopped."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmt.data.convert.convert import Conversion

_SKIPPED_SHOWN = 10
_TERMINATED = 128 + signal.SIGTERM


@contextlib.contextmanager
def stoppable(output: str, split: str, overwrite: bool) -> Iterator[None]:
    """Says how to go on, as the last line, whatever ends a conversion.

    SIGTERM ends the block as Ctrl-C does, so that what is no use is cleared away.

    Args:
      output: folder of the shards.
      split: first part of their names.
      overwrite: the command was given --overwrite.

    Raises:
      CmtError: in place of other errors after which finished shards are kept.
    """
    from cmt.cli.main import explain
    from cmt.data.convert.shards import KEPT, finished_shards
    from cmt.errors import CmtError, InputError, WorkError

    before = finished_shards(output, split)
    with _terminated_by_exception():
        try:
            yield
        except CmtError:
            raise
        except Exception as error:
            if finished_shards(output, split) == set():
                raise
            code, message = explain(error)
            kind = InputError if code == InputError.exit_code else WorkError
            raise kind(f"{message}; {KEPT}") from error
        except (KeyboardInterrupt, SystemExit):
            instead = " in place of --overwrite" if overwrite else ""
            # Those of an earlier run may be of other options.
            if finished_shards(output, split) - before:
                advice = (
                    "finished shards are kept; run the same command with "
                    f"--resume{instead} to go on"
                )
            else:
                advice = "this run finished no shard; run the same command again"
            print(f"stopped: {advice}", file=sys.stderr, flush=True)
            raise


@contextlib.contextmanager
def _terminated_by_exception() -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise SystemExit(_TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_conversion(conversion: Conversion, output: str) -> None:
    """Prints what was written and which images were left out.

    Args:
      conversion: what was written.
      output: the folder, as the user named it.
    """
    from cmt.data.panoptic.kinds import Tally

    manifest, made = conversion
    for line in Tally(manifest.contents.notes).lines:
        print(f"note: {line}")
    skipped = manifest.contents.skipped
    for image in skipped[:_SKIPPED_SHOWN]:
        print(f"left out: {image.image}: {image.kind}: {image.line}")
    if len(skipped) > _SKIPPED_SHOWN:
        print(f"left out: {len(skipped) - _SKIPPED_SHOWN} more; the manifest has all")
    out = f" ({len(skipped)} left out)" if skipped else ""
    shards = len(manifest.shards)
    content = (
        f"{manifest.num_images} images{out} in {shards} "
        f"{'shard' if shards == 1 else 'shards'}, {_size(manifest.contents.num_bytes)}"
    )
    name = f"{manifest.split}.manifest.json"
    if not made:
        print(f"nothing to do: {output} holds {content}, and {name}")
        return
    kept = f", of which {shards - made} were there" if made < shards else ""
    print(f"wrote {content}{kept}, and {name} to {output}")


def _size(num_bytes: int) -> str:
    if num_bytes < 10**6:
        return f"{num_bytes / 1e3:.0f} kB"
    return f"{num_bytes / 1e6:.0f} MB"
