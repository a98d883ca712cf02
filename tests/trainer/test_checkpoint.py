"""Checkpoints: exact continuation, and what is refused."""

from __future__ import annotations

import contextlib
import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from cmt.errors import InputError, WorkError
from cmt.trainer.checkpoint import RunCheckpoints
from cmt.weights.files import Contents, find_checkpoint, verify
from cmt.weights.load import check_network, load_weights
from tests.optimizers import needs_addons


def _state(trainer):
    weights = [w.numpy() for w in trainer.network.weights]
    for optimizer in trainer.optimizers.values():
        variables = optimizer.variables
        variables = variables() if callable(variables) else variables
        weights += [v.numpy() for v in variables]
    return [*weights, trainer.step.numpy()]


def _run(trainer, dataset, steps):
    trainer.fit(dataset, steps_per_epoch=steps, verbose=0)


@pytest.mark.parametrize(
    "kind",
    [
        "ADAM",
        pytest.param("RADAM_LOOKAHEAD", marks=[needs_addons, pytest.mark.slow]),
    ],
)
def test_continuing_is_exact(tiny, tmp_path, kind):
    """With what is dropped at random, too."""
    whole = tiny.build(kind=kind, drop=0.5)
    _run(whole, tiny.data(), 7)
    first = tiny.build(kind=kind, drop=0.5)
    assert RunCheckpoints(tmp_path, first, keep=1).restore_latest() == 0
    _run(first, tiny.data(), 4)
    RunCheckpoints(tmp_path, first, keep=1).save(4)
    second = tiny.build(kind=kind, drop=0.5, seed=8)
    assert RunCheckpoints(tmp_path, second, keep=1).restore_latest() == 4
    _run(second, tiny.data(first_step=4), 3)
    for a, b in zip(_state(whole), _state(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_keeps_the_latest(tiny, tmp_path):
    checkpoints = RunCheckpoints(tmp_path, tiny.build(), keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step)
    assert checkpoints.save(3) == checkpoints.latest
    names = sorted(p.name for p in (tmp_path / "checkpoints").glob("*.index"))
    assert names == ["step-2.index", "step-3.index"]


def test_a_folder_with_brackets_is_no_pattern(tiny, tmp_path):
    """It is read and cleaned; the folder that fits it as a pattern is left alone."""
    trainer = tiny.build()
    for name in ("run1", "run[1]"):
        (tmp_path / name).mkdir()
        checkpoints = RunCheckpoints(tmp_path / name, trainer, keep=1)
        trainer.step.assign(1)
        checkpoints.save(1)
    trainer.step.assign(2)
    assert checkpoints.save(2) == str(tmp_path / "run[1]" / "checkpoints" / "step-2")
    for name, step in (("run1", 1), ("run[1]", 2)):
        files = {p.name for p in (tmp_path / name / "checkpoints").glob("*.index")}
        assert files == {f"step-{step}.index"}
        network = tiny.build(seed=1).network
        assert load_weights(network, find_checkpoint(tmp_path / name)) == step
        for a, b in zip(network.weights, trainer.network.weights, strict=True):
            np.testing.assert_array_equal(a, b)
    again = RunCheckpoints(tmp_path / "run[1]", tiny.build(seed=8), keep=1)
    assert again.restore_latest() == 2


def _saved(tiny, folder, step=5, **keywords):
    trainer = tiny.build(**keywords)
    trainer.step.assign(step)
    return trainer, RunCheckpoints(folder, trainer, keep=3).save(step)


def test_load_weights(tiny, tmp_path):
    trainer, prefix = _saved(tiny, tmp_path)
    for path in (tmp_path, tmp_path / "checkpoints", prefix, f"{prefix}.index"):
        network = tiny.build(seed=1).network
        assert load_weights(network, find_checkpoint(path)) == 5
        for a, b in zip(network.weights, trainer.network.weights, strict=True):
            np.testing.assert_array_equal(a, b)
    assert check_network(network, prefix) == 5


def test_another_model(tiny, tmp_path):
    _, prefix = _saved(tiny, tmp_path, width=2)
    other = tiny.build(width=6).network
    before = [w.numpy() for w in other.weights]
    with pytest.raises(InputError, match="another model") as error:
        load_weights(other, prefix)
    message = str(error.value)
    assert "2 of another shape (head/kernel: [5, 2] in it, [5, 6]" in message
    for a, b in zip(before, other.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_missing_and_unexpected(tiny, tmp_path):
    trainer = tiny.build()
    trainer.network.extra = tf.Variable([1.0])
    prefix = RunCheckpoints(tmp_path, trainer, keep=1).save(0)
    network = tiny.build().network
    network.more = tf_keras.layers.Dense(2)
    network.more.build((None, 3))
    with pytest.raises(InputError) as error:
        check_network(network, prefix)
    assert (
        "variables: 2 missing in it (more/kernel, more/bias); "
        "1 not in the model (extra); use" in str(error.value)
    )


def test_refused_by_training_too(tiny, tmp_path):
    _saved(tiny, tmp_path)
    with pytest.raises(InputError, match="another model"):
        RunCheckpoints(tmp_path, tiny.build(width=6), keep=1).restore_latest()


@needs_addons
def test_another_optimizer_is_refused(tiny, tmp_path):
    _saved(tiny, tmp_path, kind="RADAM_LOOKAHEAD")
    with pytest.raises(InputError, match="state of another optimizer"):
        RunCheckpoints(tmp_path, tiny.build(), keep=1).restore_latest()


def test_no_checkpoint(tmp_path, tiny):
    with pytest.raises(InputError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)
    with pytest.raises(InputError, match=r"no checkpoint .*step-7 \(no file step-7.in"):
        find_checkpoint(tmp_path / "step-7")
    _, prefix = _saved(tiny, tmp_path)
    (tmp_path / "checkpoints" / "checkpoint").unlink()
    with pytest.raises(InputError, match="give one of them, such as .*step-5"):
        find_checkpoint(tmp_path)
    assert find_checkpoint(prefix) == prefix


def test_damaged_and_foreign(tiny, tmp_path):
    _, prefix = _saved(tiny, tmp_path)
    foreign = tf.train.Checkpoint(weights=tf.Variable([1.0])).save(
        str(tmp_path / "other")
    )
    with pytest.raises(InputError, match="not written by `cmt train`.*weights"):
        load_weights(tiny.build().network, foreign)
    data = tmp_path / "checkpoints" / "step-5.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:40])
    with pytest.raises(InputError, match="damaged or not complete") as error:
        load_weights(tiny.build().network, prefix)
    assert "\n" not in str(error.value)
    data.unlink()
    with pytest.raises(InputError, match="damaged or not complete"):
        load_weights(tiny.build().network, prefix)


def test_the_latest_is_gone(tiny, tmp_path, capfd):
    trainer = tiny.build()
    for step in (5, 9):
        RunCheckpoints(tmp_path, trainer, keep=3).save(step)
    capfd.readouterr()
    (tmp_path / "checkpoints" / "step-9.index").unlink()
    gone = "`checkpoint` names step-9, which is not there"
    with pytest.raises(InputError, match=f"{gone}; .*, such as .*step-5$"):
        find_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "step-5.index").unlink()
    with pytest.raises(InputError, match=f"{gone}; .* another checkpoint$"):
        find_checkpoint(tmp_path)
    assert capfd.readouterr().err == ""


def _fill_the_disk(monkeypatch):
    """Checkpoints are half written, then TensorFlow's error is that of a full disk."""

    def write(self, file_prefix):
        left = Path(file_prefix)
        left.parent.mkdir(parents=True, exist_ok=True)
        left.with_name("part-00000-of-00001.tempstate").write_text("half")
        path = "/" + 20 * "long-folder/" + "step-1_temp/part-00000-of-00001"
        raise tf.errors.ResourceExhaustedError(
            None,
            None,
            "{{function_node __wrapped__SaveV2_dtypes_262_device_/job:localhost/"
            f"replica:0/task:0/device:CPU:0}}}} {path}; No space left on device "
            "[Op:SaveV2]",
        )

    monkeypatch.setattr(tf.train.Checkpoint, "write", write)


def _names(folder):
    return sorted(p.name for p in (folder / "checkpoints").iterdir())


def test_a_full_disk(tiny, tmp_path, monkeypatch):
    checkpoints = RunCheckpoints(tmp_path, tiny.build(), keep=1)
    first = checkpoints.save(1)
    before = _names(tmp_path)
    with monkeypatch.context() as patch:
        _fill_the_disk(patch)
        message = r"step-2 .*\(/long.*; No space left on device\); free"
        with pytest.raises(WorkError, match=message):
            checkpoints.save(2)
    assert _names(tmp_path) == before
    assert checkpoints.latest == first == find_checkpoint(tmp_path)
    assert checkpoints.save(2) == find_checkpoint(tmp_path)


def test_cannot_write(tiny, tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    checkpoints = RunCheckpoints(tmp_path, tiny.build(), keep=1)
    with pytest.raises(WorkError, match="step-1 cannot be written"):
        checkpoints.save(1)
    with pytest.raises(OSError, match="File exists"):
        checkpoints.check_folder()


def test_a_disk_too_small_for_all_checkpoints(tiny, tmp_path, monkeypatch):
    trainer = tiny.build()
    kept = [*trainer.network.variables, trainer.step]
    kept += [v for o in trainer.optimizers.values() for v in o.weights]
    size = sum(v.numpy().nbytes for v in kept)
    assert size > 400
    usage = types.SimpleNamespace(free=4 * size + 400)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    run_dir = tmp_path / "new" / "run"
    RunCheckpoints(run_dir, trainer, keep=2).check_folder()
    with pytest.raises(InputError, match=r"5 checkpoints of .* need .*keep_check") as e:
        RunCheckpoints(tmp_path / "other", trainer, keep=3).check_folder()
    assert "keep_checkpoints = 3, the best one, and one that is being" in str(e.value)
    assert not (tmp_path / "other").exists()
    # What is there already counts.
    RunCheckpoints(run_dir, trainer, keep=3).save(1)
    RunCheckpoints(run_dir, trainer, keep=3).check_folder()


def test_every_flipped_byte_is_found(tiny, tmp_path):
    """Or is of the end of the index, which nobody reads, and changes no value."""
    _, prefix = _saved(tiny, tmp_path)

    def values():
        contents = Contents(prefix)
        return {key: np.array(contents.value(key)) for key in contents.shapes}

    expected = values()
    for ending in (".index", ".data-00000-of-00001"):
        file = Path(prefix + ending)
        whole = file.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 60)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 8
            file.write_bytes(damaged)
            if ending == ".index" and place > 0.9 * len(whole):
                with contextlib.suppress(InputError):
                    verify(prefix)
                    np.testing.assert_equal(values(), expected)
                continue
            with pytest.raises(InputError, match="damaged or not complete"):
                verify(prefix)
        file.write_bytes(whole)
    verify(prefix)


def _damage(prefix):
    data = Path(f"{prefix}.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[len(content) // 3] ^= 4
    data.write_bytes(content)


def test_a_damaged_one_is_reported_and_the_one_before_is_used(tiny, tmp_path, caplog):
    trainer = tiny.build()
    checkpoints = RunCheckpoints(tmp_path, trainer, keep=3)
    states = {}
    for step in (3, 6):
        _run(trainer, tiny.data(first_step=step - 3), 3)
        checkpoints.save(step)
        states[step] = _state(trainer)
    _damage(tmp_path / "checkpoints" / "step-6")
    names = _names(tmp_path)
    again = tiny.build(seed=8)
    checkpoints = RunCheckpoints(tmp_path, again, keep=3)
    assert checkpoints.restore_latest() == 3
    assert _names(tmp_path) == names  # A user may want to see what it is.
    for a, b in zip(states[3], _state(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "step-6 cannot be read" in caplog.text
    assert "the one before is used" in caplog.text
    _run(again, tiny.data(first_step=3), 3)
    checkpoints.save(6)
    third = tiny.build(seed=9)
    assert RunCheckpoints(tmp_path, third, keep=3).restore_latest() == 6
    for a, b in zip(states[6], _state(third), strict=True):
        np.testing.assert_array_equal(a, b)
    for step in (3, 6):
        _damage(tmp_path / "checkpoints" / f"step-{step}")
    with pytest.raises(InputError, match="none of the checkpoints .*step-3 cannot"):
        RunCheckpoints(tmp_path, tiny.build(), keep=3).restore_latest()


def test_what_a_kill_leaves_is_no_checkpoint(tiny, tmp_path):
    """Data without an index, folders of half-written ones, no file `checkpoint`."""
    trainer = tiny.build()
    checkpoints = RunCheckpoints(tmp_path, trainer, keep=2)
    trainer.step.assign(4)
    prefix = checkpoints.save(4)
    folder = tmp_path / "checkpoints"
    (folder / "step-8.data-00000-of-00001").write_bytes(b"whole, but without an index")
    (folder / ".step-12.partial").mkdir()
    (folder / ".step-12.partial" / "step-12.index").write_bytes(b"half")
    (folder / "checkpoint").unlink()
    again = RunCheckpoints(tmp_path, tiny.build(seed=8), keep=2)
    assert again.restore_latest() == 4 and again.latest == prefix
    again.check_folder()
    assert not (folder / ".step-12.partial").exists()
    again.save(8)
    assert load_weights(tiny.build(seed=9).network, find_checkpoint(tmp_path)) == 4


def test_the_best_stays_beside_the_latest(tiny, tmp_path):
    trainer = tiny.build()
    checkpoints = RunCheckpoints(tmp_path, trainer, keep=2)
    scores = {2: 10.0, 4: 50.0, 6: float("nan"), 8: 50.0, 10: 49.0}
    for step in range(1, 11):
        trainer.step.assign(step)
        if step % 2:
            checkpoints.save(step)
        else:
            checkpoints.offer(step, scores[step])
    found = [name for name in _names(tmp_path) if name.endswith(".index")]
    assert sorted(found) == ["step-4.index", "step-7.index", "step-9.index"]
    assert checkpoints.best == (4, 50.0)
    again = RunCheckpoints(tmp_path, tiny.build(), keep=2)
    assert again.restore_latest() == 9 and again.best == (4, 50.0)
    trainer.step.assign(12)
    again.offer(12, 51.0)
    found = [name for name in _names(tmp_path) if name.endswith(".index")]
    assert sorted(found) == ["step-12.index", "step-9.index"]
    text = (tmp_path / "checkpoints" / "best.json").read_text()
    assert json.loads(text) == {"step": 12, "pq": 51.0}
    # A run that falls back behind its best evaluates it again.
    _damage(tmp_path / "checkpoints" / "step-12")
    again = RunCheckpoints(tmp_path, tiny.build(), keep=2)
    assert again.restore_latest() == 9 and again.best is None
