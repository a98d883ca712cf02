"""One image path: conversion, prediction and the graph decode a file alike."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from cmt.data.records.reader import decode_example
from cmt.data.records.tfrecord import encode_example
from cmt.io.decode import decode_image, jpeg_orientation
from cmt.io.images import ENDINGS, FORMATS, decode_rgb, read_image
from cmt.io.png import ImageFault
from cmt.serving.inputs import decode_file, find_inputs

ORIENTATION = 0x0112


def picture(height: int = 40, width: int = 56) -> Image.Image:
    """Smooth colours, no two corners alike: JPEG changes them little."""
    y, x = np.mgrid[:height, :width]
    planes = [255 * x / width, 255 * y / height, 128 + 0 * x]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def saved(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x010F] = "a camera"  # an entry before it
    found[ORIENTATION] = orientation
    return found


in_graph = tf.function(
    decode_image,
    autograph=False,
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32)],
)


def decoders(content: bytes) -> dict[str, np.ndarray]:
    return {
        "conversion": np.asarray(read_image(content).decode()),
        "prediction": decode_file(content),
    }


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_alike(orientation):
    upright = picture()
    stored = upright
    # Those that store an upright picture as this orientation turns it back.
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    if back is not None:
        stored = upright.transpose(Image.Transpose(back))
    for form, options in (
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
    ):
        content = saved(stored, form, exif=exif(orientation), **options)
        found = decoders(content)
        if form == "JPEG":
            found["graph"] = in_graph(content, 0).numpy()
        for name, pixels in found.items():
            assert pixels.shape == (40, 56, 3), (form, name)
            apart = np.abs(pixels.astype(int) - np.asarray(upright))
            assert apart.max() <= (4 if form == "JPEG" else 0), (form, name)
            # Whatever JPEG lost, all see the same pixels.
            np.testing.assert_array_equal(pixels, found["prediction"], name)


def tiff(order: str, kind: int, value: int, entries: int = 1) -> bytes:
    """A TIFF directory as EXIF has it; the tag is its last entry."""
    endian = {"II": "little", "MM": "big"}[order]

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, endian)

    head = order.encode() + number(42, 2) + number(8, 4) + number(entries, 2)
    other = number(0x0100, 2) + number(4, 2) + number(1, 4) + number(6, 4)
    size = 2 if kind == 3 else 4
    tag = number(ORIENTATION, 2) + number(kind, 2) + number(1, 4)
    return head + other * (entries - 1) + tag + number(value, size).ljust(4, b"\0")


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


PLAIN = saved(picture(), "JPEG")


def with_segments(*segments: bytes) -> bytes:
    return PLAIN[:2] + b"".join(segments) + PLAIN[2:]


@pytest.mark.parametrize(
    ("order", "kind", "entries"), list(itertools.product(("II", "MM"), (3, 4), (1, 5)))
)
def test_the_graph_reads_exif_as_pillow_does(order, kind, entries):
    for value in (1, 6, 8):
        app1 = segment(0xE1, b"Exif\0\0" + tiff(order, kind, value, entries))
        content = with_segments(
            segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0 other"),
            segment(0xFE, b"a comment"),
            app1,
        )
        with Image.open(io.BytesIO(content)) as image:
            assert image.getexif().get(ORIENTATION) == value
        assert int(jpeg_orientation(content)) == value


def test_damaged_exif_is_none_and_ends():
    good = tiff("II", 3, 6)
    damaged = [
        b"",
        b"II",
        good[:10],
        good[:-6],
        b"XX" + good[2:],
        good[:4] + b"\xff\xff\xff\xff" + good[8:],
        good[:4] + b"\xff\xff\xff\x7f" + good[8:],
        good[:8] + b"\0\0" + good[10:],
        tiff("II", 3, 0),
        tiff("II", 3, 9),
    ]
    for content in damaged:
        jpeg = with_segments(segment(0xE1, b"Exif\0\0" + content))
        assert int(jpeg_orientation(jpeg)) == 1, content
        assert in_graph(jpeg, 0).shape == (40, 56, 3)
    # A directory that says it has more entries than there are is read as far as it is.
    long = good[:8] + b"\xff\xff" + good[10:]
    jpeg = with_segments(segment(0xE1, b"Exif\0\0" + long))
    assert int(jpeg_orientation(jpeg)) == 6
    for end in range(2, 60):
        assert int(jpeg_orientation(with_segments(segment(0xE1, good))[:end])) == 1
    random = np.random.default_rng(0)
    for _ in range(50):
        noise = random.integers(0, 256, random.integers(1, 60), np.uint8).tobytes()
        jpeg = with_segments(segment(0xE1, b"Exif\0\0MM" + noise))
        assert 1 <= int(jpeg_orientation(jpeg)) <= 8


def sixteen_bits() -> Image.Image:
    grey = np.asarray(picture().convert("L")).astype(np.uint16)
    return Image.fromarray(grey * 256 + 77)


COLOURS = {
    "grey": lambda: picture().convert("L"),
    "bilevel": lambda: picture().convert("1"),
    "palette": lambda: picture().quantize(64),
    "opacity": lambda: Image.merge(
        "RGBA", [*picture().split(), picture().convert("L").rotate(180)]
    ),
    "grey with opacity": lambda: picture().convert("LA"),
    "16 bits": sixteen_bits,
}
GRAPH = ("JPEG", "PNG")


@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_means_the_same(colour):
    image = COLOURS[colour]()
    if colour == "16 bits":
        expected = np.repeat(np.asarray(picture().convert("L"))[..., None], 3, -1)
    else:
        expected = np.asarray(image.convert("RGB"))
    content = saved(image, "PNG")
    found = decoders(content) | {"graph": in_graph(content, 0).numpy()}
    for name, pixels in found.items():
        np.testing.assert_array_equal(pixels, expected, err_msg=name)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("quality", [50, 95, 100])
def test_a_jpeg_has_the_same_pixels_everywhere(mode, quality):
    random = np.random.default_rng(0).normal(0, 20, (40, 56, 3))
    noisy = np.clip(np.asarray(picture()) + random, 0, 255).astype(np.uint8)
    content = saved(Image.fromarray(noisy).convert(mode), "JPEG", quality=quality)
    expected = np.asarray(read_image(content).decode())
    for pixels in (decode_file(content), in_graph(content, 0).numpy()):
        np.testing.assert_array_equal(pixels, expected)
    if mode == "RGB":
        labels = np.zeros(noisy.shape[:2], np.int32)
        record = encode_example(
            name="a", image=content, image_format="jpeg", labels=labels
        )
        np.testing.assert_array_equal(decode_example(record, 3).image, expected)


@pytest.mark.parametrize("form", sorted(set(FORMATS) - {"JPEG"}))
def test_every_format(form):
    options = {"lossless": True} if form == "WEBP" else {}
    content = saved(picture(), form, **options)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    for name, pixels in decoders(content).items():
        np.testing.assert_array_equal(pixels, expected, err_msg=name)
    if form in GRAPH:
        np.testing.assert_array_equal(in_graph(content, 0), expected)
    else:
        rule = rf"JPEG or PNG file.* index\] \[7\] \[with bytes\] \[{len(content)}\]"
        with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
            in_graph(content, 7)


def test_the_first_frame_of_a_moving_picture():
    frames = [picture(), ImageOps.invert(picture())]
    for form in ("GIF", "TIFF", "WEBP", "MPO"):
        options = {"lossless": True} if form == "WEBP" else {}
        content = saved(
            frames[0], form, save_all=True, append_images=frames[1:], **options
        )
        for name, pixels in decoders(content).items():
            apart = np.abs(pixels.astype(int) - np.asarray(picture()))
            assert apart.mean() < 6, (form, name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"text", "no known image format"),
        (saved(picture(), "PNG")[:-30], "truncated|cut off|ends"),
        (PLAIN[:-200], "cut off|truncated"),
        (saved(Image.new("F", (5, 5)), "TIFF"), "mode must be RGB or one of"),
    ],
)
def test_what_is_no_image_says_why(content, reason):
    with pytest.raises(ImageFault, match=reason):
        decode_file(content)
    with pytest.raises(ImageFault, match=reason):
        read_image(content)
    with pytest.raises(ImageFault, match=reason):
        decode_rgb(content)


def test_images_of_a_folder_are_those_of_every_format_but_no_hidden_ones(tmp_path):
    names = [f"{number}{ending}" for number, ending in enumerate(ENDINGS)]
    names.append("upper.TIF")
    for name in (*names, "._0.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"anything")
    assert [file.name for file in find_inputs([str(tmp_path)])] == sorted(names)
    pattern = find_inputs([str(tmp_path / "*")])
    assert [file.name for file in pattern] == sorted(names)
    hidden = tmp_path / ".hidden.png"
    assert find_inputs([str(hidden)]) == [hidden]
