"""The file for COCO's evaluation server: names, layout, and what is refused."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from cmt.config import parse_experiment
from cmt.data.panoptic.masks import read_ids
from cmt.errors import InputError
from cmt.evaluation.factory import open_test_set
from cmt.evaluation.submission import predict_test_set, set_name, write_submission
from cmt.serving.inputs import decode_file
from tests import fakes

SIZES = {7: (65, 81), 12: (48, 96), 300: (120, 60)}


def name_of(number: int) -> str:
    return f"{number:012}.png"


@pytest.fixture
def source(tmp_path):
    """A folder of images and their list, as COCO has them for its test sets."""
    (tmp_path / "test2017").mkdir()
    listed = []
    for number, size in SIZES.items():
        image = fakes.make_image(*size)
        (tmp_path / "test2017" / name_of(number)).write_bytes(fakes.encode(image))
        entry = {"id": number, "file_name": name_of(number), "license": 2}
        listed.append({**entry, "height": size[0], "width": size[1]})
    path = tmp_path / "image_info_test-dev2017.json"
    path.write_text(json.dumps({"images": listed, "categories": []}))
    return tmp_path / "test2017", path


def opened(images, listed):
    changes = [f'data.test.images="{images}"', f'data.test.list="{listed}"']
    return open_test_set(parse_experiment("", "c.textproto", changes))


def test_the_zip_is_what_the_server_documents(source, predictor, tmp_path):
    test_set = opened(*source)
    assert test_set.name == "test-dev2017"
    output = tmp_path / "out"
    predict_test_set(predictor, test_set, output, decode_file)
    path = write_submission(output, test_set.name, "tiny")
    assert path == output / "panoptic_test-dev2017_tiny_results.zip"
    pngs = [name_of(number) for number in SIZES]
    with zipfile.ZipFile(path) as packed:
        assert packed.testzip() is None
        stem = path.stem
        assert packed.namelist() == [f"{stem}.json", *(f"{stem}/{png}" for png in pngs)]
        content = json.loads(packed.read(f"{stem}.json"))
        packed.extractall(tmp_path / "unpacked")
    assert set(content) == {"annotations"}
    for entry, (number, size) in zip(
        content["annotations"], SIZES.items(), strict=True
    ):
        assert set(entry) == {"image_id", "file_name", "segments_info"}
        assert (entry["image_id"], entry["file_name"]) == (number, name_of(number))
        ids = read_ids(tmp_path / "unpacked" / stem / entry["file_name"])
        found = predictor.predict(fakes.make_image(*size)[np.newaxis])["panoptic"][0]
        np.testing.assert_array_equal(ids, found)
        infos = entry["segments_info"]
        assert all(set(info) == {"id", "category_id"} for info in infos)
        assert {info["id"] for info in infos} == {*np.unique(ids).tolist()} - {0}
        assert all(info["id"] // 1000 == info["category_id"] for info in infos)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/image_info_test-dev2017.json", "test-dev2017"),
        ("a/panoptic_val2017.json", "val2017"),
        ("gs://bucket/mine.json", "mine"),
    ],
)
def test_the_name_of_a_set_is_that_of_its_list(path, name):
    assert set_name(path) == name


def test_a_photo_is_taken_as_large_as_the_list_has_it(source, predictor, tmp_path):
    """COCO lists photos as they are stored, whatever their orientation says."""
    images, listed = source
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(fakes.make_image(48, 96)).save(buffer, "JPEG", exif=exif.tobytes())
    assert decode_file(buffer.getvalue()).shape == (96, 48, 3)
    (images / name_of(12)).write_bytes(buffer.getvalue())
    output = tmp_path / "out"
    predict_test_set(predictor, opened(images, listed), output, decode_file)
    assert read_ids(output / "predictions/panoptic" / name_of(12)).shape == (48, 96)


def another_size(images, listed):
    (images / name_of(12)).write_bytes(fakes.encode(fakes.make_image(48, 95)))


def no_image(images, listed):
    (images / name_of(12)).write_text("hello")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (another_size, r"000000000012\.png: is 95x48 pixels, and in the list 96x48"),
        (no_image, r"000000000012\.png: cannot be read"),
    ],
)
def test_images_that_do_not_fit_are_one_line(
    source, predictor, tmp_path, damage, message
):
    damage(*source)
    with pytest.raises(InputError, match=message):
        predict_test_set(predictor, opened(*source), tmp_path / "out", decode_file)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    ["{}", '{"images": []}', '{"images": [{"id": 1}]}', '{"images": [3]}', "[]", "{"],
)
def test_a_list_of_nothing_is_one_line(source, text):
    images, listed = source
    listed.write_text(text)
    with pytest.raises(InputError, match="image_info_test-dev2017.json: ") as caught:
        opened(images, listed)
    assert "\n" not in str(caught.value)


def test_missing_images_are_found_before_the_work(source):
    images, listed = source
    (images / name_of(300)).unlink()
    message = r"test2017: lacks 1 of the 3 images of .*: 000000000300\.png; set data\."
    with pytest.raises(InputError, match=message):
        opened(images, listed)


def test_a_test_set_must_be_named(source):
    experiment = parse_experiment("", "c.textproto", ['data.test.images="a"'])
    with pytest.raises(InputError, match=r"data\.test\.list is not set"):
        open_test_set(experiment)
