"""A spool is a list whose values are not in memory."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cmt.io.spool import Spool


def test_it_has_what_was_added():
    values = [{"a": np.arange(3)}, "", None, 2**70]
    spool: Spool[object] = Spool()
    for number, value in enumerate(values):
        assert len(spool) == number
        spool.append(value)
    assert repr(list(spool)) == repr(values) and spool[-1] == spool[3] == 2**70
    for place in (4, -5):
        with pytest.raises(IndexError):
            spool[place]


def test_threads_may_read_it():
    spool: Spool[bytes] = Spool()
    for number in range(200):
        spool.append(bytes([number]) * (1 + number))
    places = [*range(200)] * 10
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(spool.__getitem__, places)]
    assert found == [bytes([place]) * (1 + place) for place in places]


def test_values_are_not_in_memory():
    tracemalloc.start()
    try:
        spool: Spool[bytes] = Spool()
        for _ in range(1000):
            spool.append(bytes(10_000))
        stays, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stays < 50_000 and most < 100_000
