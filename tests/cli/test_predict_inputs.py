"""What `cmt predict` is given by habit or by mistake: subfolders, -, configs, URLs."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from cmt.errors import InputError
from cmt.serving.factory import open_model
from cmt.serving.inputs import find_inputs

IMAGES = "INPUTS are images, folders of them or patterns on this machine"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working folder: a run, a checkpoint without one, an export, photos."""
    for name in (
        "run/config.textproto",
        "run/checkpoints/step-2.index",
        "run/checkpoints/step-2.data-00000-of-00001",
        "alone/step-7.index",
        "export/1/saved_model.pb",
        "weights.keras",
        "mine.textproto",
        "photos/cats/a.jpg",
        "photos/cats/old/b.PNG",
        "photos/notes.txt",
        "photo.jpg",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


STEP = "run/checkpoints/step-2"
EXPORT = "`cmt export run/config.textproto --checkpoint {} --output models/NAME`"


@pytest.mark.parametrize(
    ("given", "what", "instead"),
    [
        (
            "scenes/tiny",
            "a config, which",
            "`cmt train scenes/tiny --output runs/NAME`",
        ),
        ("mine.textproto", "a config, which", "`cmt train mine.textproto --output"),
        ("run/config.textproto", "the config of a run", "give the run, run"),
        (STEP, "a checkpoint", f"give its run, run, for the .*{EXPORT.format(STEP)}"),
        (f"{STEP}.index", "a checkpoint", EXPORT.format(STEP)),
        (f"{STEP}.data-00000-of-00001", "a checkpoint", EXPORT.format(STEP)),
        ("run/checkpoints", "a folder of checkpoints", "give its run, run, for the"),
        (
            "alone/step-7",
            "a checkpoint",
            "`cmt export CONFIG --checkpoint alone/step-7",
        ),
        ("https://host/model", "a URL", "copy what it names to this machine"),
        ("weights.keras", "a file of Keras", "export a checkpoint"),
        ("export/1/saved_model.pb", "a file of a SavedModel", "its folder, export/1"),
    ],
)
def test_no_model_and_no_image(here, given, what, instead):
    with pytest.raises(InputError, match=rf" is {what}.*; .*{instead}"):
        open_model(given)
    with pytest.raises(InputError, match=f"^{given} is {what}.*{IMAGES}"):
        find_inputs(["photo.jpg", given])


def test_model_and_images_the_wrong_way_round(here):
    with pytest.raises(InputError, match="photo.jpg is a file, .*give the model first"):
        open_model("photo.jpg")
    for given in ("run", "export", "export/1"):
        with pytest.raises(
            InputError, match=f"^{given} is a model, .* after the model"
        ):
            find_inputs([given])


def test_images_in_subfolders_name_a_pattern_that_finds_them(here):
    with pytest.raises(
        InputError, match="in subfolders, such as photos/cats; "
    ) as told:
        find_inputs(["photos/"])
    assert "'photos/**/*'" in str(told.value)
    assert find_inputs(["photos/**/*"]) == [
        Path("photos/cats/a.jpg"),
        Path("photos/cats/old/b.PNG"),
    ]
    # Brackets of a folder's name mean themselves.
    odd = Path("my [old] photos")
    Path("photos").rename(odd)
    with pytest.raises(InputError) as told:
        find_inputs([str(odd)])
    pattern = str(told.value).split("'")[1]
    assert find_inputs([pattern])[0] == odd / "cats" / "a.jpg"


@pytest.mark.parametrize(
    "content",
    [
        b"photo.jpg\nphotos/cats\n",
        b"photo.jpg\r\n\r\nphotos/cats",
        b"photo.jpg\0photos/cats/a.jpg\0",
        b"photos/cats/*.jpg\n",
    ],
)
def test_standard_input_names_images(here, content, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    inner = Path("photos/cats/a.jpg")
    assert find_inputs(["photo.jpg", "-"]) == [Path("photo.jpg"), inner]


def test_standard_input_of_any_encoding(here, monkeypatch):
    name = b"caf\xe9.jpg"
    Path(os.fsdecode(name)).touch()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(name + b"\n")))
    assert find_inputs(["-"]) == [Path(os.fsdecode(name))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "standard input names no image"),
        (b"\n\n", "standard input names no image"),
        (b"photo.jpg\nnone.jpg\n", "none.jpg: no such file or folder"),
    ],
)
def test_standard_input_without_images(here, content, message, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(InputError, match=message):
        find_inputs(["-"])
