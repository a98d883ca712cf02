from __future__ import annotations

import multiprocessing.connection
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from cmt.errors import WorkError
from cmt.io.parallel import num_workers, parallel_map, threaded_map


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


def test_threads_give_results_in_order_and_take_few_items_ahead():
    taken = []

    def items():
        for number in range(200):
            taken.append(number)
            yield number

    def slowest_first(number: int) -> tuple[int, int]:
        time.sleep(0.02 if number % 10 == 0 else 0)
        return number, threading.get_ident()

    found = []
    for result in threaded_map(slowest_first, items()):
        found.append(result)
        assert len(taken) <= len(found) + num_workers(0) + 8
    assert [number for number, _ in found] == list(range(200))
    assert threading.get_ident() not in {thread for _, thread in found}


def test_an_error_in_a_thread_is_raised_and_ends_the_threads():
    before = threading.active_count()
    results = threaded_map(int, ["1", "x", *["2"] * 100])
    assert next(results) == 1
    with pytest.raises(ValueError, match="'x'"):
        next(results)
    assert threading.active_count() == before


def test_a_process_that_dies_is_one_clear_line():
    with pytest.raises(WorkError, match="a worker process died"):
        list(parallel_map(os._exit, [3], workers=2))


def _dies_while_handing_over(length: int) -> bytes:
    def send(connection, buffer, write=None):
        os.write(connection.fileno(), buffer[: len(buffer) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    multiprocessing.connection.Connection._send = send
    return bytes(length)


@pytest.mark.parametrize("length", [10, 10**6])
def test_a_process_that_dies_while_it_hands_a_result_over(length):
    """The rest of which would else be waited for; so a memory killer may end one."""
    with pytest.raises(WorkError, match="a worker process died"):
        list(parallel_map(_dies_while_handing_over, [length] * 5, workers=2))


def test_an_interrupt_of_the_whole_group_reaches_the_parent_alone(tmp_path):
    """As Ctrl-C is one; processes that it ends while they hand over block the rest."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, multiprocessing\n"
        "from cmt.io.parallel import parallel_map\n"
        "if __name__ == '__main__':\n"
        "    groups = [os.getpgid(0)]\n"
        "    for _ in parallel_map(bytes, [10**6] * 10**4, workers=2):\n"
        "        children = multiprocessing.active_children()\n"
        "        if os.getpgid(0) in groups:\n"
        "            groups = [os.getpgid(child.pid) for child in children]\n"
        "            if os.getpgid(0) not in groups:\n"
        "                print(flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout.readline()  # when all have a group of their own
        os.killpg(process.pid, signal.SIGINT)
        told = process.communicate(timeout=30)[1]
    assert process.returncode == -signal.SIGINT
    assert told.splitlines()[-1] == "KeyboardInterrupt"


def test_number_of_workers():
    assert num_workers(5) == 5
    assert 1 <= num_workers(0) <= (os.cpu_count() or sys.maxsize)


def test_processes_end_when_their_parent_is_killed(tmp_path):
    """They would wait for work for ever otherwise, each with its memory."""
    code = (
        "import os, time\n"
        "from cmt.io.parallel import parallel_map\n"
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
