"""docs/tpu.md has the compiler's figures; the compiler takes steps of configs."""

from __future__ import annotations

import json
import os

import pytest

from tools import tpu

GIB = 2**30
BFLOAT16 = "model.precision=MIXED_BFLOAT16"


def line(**changes) -> dict:
    return {
        "config": "coco/a",
        "set": ["b=1", "c=2"],
        "topology": "v5e:1x1",
        "level": None,
        "flops": 2.5e12,
        "bytes_accessed": 81.6e9,
        "peak_bytes": 3 * GIB // 2,
        "argument_bytes": GIB,
        "compile_cpu_seconds": 59.6,
    } | changes


def test_table_has_the_latest_figures_of_each_program():
    again = line(peak_bytes=2 * GIB)
    rows = tpu.table([line(), line(level="O1"), again]).splitlines()[2:]
    assert rows == [
        "| coco/a | `b=1`, `c=2` | v5e:1x1 | default | 2.50 | 82 | 2.00 | 1.00 | 60 |",
        "| coco/a | `b=1`, `c=2` | v5e:1x1 | O1 | 2.50 | 82 | 1.50 | 1.00 | 60 |",
    ]


def test_document_has_the_results():
    text = tpu.DOCUMENT.read_text("utf-8")
    assert tpu.renewed(text) == text
    for result in map(json.loads, tpu.RESULTS.read_text("utf-8").splitlines()):
        assert line().keys() <= result.keys()


@pytest.mark.slow
@pytest.mark.skipif(
    "CMT_TPU_PYTHON" not in os.environ,
    reason="CMT_TPU_PYTHON names no Python with what tools/tpu_compile.py asks for",
)
@pytest.mark.parametrize(
    ("name", "topology", "memory"),
    [
        ("cmt_deeplab_axial_r50_641", "v5e:1x1", 15.75),
        ("cmt_deeplab_axial_r50_1281", "v5e:1x1", 15.75),
        ("cmt_deeplab_axial_r50_641", "v4:2x2x1", 15.25),
        ("cmt_deeplab_axial_r50_1281", "v4:2x2x1", 15.25),
        ("cmt_deeplab_axial_r104_1281", "v4:2x2x1 megacore", 30.75),
    ],
)
def test_step_fits_a_core(name, topology, memory):
    """One image a core; too large a program is an error of the compiler, too."""
    (result,) = tpu.compile_step(
        f"coco/{name}",
        [BFLOAT16],
        [topology],
        python=os.environ["CMT_TPU_PYTHON"],
        level="O1",
    )
    assert result["peak_bytes"] < memory * GIB
    assert result["flops"] > 1e12
