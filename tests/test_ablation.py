"""The ablation on scenes: its configs, its statistics, and how its runner goes on."""

from __future__ import annotations

import json
import sys
import threading
import time

import ablation
import ablation_rows
import numpy as np
import pytest
from ablation_jobs import Jobs, alone
from ablation_results import mean_and_spread
from ablation_rows import FOLDER, LARGE, LONG, ROWS, SMALL

from cmt import textproto
from cmt.config import load_experiment
from cmt.data.panoptic.categories import Category
from cmt.errors import InputError, WorkError
from cmt.evaluation.bootstrap import paired_difference, panoptic_quality
from cmt.evaluation.panoptic_quality import quality

RATE = "trainer.learning_rate.base"
MERGE = "evaluation.merge"


def changed(a: str, b: str) -> set[str]:
    """Paths of the fields that differ between two configs, but for name and rate."""
    pairs = textproto.diff(load_experiment(a), load_experiment(b))
    return {path for path, _, _ in pairs} - {"name", RATE}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_configs_follow_from_the_base(row, checkout):
    path = checkout / "configs" / FOLDER / f"{row.name}.textproto"
    assert path.read_text() == ablation_rows.config_text(row), (
        "run `python tools/ablation.py configs`"
    )
    assert load_experiment(f"{FOLDER}/{row.name}").name == row.name


def test_there_is_no_config_without_a_row(checkout):
    found = (checkout / "configs" / FOLDER).glob("*")
    assert {path.name for path in found} == {f"{name}.textproto" for name in ROWS}


STEPS = [row for row in ROWS.values() if row.before]


@pytest.mark.parametrize("row", STEPS, ids=[row.name for row in STEPS])
def test_a_step_changes_what_the_step_of_the_paper_changes(row):
    ours = changed(f"{FOLDER}/{row.before}", f"{FOLDER}/{row.name}")
    if row.paper:
        # Those that merge pixel-wise have the predecessor's thresholds for COCO.
        theirs = changed(*(f"coco/ablations/{name}" for name in row.paper))
        thresholds = ("evaluation.min_", "evaluation.stuff_", "evaluation.thing_")
        theirs = {path for path in theirs if not path.startswith(thresholds)}
        assert ours == theirs
    else:
        fields = {"decoder_location": {"model.location.enabled"}}
        assert ours == fields.get(row.name, {"model.transformer.assignment"})


def test_the_last_row_is_the_base_but_for_what_all_rows_have():
    base = changed(ablation_rows.BASE, f"{FOLDER}/mask_wise")
    assert base <= {change.partition("=")[0] for change in ablation_rows.COMMON}
    assert not any(name.startswith(("model.", "loss.")) for name in base)
    assert changed(f"{FOLDER}/mask_wise", f"{FOLDER}/full") == {MERGE}
    baseline = load_experiment(f"{FOLDER}/baseline").model
    assert not baseline.location.enabled and not baseline.decoder.stronger


def test_all_rows_have_equal_steps_data_and_schedule():
    first, *others = (load_experiment(f"{FOLDER}/{name}") for name in ROWS)
    for other in others:
        other.trainer.learning_rate.base = first.trainer.learning_rate.base
        assert (other.trainer, other.data) == (first.trainer, first.data)


@pytest.mark.slow
def test_parameters_are_equal_where_those_of_the_paper_are():
    from cmt.factory import build_model
    from cmt.zoo.cost import count_parameters

    def parameters(name: str) -> int:
        network = build_model(load_experiment(f"{FOLDER}/{name}").model)
        network.build((None, 33, 33, 3))
        return count_parameters(network).total

    for name, others in (
        ("baseline", ("clustering", "contrastive")),
        ("decoder", ("decoder_clustering",)),
        ("full", ("kmeans", "mask_wise")),
    ):
        count = parameters(name)
        for other in others:
            assert parameters(other) == pytest.approx(count, rel=0.02), other


def random_counts(*shape: int, seed: int = 0) -> np.ndarray:
    """[..., 5, 4]; the fourth class never occurs."""
    counts = np.random.default_rng(seed).integers(0, 4, [*shape, 5, 4]).astype(float)
    counts[..., 0] = 0.7 * counts[..., 1]
    counts[..., 3, :] = 0
    return counts


