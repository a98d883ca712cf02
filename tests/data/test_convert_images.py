"""What conversion makes of images of every kind and orientation."""

from __future__ import annotations

import io
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cmt.data.checks.report import validate
from cmt.data.panoptic.masks import write_ids
from cmt.data.panoptic.registry import Paths
from cmt.data.records.manifest import Manifest
from cmt.data.records.reader import decode_example
from cmt.errors import InputError
from tests.data.conversions import convert
from tests.data.records import read_records


def records(folder: pathlib.Path, manifest: Manifest) -> list[bytes]:
    return [
        record
        for shard in manifest.shards
        for record in read_records(folder / shard.name)
    ]


def photo(height: int, width: int) -> Image.Image:
    """Smooth, so that JPEG hardly changes it, and different in every corner."""
    rows, columns = np.mgrid[:height, :width]
    planes = rows * 200 // height, columns * 200 // width, (rows + columns) % 60
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def one_image(folder: pathlib.Path, image: bytes, shape: tuple[int, int]) -> dict:
    """A data set of one image; its mask is 1 above, 2 below, unequal in size."""
    ids = np.full(shape, 5, np.int32)
    ids[: shape[0] // 3] = 9
    areas = {5: int((ids == 5).sum()), 9: int((ids == 9).sum())}
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    (folder / "images" / "a.jpg").write_bytes(image)
    write_ids(folder / "masks" / "a.png", ids)
    content = {
        "categories": [
            {"id": 3, "name": "x", "isthing": 1},
            {"id": 4, "name": "y", "isthing": 0},
        ],
        "images": [
            {"id": 1, "file_name": "a.jpg", "height": shape[0], "width": shape[1]}
        ],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "a.png",
                "segments_info": [
                    {"id": 5, "category_id": 3, "area": areas[5]},
                    {"id": 9, "category_id": 4, "area": areas[9]},
                ],
            }
        ],
    }
    (folder / "panoptic.json").write_text(json.dumps(content))
    return {
        "images": folder / "images",
        "annotations": folder / "panoptic.json",
        "masks": folder / "masks",
    }


def saved(image: Image.Image, kind: str = "JPEG", orientation: int = 1) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind in ("JPEG", "MPO") else {}
    image.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


