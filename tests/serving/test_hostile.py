"""Files that a server may be sent: a right answer, or an error that names the image."""

from __future__ import annotations

import io
import re
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cmt.data.panoptic.masks import check_mask, color_ids, decode_mask
from cmt.io.png import MAX_PIXELS
from cmt.serving.inputs import decode_file
from tests import fakes

InvalidArgument = tf.errors.InvalidArgumentError
GOOD = fakes.encode(fakes.make_image(20, 30))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(height: int, width: int) -> Image.Image:
    return Image.fromarray(fakes.make_image(height, width))


def sixteen_bits() -> bytes:
    grey = np.asarray(scene(40, 50).convert("L")).astype(np.uint16)
    return saved(Image.fromarray(grey * 257), "PNG")


ANSWERED = {
    "1 x 1": lambda: saved(scene(1, 1), "PNG"),
    "1 x 5000": lambda: saved(scene(1, 5000), "PNG"),
    "5000 x 1": lambda: saved(scene(5000, 1), "JPEG"),
    "3000 x 2000": lambda: saved(scene(3000, 2000), "JPEG"),
    "grey": lambda: saved(scene(40, 50).convert("L"), "JPEG"),
    "CMYK": lambda: saved(scene(40, 50).convert("CMYK"), "JPEG"),
    "progressive": lambda: saved(scene(40, 50), "JPEG", progressive=True),
    "16 bits": sixteen_bits,
    "bilevel": lambda: saved(scene(40, 50).convert("1"), "PNG"),
    "opacity": lambda: saved(scene(40, 50).convert("RGBA"), "PNG"),
    "animated": lambda: saved(
        scene(40, 50), "PNG", save_all=True, append_images=[scene(40, 50).rotate(90)]
    ),
    "more behind the end": lambda: saved(scene(40, 50), "JPEG") + b"and a trailer",
}


@pytest.mark.parametrize("kind", ANSWERED)
def test_odd_images_are_answered_as_offline(predictor, kind):
    content = ANSWERED[kind]()
    image = decode_file(content)
    expected = predictor.predict(image[None])
    # Beside another, whose answer stays what it is.
    maps = predictor.predict_bytes([GOOD, content])
    pngs = predictor.predict_png([GOOD, content])
    height, width = image.shape[:2]
    assert maps["sizes"].numpy().tolist() == [[20, 30], [height, width]]
    assert maps["panoptic"].shape == (2, max(height, 20), max(width, 30))
    content = pngs["panoptic_png"][1].numpy()
    for found in (
        maps["panoptic"][1, :height, :width],
        color_ids(decode_mask(content, check_mask(content))),
    ):
        np.testing.assert_array_equal(found, expected["panoptic"][0])
    for outputs in (maps, pngs):
        np.testing.assert_array_equal(outputs["scores"][1], expected["scores"][0])


@pytest.mark.slow
def test_a_very_large_photo(predictor):
    content = saved(scene(6000, 8000), "JPEG")
    found = predictor.predict_png([content, GOOD])
    assert found["sizes"].numpy().tolist() == [[6000, 8000], [20, 30]]
    content = found["panoptic_png"][0].numpy()
    ids = color_ids(decode_mask(content, check_mask(content)))
    small = predictor.predict_png([GOOD])["panoptic_png"][0]
    assert ids.shape == (6000, 8000) and found["panoptic_png"][1] == small