def test_pq_is_that_of_the_evaluation():
    counts = random_counts(3)
    categories = [Category(i + 1, f"c{i}", i < 2, (0, 0, 0)) for i in range(5)]
    wanted = [quality(categories, x)["all"]["pq"] for x in counts]
    np.testing.assert_allclose(panoptic_quality(counts), wanted)
    assert panoptic_quality(np.zeros([5, 4])) == 0


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_paired_differences_equal_a_loop(num_seeds):
    a, b = random_counts(num_seeds, 7), random_counts(num_seeds, 7, seed=1)
    rng = np.random.default_rng(5)
    times = rng.multinomial(7, [1 / 7] * 7, size=50)
    seeds = rng.integers(num_seeds, size=[50, num_seeds])
    drawn = []
    for of_images, of_seeds in zip(times, seeds, strict=True):
        one = [
            panoptic_quality(sum(n * x for n, x in zip(of_images, b[s], strict=True)))
            - panoptic_quality(sum(n * x for n, x in zip(of_images, a[s], strict=True)))
            for s in of_seeds
        ]
        drawn.append(np.mean(one))
    found = paired_difference(a, b, resamples=50, seed=5)
    whole = [
        panoptic_quality(b[s].sum(0)) - panoptic_quality(a[s].sum(0))
        for s in range(num_seeds)
    ]
    assert found.mean == pytest.approx(np.mean(whole))
    assert (found.low, found.high) == pytest.approx(
        (np.percentile(drawn, 2.5), np.percentile(drawn, 97.5))
    )


def test_a_difference_to_itself_is_nothing_and_a_sure_one_is_sure():
    a = random_counts(2, 9)
    assert paired_difference(a, a) == (0, 0, 0)
    assert not paired_difference(a, a).excludes_zero
    b = a.copy()
    b[..., 2:] = 0  # No mistakes.
    found = paired_difference(a, b)
    assert found.excludes_zero and found.low > 0
    turned = paired_difference(b, a)
    assert turned == pytest.approx((-found.mean, -found.high, -found.low))


def test_spread_is_that_of_a_sample():
    assert mean_and_spread(np.array([1.0, 2.0, 6.0])) == pytest.approx((3, 7**0.5))
    assert mean_and_spread(np.array([4.0])) == (4.0, None)


def jobs_in(folder, lock: int, *, at_a_time: int = 1, hours: float | None = None):
    return Jobs(at_a_time, hours, lock, folder)


def test_a_job_that_fails_does_not_stop_the_others(tmp_path, capsys):
    log = tmp_path / "log"
    with alone(tmp_path / "lock") as lock:
        jobs = jobs_in(tmp_path, lock, at_a_time=2)
        script = "echo $TF_NUM_INTRAOP_THREADS; pwd"
        code = jobs.run(
            {
                "bad": lambda: jobs.execute(["sh", "-c", "exit 3"], log),
                "good": lambda: jobs.execute(["sh", "-c", script], tmp_path / "good"),
            }
        )
    assert code == 1
    assert (tmp_path / "good").read_text() == f"1\n{tmp_path}\n"
    shown = capsys.readouterr().out
    assert f"bad: a command failed with exit code 3; see {log}" in shown
    assert "1 of 2 after" in shown and ": good" in shown


def test_when_time_is_up_commands_are_told_to_stop_and_none_starts(tmp_path, capsys):
    script = "trap 'echo saved; exit 130' TERM; echo began; while :; do sleep 0.1; done"
    with alone(tmp_path / "lock") as lock:
        jobs = jobs_in(tmp_path, lock, hours=1 / 3600)
        words = ["sh", "-c", script]
        code = jobs.run(
            {
                "one": lambda: jobs.execute(words, tmp_path / "one"),
                "two": lambda: jobs.execute(words, tmp_path / "two"),
            }
        )
    assert code == 0
    assert (tmp_path / "one").read_text() == "began\nsaved\n"
    assert not (tmp_path / "two").exists()
    assert "time is up; 2 are left" in capsys.readouterr().out


def test_a_signal_stops_commands(tmp_path, capsys):
    import os
    import signal

    log = tmp_path / "log"
    words = [
        "sh",
        "-c",
        "trap 'exit 130' TERM; echo began; while :; do sleep 0.1; done",
    ]

    def interrupt() -> None:
        while not log.exists() or not log.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with alone(tmp_path / "lock") as lock:
        jobs = jobs_in(tmp_path, lock)
        threading.Thread(target=interrupt, daemon=True).start()
        assert jobs.run({"one": lambda: jobs.execute(words, log)}) == 130
    assert signal.getsignal(signal.SIGTERM) is before
    assert "stopped by SIGTERM; 1 are left" in capsys.readouterr().out


def test_what_a_killed_run_left_behind_keeps_others_out(tmp_path):
    import subprocess

    with alone(tmp_path / "lock") as lock:
        child = subprocess.Popen([sys.executable, "-c", "input()"], pass_fds=[lock],
                                 stdin=subprocess.PIPE)  # fmt: skip
        with pytest.raises(InputError, match="works here"), alone(tmp_path / "lock"):
            pass
    with pytest.raises(InputError, match="left behind"), alone(tmp_path / "lock"):
        pass
    child.communicate(b"\n")
    with alone(tmp_path / "lock"):
        pass


def test_a_failed_command_is_named(tmp_path):
    with alone(tmp_path / "lock") as lock, pytest.raises(WorkError, match="code 4"):
        jobs_in(tmp_path, lock).execute(["sh", "-c", "exit 4"], tmp_path / "log")


DATA = {"train": 4, "val": 2, "seed": 0, "size": 97}


