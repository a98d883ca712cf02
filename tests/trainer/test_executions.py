"""Several steps an execution, several processes, and too little memory."""

from __future__ import annotations

import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from cmt.errors import WorkError
from cmt.trainer import callbacks
from cmt.trainer.trainer import Trainer
from cmt.weights.files import Contents


def _values(prefix: str) -> dict[str, np.ndarray]:
    contents = Contents(prefix)
    keys = [key for key in contents.shapes if not key.startswith("_CHECKPOINTABLE")]
    return {key: contents.value(key) for key in keys}


@pytest.mark.parametrize(
    ("steps", "logged"),
    [pytest.param(12, [4, 8, 12], marks=pytest.mark.slow), (10, [4, 8, 10])],
)
def test_steps_that_are_made_in_one_execution(run, steps, logged):
    """Logs and checkpoints wait for its end; weights are those of single steps."""
    values = []
    for together in (1, 4):
        shutil.rmtree(run.folder, ignore_errors=True)
        summary = run.call(
            f"trainer.steps={steps}", f"trainer.steps_per_execution={together}"
        )
        assert summary.step == steps
        values.append(_values(summary.checkpoint))
    assert [line["step"] for line in run.lines()] == logged
    names = {p.stem for p in (run.folder / "checkpoints").glob("*.index")}
    assert names == {f"step-{step}" for step in logged}
    assert values[0].keys() == values[1].keys() and len(values[0]) > 10
    for key, value in values[0].items():
        np.testing.assert_array_equal(values[1][key], value, err_msg=key)


def test_out_of_memory_says_what_to_change(run, monkeypatch):
    def fail(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating x")

    monkeypatch.setattr(Trainer, "fit", fail)
    with pytest.raises(WorkError) as error:
        run.call("trainer.steps=4", "model.recompute.axial_blocks=true")
    assert str(error.value) == (
        "out of memory at step 1 (OOM when allocating x): a device had 4 images of "
        "193 x 193 pixels at a time, KERAS_POLICY; any of these needs less: set "
        "trainer.accumulation_steps=2; set model.recompute.bottleneck_blocks=true; set "
        "model.recompute.transformer_layers=true; set model.recompute.stem=true; set "
        "model.recompute.heads=true; set model.precision=MIXED_BFLOAT16; lower "
        "data.crop_height_pixels and data.crop_width_pixels"
    )


def test_a_signal_to_one_process_stops_all_at_the_next_log_step(run, monkeypatch):
    """Of two processes the other one gets it, in step 3; this one hears of it at 4."""
    asked = []

    def sums(strategy, numbers):
        asked.append(numbers)
        return [numbers[0], numbers[1] + (len(asked) == 2)]

    monkeypatch.setattr(callbacks, "sum_over_processes", sums)
    summary = run.call("trainer.steps=12", "trainer.checkpoint_every_steps=20")
    assert (summary.step, summary.signal) == (4, "SIGTERM")
    assert asked == [[0, 0], [0, 0]]


def test_one_of_several_processes_does_not_stop_alone(run, monkeypatch):
    monkeypatch.setattr(callbacks, "num_processes", lambda _: 2)
    seen = []

    def sums(strategy, numbers):
        seen.append(numbers)
        return numbers

    monkeypatch.setattr(callbacks, "sum_over_processes", sums)
    evaluation = run.options["evaluation"]

    def signalled(step):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluation(step)

    run.options["evaluation"] = signalled
    settings = ("trainer.evaluate_every_steps=4", 'data.validation.tfrecords="x"')
    summary = run.call("trainer.steps=12", *settings)
    assert (summary.step, summary.signal) == (4, "SIGTERM")
    assert [line["step"] for line in run.lines()] == [2, 4]
    assert run.lines()[-1]["validation/pq"] == 50
    assert seen[-1] == [0, 1] and [1.0, 50.0] in seen
