"""The learning rate against the golden curve."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from cmt.trainer.schedule import PolynomialWithWarmup

BASE = {"base": 1e-3, "steps": 100_000, "warmup_steps": 5_000}


@pytest.mark.parametrize(
    ("column", "keywords"),
    [
        ("poly_warmup_base1e-3", BASE),
        ("backbone_multiplier_0.1", BASE | {"multiplier": 0.1}),
        ("poly_no_warmup", BASE | {"warmup_steps": 0}),
        (
            "kmax_base5e-4_150k_warmup5k",
            {"base": 5e-4, "steps": 150_000, "warmup_steps": 5_000},
        ),
    ],
)
def test_golden(shared, column, keywords):
    schedule = PolynomialWithWarmup(**keywords)
    with (shared / "golden" / "schedules" / "lr.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 10
    for row in rows:
        step = int(row["step"])
        tolerance = 2e-3 if step == 99_999 else 1e-6
        np.testing.assert_allclose(
            float(schedule(step)), float(row[column]), rtol=tolerance, err_msg=str(step)
        )


def test_by_hand():
    schedule = PolynomialWithWarmup(base=0.4, steps=10, warmup_steps=4, power=2.0)
    expected = [0.0, 0.1, 0.2, 0.3, 0.4 * 0.36, 0.4 * 0.25]
    np.testing.assert_allclose([schedule(i) for i in range(6)], expected, rtol=1e-6)
    assert float(schedule(10)) == float(schedule(11)) == 0.0


def test_config_makes_the_same_curve():
    schedule = PolynomialWithWarmup(base=0.4, steps=9, warmup_steps=2, multiplier=0.3)
    copy = PolynomialWithWarmup.from_config(schedule.get_config())
    assert [float(copy(i)) for i in range(9)] == [float(schedule(i)) for i in range(9)]
