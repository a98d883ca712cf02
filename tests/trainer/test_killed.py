"""Trainings that are killed again and again end with the bits of one that was not."""

from __future__ import annotations

import random
import signal
import time

import numpy as np
import pytest

from cmt.trainer.checkpoint import checkpoint_steps
from tests.trainer.runs import Run, small_data

pytestmark = pytest.mark.check
_EVERY = 5
_PREEMPTED = 75


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> list[str]:
    return [
        *small_data(tmp_path_factory.mktemp("killed")),
        "trainer.global_batch_size=2",
        f"trainer.checkpoint_every_steps={_EVERY}",
    ]


@pytest.mark.parametrize(
    ("kills", "steps", "evaluate", "real"),
    [
        pytest.param(2, 20, 15, True, marks=pytest.mark.slow),
        (1, 20, 0, False),
        pytest.param(20, 300, 15, False, marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_moment(settings, tmp_path, kills, steps, evaluate, real):
    """In a step, while a checkpoint is written, in an evaluation or at the start."""
    settings = [*settings, f"trainer.evaluate_every_steps={evaluate}"]
    whole = Run(settings, tmp_path / "whole", steps=steps, real=real)
    expected = whole.finish()
    run = Run(settings, tmp_path / "killed", steps=steps, real=real)
    chance = random.Random(kills)
    for goal in sorted(chance.choices(range(0, steps - _EVERY, _EVERY), k=kills)):
        # Where it is reached already, the run is killed at its start.
        goal = min(max(goal, run.saved() + chance.choice((0, _EVERY))), steps - _EVERY)
        process = run.start()
        while run.saved() < goal:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 1 if real else 0.2))
        process.kill()
        message = process.communicate()[1].decode()
        assert process.returncode in (0, -signal.SIGKILL), message
        # Nothing but the last interval is lost.
        assert run.saved() >= max(run.logged(), default=0) - _EVERY
    found = run.finish()
    assert found.keys() == expected.keys() and len(found) > 10
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    assert run.logged() == list(range(1, steps + 1))
    assert checkpoint_steps(run.folder) == checkpoint_steps(whole.folder)


def test_told_to_stop_it_writes_a_checkpoint_and_says_so(settings, tmp_path):
    """By a scheduler, which starts it again, and by Ctrl-C."""
    run = Run(settings, tmp_path / "stopped", steps=2000, real=False)
    for number, code in ((signal.SIGTERM, _PREEMPTED), (signal.SIGINT, 130)):
        process = run.start()
        begun = max(run.logged(), default=0)
        while process.poll() is None and max(run.logged(), default=0) <= begun:
            time.sleep(0.01)
        process.send_signal(number)
        message = process.communicate()[1].decode()
        assert process.returncode == code, message
        assert run.saved() in (run.logged()[-1], run.logged()[-1] + 1)
        assert f"stopped by {number.name} at step {run.saved()}" in message
