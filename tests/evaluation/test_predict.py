"""`cmt predict`: inputs found, files written, bad files named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from cmt.cli.predict import predict
from cmt.data.panoptic.masks import read_ids
from cmt.errors import InputError, WorkError
from cmt.serving import factory
from cmt.serving.predict import (
    find_inputs,
    image_ids,
    output_names,
    parse_formats,
    predict_files,
)
from cmt.serving.saved_model import Segmenter, find_saved_model, load_saved_model
from tests import fakes


@pytest.fixture
def segmenter(predictor):
    return Segmenter(predictor.predict, fakes.CATEGORIES)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two images, a file that is no image, one that only says so."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(fakes.encode(fakes.make_image(60, 80), "JPEG"))
    (folder / "b.PNG").write_bytes(fakes.encode(fakes.make_image(97, 40)))
    (folder / "notes.txt").write_text("nothing")
    (folder / "wrong.jpg").write_text("not an image")
    return folder


def test_find_inputs(folder, tmp_path):
    names = ["a.jpg", "b.PNG", "wrong.jpg"]
    everything = [folder / name for name in names]
    assert find_inputs([str(folder)]) == everything
    assert find_inputs([str(folder / "a.jpg"), str(folder)]) == everything
    assert find_inputs([str(folder / "*.jpg")]) == [everything[0], everything[2]]
    assert find_inputs([str(tmp_path / "**" / "[ab].*")]) == everything[:2]
    # A folder that is there is no pattern.
    inner = folder / "set[1]"
    inner.mkdir()
    (inner / "c.jpg").write_bytes((folder / "a.jpg").read_bytes())
    assert find_inputs([str(inner / "*.jpg")]) == [inner / "c.jpg"]
    assert find_inputs([str(inner / "[c]*")]) == [inner / "c.jpg"]
    # A file that is named itself is taken, whatever its ending.
    assert find_inputs([str(folder / "notes.txt")]) == [folder / "notes.txt"]


def test_missing_inputs(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for item, reason in (
        (folder / "c.jpg", "c.jpg: no such file or folder"),
        (empty, "empty: no image in this folder"),
        (folder / "*.gif", "no image fits this pattern"),
    ):
        with pytest.raises(InputError, match=reason.replace("*", r"\*")):
            find_inputs([str(folder / "a.jpg"), str(item)])


def test_files_written(segmenter, folder, tmp_path, predictor):
    output = tmp_path / "out"
    outcome = predict_files(segmenter, find_inputs([str(folder)]), output)
    assert [file.name for file, _ in outcome.unreadable] == ["wrong.jpg"]
    assert outcome.unreadable[0][1] == "cannot be read: it has no known image format"
    results = json.loads((output / "predictions.json").read_text())["images"]
    assert results == outcome.images
    assert [Path(entry["file"]).name for entry in results] == ["a.jpg", "b.PNG"]
    coco = json.loads((output / "panoptic.json").read_text())
    assert [entry["file_name"] for entry in coco["annotations"]] == ["a.png", "b.png"]
    for entry, (height, width) in zip(results, [(60, 80), (97, 40)], strict=True):
        name = Path(entry["file"]).stem
        ids = read_ids(output / "panoptic" / f"{name}.png")
        assert ids.shape == (height, width) and entry["size"] == [height, width]
        content = Path(entry["file"]).read_bytes()
        np.testing.assert_array_equal(
            ids, predictor.predict_bytes([content])["panoptic"][0]
        )
        found = {segment["id"]: segment for segment in entry["segments"]}
        values, areas = np.unique(ids[ids > 0], return_counts=True)
        assert sorted(found) == values.tolist()
        assert [found[v]["area"] for v in values.tolist()] == areas.tolist()
        assert found[3000]["category"] == "grass" and not found[3000]["isthing"]
        assert 0 < found[3000]["score"] <= 1
        overlay = np.asarray(Image.open(output / entry["overlay"]))
        assert overlay.shape[0] % height == 0 and overlay.shape[1] % width == 0
        assert (overlay == 255).all(-1).any()  # contours and names


def test_one_format(segmenter, folder, tmp_path):
    files = find_inputs([str(folder / "a.jpg")])
    predict_files(segmenter, files, tmp_path / "o", formats=["overlay"])
    assert {p.name for p in (tmp_path / "o").iterdir()} == {
        "overlays",
        "predictions.json",
    }
    predict_files(segmenter, files, tmp_path / "c", formats=["coco"])
    assert {p.name for p in (tmp_path / "c").iterdir()} == {
        "panoptic",
        "panoptic.json",
        "predictions.json",
    }


def test_parse_formats():
    assert parse_formats("overlay, coco") == ["overlay", "coco"]
    for text in ("", "png", "overlay,,coco"):
        with pytest.raises(InputError, match="--format must be one or more of"):
            parse_formats(text)


def test_names_and_ids():
    paths = [Path("a/1.jpg"), Path("b/1.jpg"), Path("b/1.png"), Path("c/x.png")]
    assert output_names(paths) == ["1", "1-2", "1-3", "x"]
    assert image_ids(["000139", "285"]) == [139, 285]
    assert image_ids(["1", "01"]) == [1, 2]
    assert image_ids(["1", "x"]) == [1, 2]


def test_highest_version_is_found(tmp_path):
    for version in ("2", "10", "9", "11"):
        (tmp_path / version).mkdir()
    for version in ("2", "10", "9"):
        (tmp_path / version / "saved_model.pb").touch()
    assert find_saved_model(tmp_path) == tmp_path / "10"
    assert find_saved_model(tmp_path / "9") == tmp_path / "9"
    assert find_saved_model(tmp_path / "11") is None
    assert find_saved_model(tmp_path / "none") is None


def test_models_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no such model"):
        factory.open_model(tmp_path / "none")
    with pytest.raises(InputError, match="neither a SavedModel"):
        factory.open_model(tmp_path)
    (tmp_path / "saved_model.pb").write_text("no protobuf")
    with pytest.raises(InputError, match="model.json: no such"):
        factory.open_model(tmp_path)
    (tmp_path / "model.json").write_text('{"categories": []}')
    with pytest.raises(InputError, match="not a model of `cmt export`"):
        load_saved_model(tmp_path)


@pytest.fixture
def run(segmenter, monkeypatch):
    """Runs the command with the fake network as any model."""
    monkeypatch.setattr(factory, "open_model", lambda *_: segmenter)
    app = typer.Typer()
    app.command()(predict)

    def invoke(*arguments):
        return CliRunner().invoke(app, list(map(str, arguments)))

    return invoke


def test_command(run, folder, tmp_path):
    output = tmp_path / "out"
    result = run("model", folder / "a.jpg", folder / "b.PNG", "--output", output)
    assert result.exit_code == 0, result.output
    assert "2 ball" in result.output and "grass" in result.output
    assert (output / "overlays" / "b.png").is_file()


def test_command_reports_what_is_no_image(run, folder, tmp_path):
    result = run("model", folder, "--output", tmp_path / "out")
    assert isinstance(result.exception, WorkError)
    assert "1 of 3 files" in str(result.exception)
    assert "wrong.jpg: cannot be read: it has no known image format" in result.output
    assert (tmp_path / "out" / "overlays" / "a.png").is_file()


def test_command_starts_nothing_if_an_input_is_missing(run, folder, tmp_path):
    result = run(
        "model", folder / "a.jpg", folder / "no.jpg", "--output", tmp_path / "out"
    )
    assert isinstance(result.exception, InputError)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("formats", ["overlay,coco", "coco", "overlay"])
def test_command_keeps_earlier_results_if_nothing_is_an_image(
    run, folder, tmp_path, formats
):
    output = tmp_path / "out"
    arguments = ("--output", output, "--format", formats)
    run("model", folder / "a.jpg", *arguments)
    before = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
    result = run("model", folder / "wrong.jpg", *arguments)
    assert isinstance(result.exception, InputError)
    assert "none of 1 files is an image" in str(result.exception)
    assert "wrong.jpg: cannot be read: it has no known image" in str(result.exception)
    assert "segments" not in result.output
    after = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
    assert after == before


def test_command_makes_no_folder_for_nothing(run, folder, tmp_path):
    run("model", folder / "wrong.jpg", "--output", tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()
