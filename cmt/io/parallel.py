"""Work spread over processes, or over threads."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from cmt.errors import WorkError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items taken ahead of what threads work on, so that all have work while the results
# are used; images are among them, so they are few.
_AHEAD = 8
# How often a pool that gives no result is looked after.
_LOOK_SECONDS = 2


def num_workers(requested: int) -> int:
    """`requested`, or for 0 one for each processor this process may use."""
    if requested:
        return requested
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _prepare_worker() -> None:
    """Leaves Ctrl-C and other signals of the terminal to the parent; ends with it.

    A worker that a signal ends while it hands a result over leaves the pool waiting
    for the rest of it; one whose parent is killed would wait for work for ever.
    """

    def end_with_parent() -> None:
        multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)
    threading.Thread(target=end_with_parent, daemon=True).start()


def _result(future: Future, pool: ProcessPoolExecutor) -> Any:
    """The result of a future, also where a worker died in the midst of handing it over.

    Then the pool would wait for ever for the rest: it has an end of the pipe itself
    that the rest would come from. (It keeps both to itself; Python 3.10 to 3.13.)
    """
    while not concurrent.futures.wait([future], timeout=_LOOK_SECONDS).done:
        workers = list(pool._processes.values())
        if not all(worker.is_alive() for worker in workers):
            for worker in workers:
                worker.kill()
                worker.join()
            pool._result_queue._writer.close()
            break
    return future.result()


def _map(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    """`map` as a process does it."""
    return [function(item) for item in items]


def parallel_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    chunk: int = 1,
) -> Iterator[Result]:
    """The results of `function`, in the order of the items.

    New processes are started afresh (spawned), so it is safe after TensorFlow has
    started threads. With one worker all happens in this process.

    Args:
      function: defined at the top of a module, so that processes find it.
      items: only a few more chunks than `workers` are taken ahead.
      workers: number of processes; 0 for one a processor.
      chunk: items that a process works on before it hands the results over: enough
        that handing over is cheap, few enough that none waits for the last one.

    Raises:
      WorkError: a process died. Else whatever `function` raises, for the first item
        for which it does.
    """
    workers = num_workers(workers)
    if workers == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker)
    try:
        left = iter(items)
        chunks = iter(lambda: list(itertools.islice(left, chunk)), [])
        submitted = (pool.submit(_map, function, some) for some in chunks)
        futures = collections.deque(itertools.islice(submitted, 2 * workers))
        while futures:
            yield from _result(futures.popleft(), pool)
            futures.extend(itertools.islice(submitted, 1))
    except BrokenProcessPool as error:
        raise WorkError(
            "a worker process died, perhaps for lack of memory; try fewer with "
            "--workers (in a script of your own, call this below "
            "`if __name__ == '__main__':`)"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def threaded_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int = 0
) -> Iterator[Result]:
    """The results of `function`, in the order of the items, from threads of its own.

    For work that leaves Python, such as files and pixels. A few items are taken ahead,
    in the thread that asks for results.

    Args:
      function: several threads call it at the same time.
      items: what it is called with.
      workers: number of threads; 0 for one a processor.

    Raises:
      Whatever `function` raises, for the first item for which it does.
    """
    workers = num_workers(workers)
    pool = ThreadPoolExecutor(workers)
    try:
        submitted = (pool.submit(function, item) for item in items)
        futures = collections.deque(itertools.islice(submitted, workers + _AHEAD))
        while futures:
            yield futures.popleft().result()
            futures.extend(itertools.islice(submitted, 1))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