# How an image with each EXIF orientation is displayed: NumPy's flips and turns of
# what is stored.
_DISPLAYED = {
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientations_are_applied(tmp_path, orientation, kind):
    """Without loss: the pixels are those that the file stores, turned."""
    stored = photo(40, 60)
    content = saved(stored, kind, orientation)
    if kind == "JPEG":
        stored = Image.open(io.BytesIO(content))
    expected = _DISPLAYED[orientation](np.asarray(stored))
    sources = one_image(tmp_path, content, expected.shape[:2])
    exif = "auto" if orientation > 4 else "apply"
    out = tmp_path / "out"
    manifest = convert(**sources, output=out, split="val", exif=exif)
    (record,) = records(out, manifest)
    example = decode_example(tf.constant(record))
    np.testing.assert_array_equal(example.image.numpy(), expected)
    assert manifest.origin.exif == exif


@pytest.mark.parametrize(("orientation", "exif"), [(6, "auto"), (3, "ignore")])
def test_orientations_that_the_masks_ignore(tmp_path, orientation, exif):
    content = saved(photo(40, 60), orientation=orientation)
    sources = one_image(tmp_path, content, (40, 60))
    manifest = convert(**sources, output=tmp_path / "out", split="val", exif=exif)
    (record,) = records(tmp_path / "out", manifest)
    features = tf.train.Example.FromString(record).features.feature
    assert features["image/encoded"].bytes_list.value == [content]
    (note,) = [
        note
        for note in validate(Paths(**sources, exif=exif)).notes
        if note.image == "a.jpg"
    ]
    assert note.kind == "orientation" and f"orientation is {orientation}" in note.line


@pytest.mark.parametrize(("orientation", "size"), [(3, (40, 60)), (6, (50, 50))])
def test_orientations_that_the_size_does_not_tell(tmp_path, orientation, size):
    content = saved(photo(*size), orientation=orientation)
    sources = one_image(tmp_path, content, size)
    with pytest.raises(InputError, match=r"EXIF orientation.*--exif ignore"):
        convert(**sources, output=tmp_path / "out", split="val")
    assert list(validate(Paths(**sources)).kinds()) == ["orientation"]


def test_other_kinds_of_images(tmp_path):
    rgb = photo(41, 60)
    sixteen = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 256)
    cases = {
        "CMYK image": (saved(rgb.convert("CMYK")), rgb),
        "grey image": (saved(rgb.convert("L")), rgb.convert("L")),
        "16 bits": (saved(sixteen, "PNG"), rgb.convert("L")),
        "palette": (saved(rgb.quantize(256), "PNG"), rgb),
        "WebP": (saved(rgb, "WEBP"), rgb),
    }
    for number, (case, (content, expected)) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        sources = one_image(folder, content, (41, 60))
        manifest = convert(**sources, output=folder / "out", split="val")
        (record,) = records(folder / "out", manifest)
        features = tf.train.Example.FromString(record).features.feature
        assert features["image/format"].bytes_list.value == [b"png"], case
        encoded = Image.open(io.BytesIO(features["image/encoded"].bytes_list.value[0]))
        assert encoded.mode == "RGB", case
        difference = np.asarray(encoded, int) - np.asarray(expected.convert("RGB"), int)
        assert np.abs(difference).mean() < 6, case
        kinds = set(validate(Paths(**sources)).note_kinds()) - {
            "category ids with gaps"
        }
        named = {"CMYK image": case, "grey image": case, "16 bits": "grey image"}
        other = set() if case == "WebP" else {"image that is not RGB"}
        assert kinds == ({named[case]} if case in named else other), case


def test_a_jpeg_with_pictures_behind_it_is_kept(tmp_path):
    buffer = io.BytesIO()
    photo(40, 60).save(buffer, "MPO", save_all=True, append_images=[photo(20, 30)])
    content = buffer.getvalue()
    sources = one_image(tmp_path, content, (40, 60))
    manifest = convert(**sources, output=tmp_path / "out", split="val")
    (record,) = records(tmp_path / "out", manifest)
    features = tf.train.Example.FromString(record).features.feature
    assert features["image/encoded"].bytes_list.value == [content]
    assert decode_example(tf.constant(record)).image.shape == (40, 60, 3)


def test_images_that_no_reader_would_take(tmp_path, monkeypatch):
    sources = one_image(tmp_path, saved(photo(40, 60)), (40, 60))
    monkeypatch.setattr("cmt.io.png.MAX_PIXELS", 2399)
    with pytest.raises(
        InputError, match=r"a\.jpg: .*at most 2399 pixels .*; got 40x60"
    ):
        convert(**sources, output=tmp_path / "out", split="val")


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_images_that_cannot_be_made_rgb(tmp_path, mode):
    buffer = io.BytesIO()
    Image.new(mode, (60, 40)).save(buffer, "TIFF")
    sources = one_image(tmp_path, buffer.getvalue(), (40, 60))
    with pytest.raises(InputError, match=f"its mode must be RGB .*; got {mode};"):
        convert(**sources, output=tmp_path / "out", split="val")


def test_what_cannot_be_encoded_again_is_a_fault_of_the_image(tmp_path, monkeypatch):
    """Not an error that ends the conversion."""

    def fail(*_):
        raise OSError("image file is truncated")

    sources = one_image(tmp_path, saved(photo(40, 60).convert("L")), (40, 60))
    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(
        InputError, match=r"a\.jpg: cannot be read: image file is truncated; down"
    ):
        convert(**sources, output=tmp_path / "out", split="val", workers=1)
