from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cmt.cli.data import SceneLevel, app
from cmt.data.scenes.generate import generate_scenes
from cmt.data.scenes.levels import LEVELS
from cmt.errors import InputError


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def source_options(sources: dict) -> list:
    return [part for name, path in sources.items() for part in (f"--{name}", str(path))]


def test_from_scenes_to_inspection(tmp_path):
    folder = tmp_path / "scenes"
    made = run(
        *("scenes", "--output", folder, "--train", 3, "--val", 0),
        *("--size", 33, "--seed", 4, "--workers", 1),
    )
    assert made.exit_code == 0, made.output
    assert not (folder / "images" / "val").exists()
    sources = source_options(
        {
            "images": folder / "images" / "train",
            "annotations": folder / "annotations" / "panoptic_train.json",
            "masks": folder / "annotations" / "panoptic_train",
        }
    )
    checked = run("validate", *sources, "--workers", 1)
    assert checked.exit_code == 0
    assert "no problems" in checked.stdout

    converted = run(
        *("convert", *sources, "--output", tmp_path / "out"),
        *("--split", "train", "--shards", 2, "--workers", 1),
    )
    assert converted.exit_code == 0, converted.output
    assert "3 images in 2 shards" in converted.stdout

    table = run("inspect", tmp_path / "out", "--output", tmp_path / "pictures")
    assert table.exit_code == 0, table.output
    assert "train: 3 images in 2 shards" in table.stdout
    assert (tmp_path / "pictures" / "train.png").is_file()
    as_json = run("inspect", *sorted((tmp_path / "out").glob("*.tfrecord")), "--json")
    (split,) = json.loads(as_json.stdout)
    assert split["images"] == 3


def test_level_of_scenes(tmp_path):
    assert [level.value for level in SceneLevel] == list(LEVELS)
    options = ("--train", 0, "--val", 2, "--size", 33, "--workers", 1)
    for level in (None, *LEVELS):
        chosen = () if level is None else ("--level", level)
        made = run("scenes", "--output", tmp_path / str(level), *chosen, *options)
        assert made.exit_code == 0, made.output
        recipe = LEVELS[level or "middle"]
        folder = tmp_path / f"{level}-expected"
        generate_scenes(folder, train=0, val=2, size=33, level=recipe, workers=1)
        for file in ("annotations/panoptic_val.json", "images/val/000000000002.jpg"):
            written = (tmp_path / str(level) / file).read_bytes()
            assert written == (folder / file).read_bytes(), (level, file)
    wrong = run("scenes", "--output", tmp_path / "no", "--level", "medium")
    assert wrong.exit_code == 2
    for choice in ("medium", *LEVELS):
        assert f"'{choice}'" in wrong.output
    assert not (tmp_path / "no").exists()


def test_problems_are_lines_and_exit_code_1(broken):
    (broken["images"] / "000000000001.jpg").unlink()
    (broken["masks"] / "000000000002.png").unlink()
    options = ["validate", *source_options(broken), "--workers", 1]
    result = run(*options)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert sum(line.startswith("missing file: ") for line in lines) == 2
    assert any("all" in line and "2" in line for line in lines)
    as_json = run(*options, "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["kinds"] == {"missing file": 2}


def test_a_missing_folder_is_wrong_usage(broken, tmp_path):
    options = source_options({**broken, "masks": tmp_path / "none"})
    result = run("validate", *options, "--json")
    assert isinstance(result.exception, InputError)
    assert result.exception.exit_code == 2 and not result.stdout


def test_faults_reach_the_front_door_as_input_errors(broken, tmp_path):
    (broken["images"] / "000000000001.jpg").unlink()
    result = run(
        *("convert", *source_options(broken), "--output", tmp_path / "out"),
        *("--split", "val", "--workers", 1),
    )
    assert isinstance(result.exception, InputError)


def test_a_conversion_says_what_it_did(broken, tmp_path):
    path = broken["images"] / "000000000005.jpg"
    path.write_bytes(path.read_bytes()[:200])
    options = ["convert", *source_options(broken), "--output", tmp_path / "out"]
    options += ["--split", "val", "--workers", 1, "--shards", 3, "--max-bad", 1]
    left, wrote = run(*options).stdout.splitlines()
    assert left.startswith(f"left out: 000000000005.jpg: truncated file: {path}: ")
    shards = list((tmp_path / "out").glob("*.tfrecord"))
    size = round(sum(shard.stat().st_size for shard in shards) / 1000)
    content = f"5 images (1 left out) in 3 shards, {size} kB"
    rest = f"and val.manifest.json to {tmp_path / 'out'}"
    assert wrote == f"wrote {content}, {rest}"
    shards[0].unlink()
    assert run(*options, "--resume").stdout.splitlines() == [
        left,
        f"wrote {content}, of which 2 were there, {rest}",
    ]
    assert run(*options, "--resume").stdout.splitlines() == [
        left,
        f"nothing to do: {tmp_path / 'out'} holds {content}, and val.manifest.json",
    ]


@pytest.mark.parametrize(
    "command", [(), ("scenes",), ("validate",), ("convert",), ("inspect",)]
)
def test_help_has_an_example(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "cmt data " in result.stdout.split("Example")[1]
