"""Where the numbers of a run go, and when."""

from __future__ import annotations

import json

from cmt.trainer.callbacks import Intervals, RunCallback
from cmt.trainer.checkpoint import RunCheckpoints
from cmt.trainer.reporting import LogRecord, MetricsFile
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


def test_a_killed_run_has_its_last_line(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.log(LogRecord(5, {"total": 1.5}, 0.01, None, {}))
    # It is still open, as it is when the process is killed.
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line)["total"] == 1.5
    metrics.close()


def test_the_console_pauses_while_a_run_evaluates(tmp_path):
    trainer, report = tiny.build(), Recorder()

    def evaluate(step: int) -> dict[str, float]:
        report.calls.append(f"evaluate {step}")
        return {"pq": 50.0}

    callback = RunCallback(
        trainer,
        first_step=0,
        intervals=Intervals(steps=2, log=2, checkpoint=2, evaluate=2),
        global_batch_size=4,
        learning_rate=lambda step: 0.01,
        checkpoints=RunCheckpoints(tmp_path, trainer, keep=1),
        reports=(report,),
        evaluate=evaluate,
    )
    trainer.fit(tiny.data(), steps_per_epoch=2, verbose=0, callbacks=[callback])
    after = report.calls[report.calls.index("step 2") + 1 :]
    assert after[:3] == ["pause", "evaluate 2", "log 2 {'pq': 50.0}"]
