from __future__ import annotations

import os
import sys

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
