"""`cmt predict`: inputs found, files written, bad files named."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from cmt.cli.predict import predict
from cmt.data.panoptic.masks import read_ids
from cmt.errors import InputError, WorkError
from cmt.serving import factory
from cmt.serving.inputs import find_inputs
from cmt.serving.predict import (
    image_ids,
    output_names,
    parse_formats,
    predict_files,
)
from cmt.serving.saved_model import Segmenter, find_saved_model, load_saved_model
from tests import fakes

NO_IMAGE = "cannot be read: it has no known image format"


@pytest.fixture
def segmenter(predictor):
    return Segmenter(predictor.predict, fakes.CATEGORIES, fakes.CROP_SIZE)


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
    assert outcome.unreadable[0][1] == NO_IMAGE
    results = json.loads((output / "predictions.json").read_text())
    wrong = {"file": str(folder / "wrong.jpg"), "reason": NO_IMAGE}
    assert results == {"images": outcome.images, "skipped": [wrong]}
    results = results["images"]
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


def test_overlays_as_jpeg_and_arrays(segmenter, folder, tmp_path, predictor):
    files = find_inputs([str(folder / "b.PNG")])
    formats = ["overlay-jpeg", "overlay", "npz"]
    (entry,) = predict_files(segmenter, files, tmp_path, formats=formats).images
    assert entry["overlay"] == "overlays/b.jpg" and entry["arrays"] == "npz/b.npz"
    with Image.open(tmp_path / "overlays" / "b.jpg") as image:
        assert image.format == "JPEG"
        jpeg = np.asarray(image).astype(int)
    lossless = np.asarray(Image.open(tmp_path / "overlays" / "b.png"))
    assert jpeg.shape == lossless.shape and np.abs(jpeg - lossless).mean() < 4
    outputs = predictor.predict_bytes([files[0].read_bytes()])
    with np.load(tmp_path / "npz" / "b.npz") as arrays:
        assert set(arrays.files) == set(outputs)
        for name, value in outputs.items():
            np.testing.assert_array_equal(arrays[name], value[0])


@pytest.fixture
def many(tmp_path) -> Path:
    """Twenty images of two sizes, one after the other, and one damaged among them."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(20):
        size = (40, 60) if number % 2 else (61, 33)
        content = fakes.encode(fakes.make_image(*size, shift=number))
        (folder / f"{number:02}.png").write_bytes(content[: None if number - 5 else 99])
    return folder


def test_images_of_one_size_run_together(segmenter, many, tmp_path):
    shapes = []

    def run(images):
        shapes.append(images.shape)
        return segmenter.run(images)

    files = find_inputs([str(many)])
    watched = segmenter._replace(run=run)
    together = predict_files(watched, files, tmp_path / "a")
    # The first, of 61 x 33, is not kept waiting.
    small, large = (40, 60, 3), (61, 33, 3)
    assert shapes[0] == (1, *large)
    expected = [(1, *small), (1, *large), (1, *large), (8, *small), (8, *large)]
    assert sorted(shapes) == expected
    # A network on large images gets them one by one.
    shapes.clear()
    alone = watched._replace(crop_size=(1100, 1100))
    alone = predict_files(alone, files, tmp_path / "b")
    assert {shape[0] for shape in shapes} == {1} and len(shapes) == 19
    # Whatever comes first out of the network, all is in the order of the files.
    names = [f"{number:02}" for number in range(20) if number != 5]
    for outcome, output in ((together, tmp_path / "a"), (alone, tmp_path / "b")):
        assert [Path(entry["file"]).stem for entry in outcome.images] == names
        assert [file.name for file, _ in outcome.unreadable] == ["05.png"]
        coco = json.loads((output / "panoptic.json").read_text())
        assert [Path(image["file_name"]).stem for image in coco["images"]] == names
        assert [Path(a["file_name"]).stem for a in coco["annotations"]] == names
    assert together.images == alone.images
    for name in names:
        paths = [tmp_path / out / "panoptic" / f"{name}.png" for out in "ab"]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_few_images_wait_for_others_of_their_size(
    segmenter, many, tmp_path, monkeypatch
):
    monkeypatch.setattr("cmt.serving.predict._WAITING_PIXELS", 3 * 40 * 60)
    batches = []
    watched = segmenter._replace(
        run=lambda images: batches.append(len(images)) or segmenter.run(images)
    )
    outcome = predict_files(watched, find_inputs([str(many)]), tmp_path / "out")
    assert len(outcome.images) == sum(batches) == 19
    assert max(batches) < 4


