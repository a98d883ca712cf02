"""The demo: what it refuses and compares, and (slow) a short one from end to end."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cmt.cli.demo_run import Commands, compare_maps, run_demo
from cmt.data.panoptic.masks import write_ids
from cmt.errors import InputError, WorkError


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        run_demo(tmp_path, minutes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_minutes_must_be_positive(tmp_path):
    with pytest.raises(InputError, match="above 0; got 0"):
        run_demo(tmp_path / "demo", minutes=0)
    assert not (tmp_path / "demo").exists()


def test_commands_are_kept_and_failures_end_it(tmp_path):
    commands = Commands(tmp_path / "commands.sh")
    commands.run("config", "show", "scenes/tiny")
    with pytest.raises(WorkError, match="exit code 2"):
        commands.run("config", "show", "no such config")
    assert (tmp_path / "commands.sh").read_text().splitlines() == [
        "#!/bin/sh -e",
        "cmt config show scenes/tiny",
        "cmt config show 'no such config'",
    ]


def test_what_the_second_of_two_prints_follows_the_first(tmp_path, capfd):
    commands = Commands(tmp_path / "commands.sh")
    commands.run_both(("config", "show", "scenes/tiny"), ("config", "list"))
    first, second = capfd.readouterr().out.split("\n$ ")[1:]
    assert first.startswith("cmt config show scenes/tiny\n") and "crop_height" in first
    assert second.startswith("cmt config list\n") and "coco/" in second
    for pair in (("list",), ("show", "none")), (("show", "none"), ("list",)):
        with pytest.raises(WorkError, match=r"show none` ended with exit code 2"):
            commands.run_both(*(("config", *words) for words in pair))


def test_compare_maps(tmp_path):
    ours, served = tmp_path / "ours", tmp_path / "served"
    for folder in (ours, served):
        folder.mkdir()
        for name in ("a.png", "b.png"):
            write_ids(folder / name, np.arange(35, dtype=np.int32).reshape(5, 7))
    assert compare_maps(ours, served) == 2
    write_ids(served / "b.png", np.zeros([5, 7], np.int32))
    with pytest.raises(WorkError, match=r"b.png: 34 pixels"):
        compare_maps(ours, served)
    (served / "b.png").unlink()
    with pytest.raises(WorkError, match="do not hold the same"):
        compare_maps(ours, served)


@pytest.mark.slow
def test_from_scenes_to_served_predictions(tmp_path):
    summary = run_demo(tmp_path / "demo", minutes=0.05, train=24, val=5)
    assert summary.served_images == 5
    assert 0 <= summary.metrics["panoptic"]["all"]["pq"] <= 100
    for name in ("learning_curve.png", "pictures.png", "attention.png", "commands.sh"):
        assert (tmp_path / "demo" / name).stat().st_size > 100
    kept = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert kept["steps"] == summary.steps
