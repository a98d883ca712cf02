"""Where validation finds a data set, and what it says if that is not there."""

from __future__ import annotations

import hashlib
import json
import pathlib

import pytest
from typer.testing import CliRunner

from cmt.cli.data import app
from cmt.data.checks import source as source_module
from cmt.data.checks.report import validate
from cmt.data.checks.source import open_source
from cmt.data.panoptic.registry import Paths
from cmt.errors import InputError


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--images is missing"),
        (("--dataset", "coco"), "--dataset coco needs --root"),
        (("--dataset", "coco", "--images", "x"), "leave out those three"),
        (("--root", "x", "--images", "x"), "--root x goes with --dataset"),
    ],
)
def test_paths_that_do_not_go_together(options, message):
    result = run("validate", *options)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_a_registered_data_set_on_the_command_line(shared, tmp_path):
    """The samples have the 133 classes of COCO, so they may stand for it."""
    samples = shared / "coco_samples"
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").symlink_to(samples / "images")
    for source, name in (("panoptic_real.json", "panoptic_val2017.json"),):
        (root / "annotations" / name).symlink_to(samples / "annotations" / source)
    (root / "annotations" / "panoptic_val2017").symlink_to(
        samples / "annotations" / "panoptic_real"
    )
    found = run("validate", "--dataset", "coco", "--root", root, "--split", "val")
    assert found.exit_code == 0, found.output
    out = tmp_path / "out"
    made = run(
        *("convert", "--dataset", "coco", "--root", root),
        *("--split", "val", "--output", out, "--limit", 3),
    )
    assert made.exit_code == 0, made.output
    assert "3 images in 1 shard," in made.stdout


def as_coco(sources: dict, folder: pathlib.Path) -> pathlib.Path:
    """A root that has the files of a data set where those of COCO are."""
    (folder / "annotations").mkdir(parents=True)
    for name, key in (
        ("val2017", "images"),
        ("annotations/panoptic_val2017.json", "annotations"),
        ("annotations/panoptic_val2017", "masks"),
    ):
        (folder / name).symlink_to(sources[key])
    return folder


def test_classes_of_another_data_set_are_one_problem_of_several(broken, tmp_path):
    root = as_coco(broken, tmp_path / "coco")
    (broken["images"] / "000000000002.jpg").unlink()
    options = ("--dataset", "coco", "--root", root, "--split", "val")
    found = run("validate", *options, "--json")
    assert found.exit_code == 1
    first, second = json.loads(found.stdout)["problems"]
    assert first["kind"] == "categories"
    assert "--dataset coco must have 80 things and 53 stuff; got" in first["message"]
    assert second["kind"] == "missing file"
    assert second["fix"] == f"put it there or check --root {root} and --split val"
    made = run("convert", *options, "--output", tmp_path / "out", "--max-bad", 9)
    assert isinstance(made.exception, InputError)
    assert first["message"] in str(made.exception)


def test_a_category_with_a_fault_is_not_counted_as_missing(broken, tmp_path):
    root = as_coco(broken, tmp_path / "coco")
    content = json.loads(broken["annotations"].read_text())
    content["categories"][0].update(color="red")
    broken["annotations"].write_text(json.dumps(content))
    found = run("validate", "--dataset", "coco", "--root", root, "--json")
    assert len(json.loads(found.stdout)["problems"]) == 1


@pytest.mark.parametrize("gone", ["annotations", "images", "masks"])
def test_paths_of_a_registered_data_set_name_the_options_given(tmp_path, broken, gone):
    root = as_coco(broken, tmp_path / "coco")
    shown = {"images": "val2017", "masks": "annotations/panoptic_val2017"}
    path = root / shown.get(gone, "annotations/panoptic_val2017.json")
    path.unlink()
    found = run("validate", "--dataset", "coco", "--root", root)
    assert isinstance(found.exception, InputError)
    text = str(found.exception)
    assert text.startswith(f"{gone} of the data set, {path}: no such ")
    assert text.endswith(f"; check --root {root} and --split val")
    assert f"--{gone}" not in text


def test_all_images_missing_of_a_registered_data_set(tmp_path, broken):
    root = as_coco(broken, tmp_path / "coco")
    for image in broken["images"].iterdir():
        image.unlink()
    found = json.loads(
        run("validate", "--dataset", "coco", "--root", root, "--json").stdout
    )
    (problem,) = [p for p in found["problems"] if p["kind"] == "missing file"]
    assert problem["fix"] == f"check --root {root} and --split val"


def test_paths_of_the_wrong_kind(broken):
    for name, other, message in (
        ("images", "annotations", "a file, where a folder must be"),
        ("masks", "annotations", "a file, where a folder must be"),
        ("annotations", "images", "a folder, where a file must be"),
    ):
        with pytest.raises(InputError, match=f"^--{name} .*: {message}; check"):
            validate(Paths(**{**broken, name: broken[other]}), workers=1)


@pytest.mark.parametrize("name", ["annotations", "images", "masks"])
def test_schemes_that_tensorflow_does_not_know(broken, name):
    with pytest.raises(InputError, match="nope"):
        validate(Paths(**{**broken, name: "nope://bucket/x"}), workers=1)


def test_the_json_is_read_once(broken, monkeypatch):
    read, data = [], broken["annotations"].read_bytes()

    def count(path):
        read.append(path)
        return data

    monkeypatch.setattr(source_module, "read_bytes", count)
    source = open_source(Paths(**broken))
    assert read == [broken["annotations"]]
    assert source.annotations_sha256 == hashlib.sha256(data).hexdigest()