def test_a_failure_in_a_thread_stops_all_and_leaves_what_was(
    segmenter, many, tmp_path, monkeypatch
):
    files, output = find_inputs([str(many)]), tmp_path / "out"
    predict_files(segmenter, files, output, formats=["coco"])
    before = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cmt.data.panoptic.predictions.write_ids", fail)
    with pytest.raises(OSError, match="No space left"):
        predict_files(segmenter, files, output, formats=["coco"])
    assert {p: p.read_bytes() for p in output.rglob("*") if p.is_file()} == before
    assert len(list(output.iterdir())) == 3


def test_page(segmenter, folder, tmp_path):
    (folder / "a.jpg").rename(folder / "<a> & 100%.jpg")
    output = tmp_path / "out"
    predict_files(segmenter, find_inputs([str(folder)]), output, page=True)
    page = (output / "index.html").read_text()
    pictures = re.findall(r'<img loading="lazy" src="([^"]+)"', page)
    assert [unquote(picture) for picture in pictures] == [
        "overlays/<a> & 100%.png",
        "overlays/b.png",
    ]
    assert all((output / unquote(picture)).is_file() for picture in pictures)
    assert "&lt;a&gt; &amp; 100%.jpg, 80 x 60" in page and "<a>" not in page
    assert re.findall(r'<option value="(\d+)">(\w+)<', page) == [
        ("7", "ball"),
        ("12", "cube"),
        ("3", "grass"),
        ("90", "sky"),
    ]
    assert 'data-classes="[3, 7, 12, 90]"' in page
    assert f"wrong.jpg: {NO_IMAGE}</li>" in page
    assert "http" not in page  # It loads nothing from elsewhere.
    with pytest.raises(InputError, match="must have overlay or overlay-jpeg; got coco"):
        predict_files(segmenter, [], output, formats=["coco"], page=True)


def test_parse_formats():
    assert parse_formats("overlay, coco") == ["overlay", "coco"]
    assert parse_formats("npz,overlay-jpeg") == ["npz", "overlay-jpeg"]
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


def test_command_prints_json_and_nothing_else(run, folder, tmp_path):
    output = tmp_path / "out"
    result = run("model", folder, "--output", output, "--json", "--html")
    assert isinstance(result.exception, WorkError)
    content = json.loads(result.stdout)
    assert content == json.loads((output / "predictions.json").read_text())
    assert len(content["images"]) == 2 and len(content["skipped"]) == 1
    assert (output / "index.html").is_file()


def test_command_refuses_a_page_of_nothing_before_the_model_is_opened(
    run, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(factory, "open_model", None)
    result = run("model", folder, "--output", tmp_path, "--format", "coco", "--html")
    assert isinstance(result.exception, InputError)
    assert "--html shows overlays" in str(result.exception)


def test_command_reports_what_is_no_image(run, folder, tmp_path):
    result = run("model", folder, "--output", tmp_path / "out")
    assert isinstance(result.exception, WorkError)
    assert "1 of 3 files" in str(result.exception)
    assert f"wrong.jpg: {NO_IMAGE}" in result.output
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
    assert f"wrong.jpg: {NO_IMAGE}" in str(result.exception)
    assert "segments" not in result.output
    after = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
    assert after == before


def test_command_makes_no_folder_for_nothing(run, folder, tmp_path):
    run("model", folder / "wrong.jpg", "--output", tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()
