from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from cmt.data.parallel import num_workers, parallel_map
from cmt.errors import WorkError


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    results = parallel_map(abs, iter(range(-20, 0)), workers=workers)
    assert list(results) == list(range(20, 0, -1))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_is_raised(workers):
    results = parallel_map(int, ["1", "x", "2"], workers=workers)
    assert next(results) == 1
    with pytest.raises(ValueError, match="'x'"):
        next(results)


def test_a_process_that_dies_is_one_clear_line():
    with pytest.raises(WorkError, match="a worker process died"):
        list(parallel_map(os._exit, [3], workers=2))


def test_number_of_workers():
    assert num_workers(5) == 5
    assert 1 <= num_workers(0) <= (os.cpu_count() or sys.maxsize)


def test_processes_end_when_their_parent_is_killed(tmp_path):
    """They would wait for work for ever otherwise, each with its memory."""
    code = (
        "import os, time\n"
        "from cmt.data.parallel import parallel_map\n"
        "if __name__ == '__main__':\n"
        "    results = parallel_map(os.getenv, ['PATH'] * 99, workers=2)\n"
        "    next(results)\n"
        "    import multiprocessing\n"
        "    children = multiprocessing.active_children()\n"
        "    print(*(child.pid for child in children), flush=True)\n"
        "    time.sleep(60)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert children and all(map(_runs, children))
        os.kill(process.pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while any(map(_runs, children)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(_runs, children))


def _runs(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
