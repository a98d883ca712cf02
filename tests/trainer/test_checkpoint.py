"""Checkpoints: exact continuation, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from cmt.errors import InputError, WorkError
from cmt.trainer.checkpoint import RunCheckpoints
from cmt.weights.files import find_checkpoint
from cmt.weights.load import check_network, load_weights
from tests.optimizers import RADAM_LOOKAHEAD, needs_addons


def _state(trainer):
    weights = [w.numpy() for w in trainer.network.weights]
    for optimizer in trainer.optimizers.values():
        variables = optimizer.variables
        variables = variables() if callable(variables) else variables
        weights += [v.numpy() for v in variables]
    return [*weights, trainer.step.numpy()]


def _run(trainer, dataset, steps):
    trainer.fit(dataset, steps_per_epoch=steps, verbose=0)


@pytest.mark.parametrize("kind", ["ADAM", RADAM_LOOKAHEAD])
def test_continuing_is_exact(tiny, tmp_path, kind):
    whole = tiny.build(kind=kind)
    _run(whole, tiny.data(), 7)
    first = tiny.build(kind=kind)
    assert RunCheckpoints(tmp_path, first, keep=1).restore_latest() == 0
    _run(first, tiny.data(), 4)
    RunCheckpoints(tmp_path, first, keep=1).save(4)
    second = tiny.build(kind=kind, seed=8)
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


def test_a_full_disk(tiny, tmp_path, monkeypatch):
    left = tmp_path / "checkpoints" / "step-1_temp"

    def save(self, checkpoint_number):
        left.mkdir(parents=True)
        (left / "part-00000-of-00001.tempstate").write_text("half")
        path = "/" + 20 * "long-folder/" + "step-1_temp/part-00000-of-00001"
        raise tf.errors.ResourceExhaustedError(
            None,
            None,
            "{{function_node __wrapped__SaveV2_dtypes_262_device_/job:localhost/"
            f"replica:0/task:0/device:CPU:0}}}} {path}; No space left on device "
            "[Op:SaveV2]",
        )

    monkeypatch.setattr(tf.train.CheckpointManager, "save", save)
    with pytest.raises(WorkError, match=r"\(/long.*; No space left on device\); free"):
        RunCheckpoints(tmp_path, tiny.build(), keep=1).save(1)
    assert not left.exists()


def test_cannot_write(tiny, tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(WorkError, match="step-1 cannot be written"):
        RunCheckpoints(tmp_path, tiny.build(), keep=1).save(1)