def write_result(options, trial, row, **changes) -> None:
    settings = trial.settings(row, options.overrides)
    result = {"row": row.name, "settings": settings, "data": DATA} | changes
    (options.results / trial.file_of(row)).write_text(json.dumps(result))


def test_done_is_what_has_all_its_results_with_these_settings(tmp_path, capsys):
    options = ablation.parse(["run", "--results", str(tmp_path)])
    row = ROWS["full"]
    trial = ablation.chosen(row, 0)
    assert [r.name for r in trial.measured()] == ["full", "mask_wise"]
    assert not ablation.is_done(trial, options, DATA)
    write_result(options, trial, row)
    assert not ablation.is_done(trial, options, DATA)
    write_result(options, trial, ROWS["mask_wise"])
    assert ablation.is_done(trial, options, DATA)
    assert capsys.readouterr().out == ""
    for change, words in (
        (
            ["--set", "loss.layer_weight=0.5"],
            "loss.layer_weight was the default, is 0.5",
        ),
        (["--steps", "700"], f"trainer.steps was {ablation_rows.STEPS}, is 700"),
    ):
        other = ablation.parse(["run", "--results", str(tmp_path), *change])
        assert ablation.is_done(trial, other, DATA)
        shown = capsys.readouterr().out
        assert f"stale, kept; --redo-stale renews: {trial.file_of(row)}: " in shown
        assert words in shown
        other.redo_stale = True
        assert not ablation.is_done(trial, other, DATA)
        assert "made again" in capsys.readouterr().out
    assert ablation.is_done(trial, options, DATA | {"val": 3})
    assert "its scenes were" in capsys.readouterr().out
    # One that is stale is not replaced because another is missing.
    (tmp_path / trial.file_of(ROWS["mask_wise"])).unlink()
    assert ablation.is_done(trial, options, DATA | {"val": 3})
    assert not ablation.is_done(trial, options, DATA)


def test_where_things_lie_and_what_is_reported_is_no_setting():
    row = ROWS["kmeans"]
    base = ablation.chosen(row, 1).settings(row, ())
    assert base["trainer.seed"] == "1"
    assert base["model.transformer.assignment"] == "KMEANS"
    assert base == ablation.chosen(row, 1).settings(
        row,
        (
            'data.train.tfrecords="elsewhere"',
            "trainer.log_every_steps=3",
            "trainer.evaluate_every_steps=0",
            "trainer.strategy.kind=ONE_DEVICE",
        ),
    )
    other = ablation.chosen(row, 1).settings(row, ("data.max_masks=3",))
    assert ablation_rows.digest(base) != ablation_rows.digest(other)


def test_a_result_names_the_command_that_makes_it_again():
    options = ablation.parse(
        ["run", "--set", "loss.layer_weight=0.5", "--steps", "700"]
    )
    changes = ["--set", "loss.layer_weight=0.5", "--set", "trainer.steps=700"]
    row = ROWS["full"]
    words = ablation.chosen(row, 2).words(options)
    assert words == ["run", "--rows", "full", "--seeds", "2", *changes]
    assert ablation.parse(words).overrides == options.overrides
    other = ablation.Trial(row, 0, 0.25).words(options)
    assert other == ["search", "--rates", "0.25", *changes]
    assert ablation.parse(other).rates == [0.25]


def test_large_rows_have_settings_rates_and_folders_of_their_own():
    options = ablation.parse(["run", "--large", "--steps", "700"])
    assert options.rows == LARGE.rows
    assert options.results == ablation.DOCS / "ablation_large" / "results"
    assert options.overrides == [*LARGE.overrides, "trainer.steps=700"]
    row = ROWS["full"]
    trial = ablation.chosen(row, 2, LARGE)
    assert trial.rate == LARGE.rates["full"] != ablation.chosen(row, 2).rate
    words = trial.words(options)
    assert words == ["run", "--rows", "full", "--seeds", "2", "--large",
                     "--set", "trainer.steps=700"]  # fmt: skip
    assert ablation.parse(words).overrides == options.overrides
    assert ablation.parse(["search", "--large"]).rates == LARGE.searched_rates
    assert ablation.parse(["run", "--long"]).rows == LONG.rows


def test_the_large_scale_changes_what_it_says():
    settings = ablation.chosen(ROWS["full"], 0, LARGE).settings(
        ROWS["full"], LARGE.overrides
    )
    sides = [settings[f"data.crop_{side}_pixels"] for side in ("height", "width")]
    assert sides == [str(LARGE.size_pixels)] * 2
    assert settings["trainer.steps"] == str(LARGE.steps)
    assert set(LARGE.rows) <= set(SMALL.rows)


def test_rows_that_are_not_trained_cannot_be_run(capsys):
    with pytest.raises(SystemExit):
        ablation.parse(["run", "--rows", "mask_wise"])
    assert "invalid choice: 'mask_wise'" in capsys.readouterr().err
