"""The learning rate against the golden curve."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from cmt.config import load_experiment
from cmt.trainer.factory import build_schedule
from cmt.trainer.schedule import SCHEDULES, LearningRate

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
    schedule = LearningRate(**keywords)
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
    schedule = LearningRate(base=0.4, steps=10, warmup_steps=4, power=2.0)
    expected = [0.0, 0.1, 0.2, 0.3, 0.4 * 0.36, 0.4 * 0.25]
    np.testing.assert_allclose([schedule(i) for i in range(6)], expected, rtol=1e-6)
    assert float(schedule(10)) == float(schedule(11)) == 0.0


def test_cosine_and_constant_by_hand():
    keywords = {"base": 0.4, "steps": 6, "warmup_steps": 2, "multiplier": 0.5}
    cosine = LearningRate(kind="COSINE", **keywords)
    # cos of 60, 90, 120, 150 and 180 degrees, and of no more than that.
    expected = [0.0, 0.1, 0.15, 0.1, 0.05, 0.1 * (1 - 3**0.5 / 2), 0.0, 0.0]
    np.testing.assert_allclose([cosine(i) for i in range(8)], expected, atol=1e-7)
    constant = LearningRate(kind="CONSTANT", **keywords)
    expected = [0.0, 0.1] + 6 * [0.2]
    np.testing.assert_allclose([constant(i) for i in range(8)], expected, atol=1e-7)
    assert constant.describe() == "0.2 after 2 steps of warm-up (CONSTANT)"
    with pytest.raises(ValueError, match="kind must be one of .*got 'STEPS'"):
        LearningRate(kind="STEPS", **keywords)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_config_makes_the_same_curve(kind):
    keywords = {"base": 0.4, "steps": 9, "warmup_steps": 2, "multiplier": 0.3}
    schedule = LearningRate(kind=kind, **keywords)
    copy = LearningRate.from_config(schedule.get_config())
    assert [float(copy(i)) for i in range(9)] == [float(schedule(i)) for i in range(9)]


def test_the_config_chooses_the_curve():
    for kind in SCHEDULES:
        setting = f"trainer.learning_rate.kind={kind}"
        experiment = load_experiment("scenes/tiny", [setting])
        assert build_schedule(experiment.trainer).kind == kind
