"""The paper's figures as data, against its text and against the configs."""

from __future__ import annotations

import math
import re

import pytest

from cmt import textproto
from cmt.config import available_configs, load_experiment
from cmt.zoo.published import (
    COST_SIZE,
    MAX_DEEPLAB_S,
    NOT_IN_PAPER,
    PUBLISHED,
    RECIPE,
    Quality,
)

A = "coco/ablations/table2"
R50, R104 = "coco/cmt_deeplab_axial_r50", "coco/cmt_deeplab_axial_r104"
# Rows of each table in the paper's order, as configs.
TABLE_1 = [
    f"{R50}_1281",
    f"{R104}_1281",
    f"{R104}_rfn_1281",
    f"{R104}_rfn_1281_200k",
]
TABLE_2A = [f"{A}a_{row}" for row in ("baseline", "clustering", "contrastive")]
TABLE_2B = [
    f"{A}b_{row}" for row in ("baseline", "reference_masks", "coordinate_convolution")
]
TABLE_2C = [
    f"{A}c_{row}"
    for row in (
        "baseline",
        "clustering",
        "location",
        "decoder",
        "clustering_decoder",
        "clustering_location_decoder",
    )
]
TABLE_2D = [f"{A}d_{row}" for row in ("baseline", "imagenet22k", "rfn", "mask_wise")]
TABLE_3 = [
    f"{R50}_641",
    f"{R50}_641_200k",
    f"{R50}_1281",
    f"{R50}_1281_200k",
    f"{R104}_641",
    f"{R104}_641_200k",
    f"{R104}_1281",
    f"{R104}_rfn_1281",
]


@pytest.fixture(scope="module")
def paper(shared) -> str:
    """The text of the paper, its tables one column after the other."""
    path = shared / "paper" / "cmt-deeplab.txt"
    return " ".join(path.read_text(encoding="utf-8").split())


def columns(rows: list[str], split: str = "val") -> list[str]:
    """The columns all, things, stuff of some rows, as the text has them."""
    qualities = [getattr(PUBLISHED[row], split) for row in rows]
    return [
        " ".join(f"{getattr(quality, kind):.1f}" for quality in qualities)
        for kind in Quality._fields
    ]


def test_every_row_has_a_config_and_every_config_a_row():
    configs = {name for name in available_configs() if name.startswith("coco/")}
    assert configs - {"coco/overfit_samples"} == set(PUBLISHED)
    tables = [TABLE_1, TABLE_2A, TABLE_2B, TABLE_2C, TABLE_2D, TABLE_3]
    assert {row for table in tables for row in table} <= set(PUBLISHED)
    assert len(PUBLISHED) == 18 + 16


def test_table_1(paper):
    for split in ("val", "test_dev"):
        for column in columns(TABLE_1, split):
            assert column in paper
    millions = [f"{PUBLISHED[row].parameters_millions.value}M" for row in TABLE_1]
    assert " ".join(millions) in paper
    for split in ("val", "test_dev"):
        ours = getattr(MAX_DEEPLAB_S, split)
        numbers = [f"{value:.1f}" for value in ours]
        assert all(number in paper for number in numbers)
    assert "MaX-S [82] 61.9M 48.4 53.0" in paper


@pytest.mark.parametrize("rows", [TABLE_2B, TABLE_2C, TABLE_2D, TABLE_3])
def test_tables_of_whole_columns(rows, paper):
    for column in columns(rows):
        assert column in paper


def test_table_2a(paper):
    everything, things, stuff = columns(TABLE_2A)
    assert f"PQTh {things} PQ {everything} PQSt {stuff}" in paper


def test_parameters_of_table_2c(paper):
    millions = [f"{PUBLISHED[row].parameters_millions.value}M" for row in TABLE_2C]
    assert f"params {' '.join(millions)} PQ" in paper