def png(height: int, width: int, pixels: bytes = b"") -> bytes:
    """A PNG whose header declares a size, with any pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        length, end = struct.pack(">I", len(content)), struct.pack(">I", checksum)
        return length + kind + content + end

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return head + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def jpeg(height: int, width: int) -> bytes:
    """A JPEG whose header declares a size."""
    content = saved(scene(40, 50), "JPEG")
    place = content.index(b"\xff\xc0") + 5
    size = struct.pack(">HH", height, width)
    return content[:place] + size + content[place + 4 :]


PHOTO, DRAWING = saved(scene(40, 50), "JPEG"), saved(scene(40, 50), "PNG")
REFUSED = {
    "empty": (b"", "must be a JPEG or PNG file"),
    "text": (b"text, not an image", "must be a JPEG or PNG file"),
    "GIF": (saved(scene(9, 9), "GIF"), "must be a JPEG or PNG file"),
    "head of a JPEG": (PHOTO[:3], "damaged"),
    "half a JPEG": (PHOTO[: len(PHOTO) // 2], "damaged"),
    "JPEG without its end": (PHOTO[:-40], "damaged"),
    "head of a PNG": (DRAWING[:8], "damaged"),
    "half a PNG": (DRAWING[: len(DRAWING) // 2], "damaged"),
    "PNG without pixels": (png(40, 50), "damaged"),
    "PNG of no size": (png(0, 50), "damaged"),
    "PNG of a negative size": (png(2**31 + 7, 50), "damaged"),
    "JPEG of no size": (jpeg(0, 50), "damaged"),
    "PNG bomb": (png(60_000, 60_000, bytes(10**6)), f"at most {MAX_PIXELS} pixels"),
    "JPEG bomb": (jpeg(65_500, 65_500), f"at most {MAX_PIXELS} pixels"),
    "long bomb": (png(1, 2**20, bytes(3 * 2**20)), "65500 a side"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("index", [0, 2])
def test_bad_files_are_refused_by_their_index(predictor, kind, index):
    content, reason = REFUSED[kind]
    files = [GOOD, GOOD, GOOD]
    files[index] = content
    for run in (predictor.predict_bytes, predictor.predict_png):
        with pytest.raises(InvalidArgument, match=rf"{reason}.*index\] \[{index}\]"):
            run(files)


@pytest.mark.parametrize("content", [PHOTO, DRAWING], ids=["JPEG", "PNG"])
def test_no_damage_ends_in_anything_else(predictor, content):
    random = np.random.default_rng(0)
    answered = 0
    for _ in range(60):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), random.integers(1, 4)):
            damaged[place] = random.integers(256)
        if random.random() < 0.3:
            del damaged[random.integers(len(damaged)) :]
        try:
            outputs = predictor.predict_bytes([bytes(damaged), GOOD])
        except InvalidArgument as error:
            assert re.search(r"at index\] \[0\]", error.message), error.message
        else:
            answered += 1
            height, width = outputs["sizes"][0].numpy()
            assert outputs["panoptic"].shape == (2, max(height, 20), max(width, 30))
    # Most JPEGs can be decoded with wrong bytes in them; a PNG has checksums.
    assert (20 < answered < 60) if content is PHOTO else answered < 20


def test_requests_that_would_fill_the_memory_are_refused(predictor):
    # Two files of some hundred bytes, padded to 65,000 x 65,000 pixels together.
    row, column = saved(scene(1, 65_000), "PNG"), saved(scene(65_000, 1), "PNG")
    with pytest.raises(InvalidArgument, match="maps of a request must have at most"):
        predictor.predict_bytes([row, column])
    found = predictor.predict_png([row, column])
    assert found["sizes"].numpy().tolist() == [[1, 65_000], [65_000, 1]]
    most = 2**26 // (fakes.CROP_SIZE[0] * fakes.CROP_SIZE[1])
    with pytest.raises(InvalidArgument, match=f"at most {most} images"):
        predictor.predict_bytes([GOOD] * (most + 1))
    with pytest.raises(InvalidArgument, match=f"at most {most} images"):
        predictor.predict(np.zeros([most + 1, 1, 1, 3], np.uint8))


@pytest.mark.parametrize("shape", [(0, 5, 5, 3), (1, 0, 5, 3), (1, 5, 0, 3)])
def test_images_of_no_size(predictor, shape):
    with pytest.raises(InvalidArgument, match="no size 0"):
        predictor.predict(np.zeros(shape, np.uint8))
