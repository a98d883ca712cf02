"""Where the numbers of a run go, and when."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import tensorflow as tf

from cmt.trainer.callbacks import Intervals, RunCallback
from cmt.trainer.checkpoint import RunCheckpoints
from cmt.trainer.monitor import StallWatch
from cmt.trainer.reporting import (
    LogLines,
    LogRecord,
    MetricsFile,
    TensorBoardLogs,
    rates,
)
from tests.trainer import conftest as tiny


class Recorder:
    """A report that notes what is called."""

    def __init__(self):
        self.calls: list[str] = []

    def step(self, step: int) -> None:
        self.calls.append(f"step {step}")

    def pause(self) -> None:
        self.calls.append("pause")

    def log(self, record: LogRecord) -> None:
        self.calls.append(f"log {record.step} {record.validation}")

    def close(self) -> None:
        self.calls.append("close")


def make_callback(trainer, folder, intervals, evaluate=None) -> RunCallback:
    return RunCallback(
        trainer,
        first_step=0,
        intervals=intervals,
        global_batch_size=4,
        learning_rates=lambda step: (0.001, 0.01),
        checkpoints=RunCheckpoints(folder, trainer, keep=1),
        evaluate=evaluate,
    )


def test_a_killed_run_has_its_last_line(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.log(LogRecord(5, {"total": 1.5}, 0.01, {}))
    # It is still open, as it is when the process is killed.
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line)["total"] == 1.5
    metrics.close()


def test_the_console_pauses_while_a_run_evaluates(tmp_path):
    trainer, report = tiny.build(), Recorder()

    def evaluate(step: int) -> dict[str, float]:
        report.calls.append(f"evaluate {step}")
        return {"pq": 50.0}

    callback = make_callback(trainer, tmp_path, Intervals(2, 2, 2, 2), evaluate)
    callback.reports = [report]
    trainer.fit(tiny.data(), steps_per_epoch=2, verbose=0, callbacks=[callback])
    after = report.calls[report.calls.index("step 2") + 1 :]
    assert after[:3] == ["pause", "evaluate 2", "log 2 {'pq': 50.0}"]


@pytest.mark.parametrize(("seconds", "low", "high"), [(0.03, 0.7, 1.0), (0, 0.0, 0.6)])
def test_the_share_of_time_that_steps_wait_for_batches(tmp_path, seconds, low, high):
    trainer = tiny.build()

    def slowly(images, targets):
        return tf.numpy_function(
            lambda x: [x, time.sleep(seconds)][0], [images], tf.float32
        )

    def make(images, targets):
        return tf.ensure_shape(slowly(images, targets), images.shape), targets

    callback = make_callback(trainer, tmp_path, Intervals(6, 2, 6, 0))
    trainer.fit(
        tiny.data().map(make), steps_per_epoch=6, verbose=0, callbacks=[callback]
    )
    assert low <= callback.last.input_share <= high
    if seconds:
        # The clock of the two steps may start while the first batch is being made.
        assert callback.last.images_per_second <= 1.5 * 4 / seconds


def test_a_log_line_has_speed_input_memory_and_time_left(capfd):
    lines = LogLines(steps=30, global_batch_size=4)
    state = {"memory_gigabytes": 1.5}
    record = LogRecord(10, {"total": 2.0}, 0.1, {}, 8.0, 0.25, state)
    lines.log(record)
    assert capfd.readouterr().err == (
        "step 10/30  total 2  lr 1.00e-01  8.0 images/s  input 25%  1.50 GB  "
        "0:00:10 left\n"
    )


def test_rates_and_norms_of_both_groups_are_known(tmp_path):
    trainer = tiny.build()
    callback = make_callback(trainer, tmp_path, Intervals(2, 1, 2, 0))
    trainer.fit(tiny.data(), steps_per_epoch=2, verbose=0, callbacks=[callback])
    found = rates(callback.last)
    network = trainer.network
    for name, group in (
        ("optimizer", network.other_variables),
        ("backbone_optimizer", network.backbone_variables),
    ):
        expected = np.sqrt(sum(np.sum(v.numpy() ** 2) for v in group))
        np.testing.assert_allclose(found[f"weight_norm/{name}"], expected, rtol=1e-5)
    assert found["learning_rate"] == 0.01
    assert found["learning_rate_backbone"] == 0.001
    assert 0.05 < found["memory_gigabytes"] < 100


def test_tensorboard_has_numbers_config_and_picture(tmp_path):
    picture = tmp_path / "eval" / "3" / "clustering.png"
    picture.parent.mkdir(parents=True)
    drawn = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    picture.write_bytes(tf.io.encode_png(drawn).numpy())
    logs = TensorBoardLogs(tmp_path, config_text="trainer {\n  steps: 7\n}")
    logs.log(LogRecord(3, {"total": 2.0, "layer0/pq": 1.5}, 0.1, {"pq": 50.0}))
    logs.log(LogRecord(4, {"total": 1.0}, 0.1, {}))
    logs.close()
    found = {}
    for file in (tmp_path / "logs").rglob("events*"):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                key = file.parent.name, value.tag, event.step
                found[key] = tf.make_ndarray(value.tensor)
    assert found["train", "total", 3] == 2 and found["train", "total", 4] == 1
    assert found["train", "layer0/pq", 3] == 1.5
    assert found["validation", "pq", 3] == 50
    [text] = [v for (_, tag, _), v in found.items() if tag == "config"]
    assert b"    trainer {\n      steps: 7\n" in text.item()
    shown = found["validation", "clustering", 3][2]
    np.testing.assert_array_equal(tf.io.decode_png(shown), drawn)


def test_a_run_that_stands_still_says_where(caplog):
    watch = StallWatch(0.1, doing="the graph of the first step")
    watch.beat("step 7: its batch, or the devices")
    time.sleep(0.3)
    watch.close()
    first = caplog.messages[0]
    assert "(trainer.stall_seconds: 0) the run is at: step 7: its batch" in first
    assert f"it is in {__file__}:" in first and "(test_a_run_that_stands_still" in first
    assert "\n" not in first


def test_a_run_that_comes_further_says_nothing(caplog):
    watch = StallWatch(0.2, doing="the graph of the first step")
    for step in range(8):
        time.sleep(0.05)
        watch.beat(f"step {step}")
    watch.close()
    assert caplog.messages == []