def test_a_row_in_two_tables_has_one_figure():
    for a, b in (
        (TABLE_2A[0], TABLE_2B[0]),
        (TABLE_2A[0], TABLE_2C[0]),
        (TABLE_2A[0], "coco/max_deeplab_s_gelu_641"),
        (TABLE_2A[2], TABLE_2C[1]),
        (TABLE_2B[2], TABLE_2C[2]),
        (TABLE_2C[5], TABLE_2D[0]),
    ):
        assert PUBLISHED[a].val == PUBLISHED[b].val
        assert PUBLISHED[a].parameters_millions == PUBLISHED[b].parameters_millions


def test_a_derived_figure_is_not_among_the_published(paper):
    row = PUBLISHED["coco/max_deeplab_s_relu_641"]
    gelu = PUBLISHED["coco/max_deeplab_s_gelu_641"]
    assert "has a 0.3% higher PQ compared to the original" in paper
    assert (row.source, row.val, row.test_dev) == ("", None, None)
    value, source = row.val_derived
    assert value == round(gelu.val.all - 0.3, 1)
    assert source == f"{gelu.val.all} - 0.3 = {value} follows from Sec. 4.2"
    others = [name for name, row in PUBLISHED.items() if row.val_derived]
    assert others == ["coco/max_deeplab_s_relu_641"]


def test_figures_of_networks_say_whether_the_paper_has_them(paper):
    tables = {"Table 1": TABLE_1, "Table 2c": TABLE_2C, "Tables 1, 2c": []}
    tables["Tables 1, 2c"] = [*TABLE_1, *TABLE_2C]
    for name, row in PUBLISHED.items():
        if row.parameters_millions is not None:
            value, source = row.parameters_millions
            assert f"{value}M" in paper
            rows = [PUBLISHED[other] for other in tables[source]]
            if source != "Table 2c":
                rows.append(MAX_DEEPLAB_S)
            assert row.parameters_millions.value in {
                other.parameters_millions.value for other in rows
            }, name
        if row.multiply_adds_billions is not None:
            value, source = row.multiply_adds_billions
            assert source == NOT_IN_PAPER
            assert not re.search(rf"\b{value:.0f} ?[GB]", paper), name
    # Nor a column for them.
    assert not re.search(r"FLOP|[Mm]ulti(ply|-)?[Aa]dd|M-Adds", paper)


def test_figures_are_in_range():
    for name, row in PUBLISHED.items():
        assert bool(row.source) == (row.val is not None), name
        for quality in (row.val, row.test_dev):
            assert all(0 < value < 100 for value in quality or ())
            # 80 classes of things and 53 of stuff.
            if quality:
                mean = (80 * quality.things + 53 * quality.stuff) / 133
                assert math.isclose(mean, quality.all, abs_tol=0.16), name
    assert COST_SIZE == (800, 1200)


@pytest.mark.parametrize("setting", RECIPE, ids=lambda s: s.name)
def test_the_recipe_is_that_of_the_paper(setting):
    experiment = load_experiment(f"{R50}_1281")
    leaves = {path: (f, v) for path, f, v in textproto.leaves(experiment)}
    if setting.field:
        field, value = leaves[setting.field]
        if setting.value:
            assert textproto.value_text(field, value) == setting.value
    else:
        assert not setting.value
    # What the paper does not decide has a reason.
    assert setting.value or setting.reason
    assert setting.published or not setting.value


@pytest.mark.parametrize("group", ["trainer.optimizer", "model.norm"])
def test_the_recipe_has_every_setting_of(group):
    leaves = textproto.leaves(load_experiment(f"{R50}_1281"))
    paths = {path for path, _, _ in leaves if path.startswith(f"{group}.")}
    assert len(paths) >= 3
    assert paths <= {setting.field for setting in RECIPE}


def test_the_paper_does_not_speak_of_batch_norms(paper):
    assert not re.search(r"batch.?norm|synchroni[sz]ed|momentum|epsilon", paper, re.I)
    norms = [s for s in RECIPE if s.field.startswith("model.norm.")]
    assert all(s.published == s.value == "" and s.reason for s in norms)
