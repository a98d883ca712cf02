"""The same steps on one device, on two, and in two processes; and one that dies."""

from __future__ import annotations

import json
import pathlib
import socket
import subprocess
import time

import numpy as np
import pytest

from tests.trainer.runs import Run, small_data

pytestmark = pytest.mark.check
# Sums over images are added in another order. Relative, and in float32.
_TOLERANCE, _TOLERANCE_OF_REAL = 1e-4, 2e-3
# Of the real network. A later norm or softmax takes many offsets away: their gradients
# are rounding alone, of which Adam makes whole steps, and means move with them.
_OFFSETS = ("/beta/", "/bias/", "/moving_mean/")
_PATIENCE_SECONDS = 600


@pytest.fixture(
    scope="module", params=[False, pytest.param(True, marks=pytest.mark.slow)]
)
def real(request) -> bool:
    """Whether the networks are those of the config; small ones start sooner."""
    return request.param


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> list[str]:
    return [
        *small_data(tmp_path_factory.mktemp("strategies")),
        "trainer.global_batch_size=4",
        "trainer.checkpoint_every_steps=3",
        "trainer.optimizer.average_decay=0.9",
        "trainer.learning_rate.kind=CONSTANT",
        "trainer.learning_rate.warmup_steps=0",
    ]


def start_workers(run: Run) -> list[subprocess.Popen]:
    """Starts two processes that train together."""
    sockets = [socket.socket() for _ in range(2)]
    for opened in sockets:
        opened.bind(("localhost", 0))
    addresses = [f"localhost:{opened.getsockname()[1]}" for opened in sockets]
    for opened in sockets:
        opened.close()
    return [
        run.start(
            TF_CONFIG=json.dumps(
                {
                    "cluster": {"worker": addresses},
                    "task": {"type": "worker", "index": number},
                }
            )
        )
        for number in range(2)
    ]


def finish(processes: list[subprocess.Popen]) -> list[str]:
    """What each wrote to standard error; none may take forever."""
    try:
        return [p.communicate(timeout=_PATIENCE_SECONDS)[1].decode() for p in processes]
    finally:
        for process in processes:
            process.kill()


def check_same(run: Run, one: Run) -> None:
    found, expected = run.values(), one.values()
    assert found.keys() == expected.keys() and len(found) > 10
    tolerance = _TOLERANCE_OF_REAL if run.is_real else _TOLERANCE
    for key, value in expected.items():
        if run.is_real and any(part in key for part in _OFFSETS):
            continue
        scale = np.abs(value).max() + 1e-6
        np.testing.assert_allclose(
            found[key], value, rtol=0, atol=tolerance * scale, err_msg=key
        )
    metrics = [
        [json.loads(line) for line in (r.folder / "metrics.jsonl").open()]
        for r in (run, one)
    ]
    assert len(metrics[0]) == len(metrics[1]) == one.steps
    for ours, theirs in zip(*metrics, strict=True):
        assert ours["step"] == theirs["step"]
        assert ours["total"] == pytest.approx(theirs["total"], rel=1e-3)


@pytest.fixture(scope="module")
def one(settings, real, once) -> Run:
    """Five steps on one device."""
    settings = [*settings, "trainer.strategy.kind=ONE_DEVICE"]

    def of(folder: pathlib.Path) -> Run:
        return Run(settings, folder / "run", steps=5, real=real)

    return of(once(f"one_{real}", lambda folder: of(folder).finish()))


def test_five_steps_on_two_devices(settings, real, tmp_path, one):
    kind = ("trainer.strategy.kind=MIRRORED", "trainer.strategy.logical_cpus=2")
    run = Run([*settings, *kind], tmp_path / "run", steps=5, real=real)
    run.finish()
    check_same(run, one)


@pytest.mark.parametrize(
    ("ends", "evaluate"), [((5,), 0), pytest.param((3, 5), 5, marks=pytest.mark.slow)]
)
def test_five_steps_in_two_processes(settings, real, tmp_path, one, ends, evaluate):
    """Each end but the last is one where two others go on."""
    kind = "trainer.strategy.kind=MULTI_WORKER_MIRRORED"
    settings = [*settings, kind, f"trainer.evaluate_every_steps={evaluate}"]
    for steps in ends:
        run = Run(settings, tmp_path / "run", steps=steps, real=real)
        processes = start_workers(run)
        messages = finish(processes)
        assert [p.returncode for p in processes] == [0, 0], messages
        # One of them writes what there is to read.
        assert f"step {steps}/{steps}  total" in messages[0]
        assert "total" not in messages[1]
    check_same(run, one)


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_worker_that_dies_ends_the_other(settings, tmp_path, number):
    kind = "trainer.strategy.kind=MULTI_WORKER_MIRRORED"
    run = Run([*settings, kind], tmp_path / "run", steps=100_000)
    processes = start_workers(run)
    begun = time.monotonic()
    while not run.logged() and time.monotonic() - begun < _PATIENCE_SECONDS:
        assert all(p.poll() is None for p in processes)
        time.sleep(0.05)
    processes[number].kill()
    message = finish(processes)[1 - number]
    assert processes[1 - number].returncode == 1, message
    errors = [line for line in message.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "another worker has ended" in errors[0]
