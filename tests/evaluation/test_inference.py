"""One path from images to panoptic maps, whatever the size, the batch, the door."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cmt.data.input.preprocess import resize_and_pad
from cmt.data.panoptic.categories import read_categories, write_categories
from cmt.errors import InputError
from cmt.serving.inputs import decode_file
from cmt.serving.predictor import PanopticPredictor
from tests import fakes

SIZES = [(65, 81), (50, 100), (130, 37), (23, 29)]


def _image_outputs(outputs: dict, index: int) -> dict[str, np.ndarray]:
    """The outputs of one image, cut to its size."""
    found = {name: value.numpy()[index] for name, value in outputs.items()}
    height, width = found["sizes"]
    found["panoptic"] = found["panoptic"][:height, :width]
    return found


def _assert_equal(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_predict_finds_the_segments(predictor):
    found = _image_outputs(predictor.predict(fakes.make_image(65, 81)[None]), 0)
    panoptic = found["panoptic"]
    assert panoptic.dtype == np.int32 and panoptic.shape == (65, 81)
    # Stuff has instance 0; the two balls are two instances of category 7.
    assert panoptic[2, 70] == 90000 and panoptic[62, 70] == 3000
    assert panoptic[20, 4] // 1000 == 7 and panoptic[20, 30] // 1000 == 7
    assert panoptic[20, 4] != panoptic[20, 30]
    assert panoptic[20, 60] // 1000 == 12
    values = np.unique(panoptic)
    np.testing.assert_array_equal(np.sort(found["segment_ids"]), values[values > 0])
    np.testing.assert_array_equal(found["category_ids"], found["segment_ids"] // 1000)
    things = {category.id: category.is_thing for category in fakes.CATEGORIES}
    expected = [things[int(number)] for number in found["category_ids"]]
    np.testing.assert_array_equal(found["is_thing"], expected)
    assert (found["scores"] > 0.5).all() and (found["scores"] <= 1).all()


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batches_and_doors_agree(predictor, batch_size):
    images = [fakes.make_image(*SIZES[0], shift=7 * i) for i in range(batch_size)]
    as_batch = predictor.predict(np.stack(images))
    as_bytes = predictor.predict_bytes([fakes.encode(image) for image in images])
    as_float = predictor.predict(np.stack(images).astype(np.float32))
    for index, image in enumerate(images):
        alone = _image_outputs(predictor.predict(image[None]), 0)
        for outputs in (as_batch, as_bytes, as_float):
            _assert_equal(_image_outputs(outputs, index), alone)


def test_mixed_sizes_and_formats(predictor):
    images = [fakes.make_image(*size) for size in SIZES]
    kinds = ["PNG", "JPEG", "PNG", "JPEG"]
    files = [fakes.encode(i, kind) for i, kind in zip(images, kinds, strict=True)]
    outputs = predictor.predict_bytes(files)
    assert outputs["panoptic"].shape == (4, 130, 100)
    np.testing.assert_array_equal(outputs["sizes"], SIZES)
    for index, file in enumerate(files):
        height, width = SIZES[index]
        panoptic = outputs["panoptic"][index].numpy()
        assert not panoptic[height:].any() and not panoptic[:, width:].any()
        assert panoptic[:height, :width].any()
        decoded = decode_file(file)
        _assert_equal(
            _image_outputs(outputs, index),
            _image_outputs(predictor.predict(decoded[None]), 0),
        )


def test_evaluation_crops_agree(predictor):
    images = [fakes.make_image(*size) for size in SIZES]
    crops, resized = zip(
        *(resize_and_pad(tf.constant(i), fakes.CROP_SIZE) for i in images), strict=True
    )
    outputs = predictor.predict_crops(
        tf.stack(crops), tf.stack(resized), tf.constant(SIZES)
    )
    for index, image in enumerate(images):
        _assert_equal(
            _image_outputs(outputs, index),
            _image_outputs(predictor.predict(image[None]), 0),
        )


def test_segments_lost_in_resizing_are_not_listed():
    """A tiny image is enlarged to the crop; on the way back segments can vanish."""
    predictor = fakes.make_predictor()
    crop = np.full([1, *fakes.CROP_SIZE, 3], fakes.GREEN, np.float32)
    crop[0, 16:44, 16:44] = fakes.RED
    sizes = tf.constant([[*fakes.CROP_SIZE]])
    whole = predictor.predict_crops(crop, sizes, sizes)
    assert np.count_nonzero(whole["segment_ids"]) == 2
    small = predictor.predict_crops(crop, sizes, tf.constant([[2, 2]]))
    np.testing.assert_array_equal(small["panoptic"][0], [[3000, 3000]] * 2)
    np.testing.assert_array_equal(small["segment_ids"][0], [3000, 0, 0, 0, 0])
    np.testing.assert_array_equal(small["category_ids"][0], [3, 0, 0, 0, 0])
    assert small["scores"][0, 0] > 0.5 and not small["scores"][0, 1:].numpy().any()
    assert not small["is_thing"].numpy().any()


def test_nothing_found_is_all_void(predictor):
    black = predictor.predict(np.zeros([1, 40, 40, 3], np.uint8))
    # Black is nearest to the centers of dark colours; white to none well enough.
    assert black["panoptic"].shape == (1, 40, 40)
    options = {**predictor.merge_options, "thing_confidence": 1.0}
    strict = PanopticPredictor(
        predictor.network,
        crop_size=predictor.crop_size,
        categories=predictor.categories,
        merge_options={**options, "stuff_confidence": 1.0},
    )
    empty = strict.predict(np.zeros([1, 40, 40, 3], np.uint8))
    for name in ("panoptic", "segment_ids", "category_ids", "scores", "is_thing"):
        assert not empty[name].numpy().any(), name


@pytest.mark.parametrize(
    "content", [b"", b"text, not an image", b"GIF89a....", b"\xff\xd8\xff\xe0 cut off"]
)
def test_undecodable_bytes(predictor, content):
    good = fakes.encode(fakes.make_image(9, 9))
    with pytest.raises(tf.errors.InvalidArgumentError):
        predictor.predict_bytes([good, content])


def test_the_error_names_the_image_and_what_it_must_be(predictor):
    good = fakes.encode(fakes.make_image(9, 9))
    rule = r"JPEG or PNG file.* at index\] \[1\] \[with bytes\] \[4\]"
    with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
        predictor.predict_bytes([good, b"text"])


def photo(orientation: int) -> bytes:
    """A JPEG that viewers show alike, whatever the orientation it is stored in."""
    image = Image.fromarray(fakes.make_image(64, 80))
    ways = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    if orientation in ways:
        image = image.transpose(Image.Transpose(ways[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=100, subsampling=0, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_in_any_orientation_has_the_same_map(predictor, orientation):
    expected = predictor.predict(decode_file(photo(1))[None])["panoptic"].numpy()
    content = photo(orientation)
    from_bytes = predictor.predict_bytes([content])["panoptic"].numpy()
    from_file = predictor.predict(decode_file(content)[None])["panoptic"].numpy()
    for found in (from_bytes, from_file):
        assert found.shape == (1, 64, 80)
        assert (found == expected).mean() >= 0.99


def test_no_image_at_all(predictor):
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least one image"):
        predictor.predict_bytes(tf.zeros([0], tf.string))
    with pytest.raises(tf.errors.InvalidArgumentError, match="no size 0"):
        predictor.predict(np.zeros([1, 0, 5, 3], np.uint8))


@pytest.mark.parametrize("number", [0, -1, 16778])
def test_category_id_that_does_not_fit(number):
    categories = [fakes.CATEGORIES[0]._replace(id=number), *fakes.CATEGORIES[1:]]
    with pytest.raises(InputError, match="'ball' must be from 1"):
        PanopticPredictor(
            fakes.FakeNetwork(),
            crop_size=fakes.CROP_SIZE,
            categories=categories,
            merge_options=fakes.MERGE_OPTIONS,
        )


def test_categories_file(tmp_path):
    path = tmp_path / "run" / "categories.json"
    write_categories(path, fakes.CATEGORIES)
    assert read_categories(path) == fakes.CATEGORIES
    with pytest.raises(InputError, match="no such file"):
        read_categories(tmp_path / "other.json")
    path.write_text("[{}]")
    with pytest.raises(InputError, match="not a list of categories"):
        read_categories(path)
