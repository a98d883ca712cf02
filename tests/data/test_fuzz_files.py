"""Damaged images and masks: what the checks accept, training can decode."""

from __future__ import annotations

import collections
import pathlib
import resource
import time
import warnings

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.convert.encode import EncodingOptions, encode_image
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import PanopticImage, Segment
from cmt.data.panoptic.masks import read_ids
from cmt.data.panoptic.registry import Paths
from cmt.data.records.reader import decode_example
from cmt.errors import InputError
from tests.data import file_mutations as files
from tests.data import mutations

MAX_SECONDS = 2.0  # of the processor: others may hold it
MAX_MEGABYTES = 600
_FRAME = slice(12, -4)  # a record without its length and checksums


class Fuzz:
    """A data set of one image, whose files are damaged in turn."""

    def __init__(self, folder: pathlib.Path, seed: int):
        self.rng = np.random.default_rng(seed)
        self.kinds = collections.Counter()
        self._image, self._mask = folder / "a.img", folder / "a.png"
        self._good = files.good_images()
        self._good_mask, ids = files.good_mask()
        segments = [
            Segment(int(number), 1, files.WIDTH, False) for number in np.unique(ids)
        ]
        self._size = files.HEIGHT, files.WIDTH
        self._entry = PanopticImage(1, "a.img", "a.png", *self._size, segments)
        self._options = [
            EncodingOptions(
                Paths(str(folder), "", str(folder), exif=exif),
                [Category(1, "x", True, (0, 0, 0))],
                False,
            )
            for exif in ("ignore", "apply")
        ]

    def run(self, what: str, count: int) -> int:
        """Damages the image or the mask so often; returns how often it was accepted."""
        accepted = 0
        for number in range(count):
            good = self._good[self.rng.integers(len(self._good))]
            image, mask = (
                (self._damaged(good), self._good_mask)
                if what == "image"
                else (self._good[0], self._damaged(self._good_mask))
            )
            accepted += self._check(image, mask, self._options[number % 2])
        return accepted

    def _damaged(self, content: bytes) -> bytes:
        return files.mutated(self.rng, content, mutations.BYTES)

    def _check(self, image: bytes, mask: bytes, options: EncodingOptions) -> bool:
        self._image.write_bytes(image)
        self._mask.write_bytes(mask)
        start = time.process_time()
        encoded = encode_image(options, self._entry)
        if encoded.record is None:
            assert encoded.problems
            for problem in encoded.problems:
                assert problem.file in (str(self._image), str(self._mask))
                assert "\n" not in problem.line
                self.kinds[problem.kind] += 1
        else:
            example = decode_example(tf.constant(encoded.record[_FRAME]))
            assert example.image.shape == (*self._size, 3)
            assert example.labels.shape == self._size
            # All of the mask is segments, so void would be a wrong label.
            assert example.labels.numpy().min() > 0
        assert time.process_time() - start < MAX_SECONDS
        return encoded.record is not None


def test_good_files_are_accepted(tmp_path):
    fuzz = Fuzz(tmp_path, seed=0)
    mask, ids = files.good_mask()
    for image in files.good_images():
        # Those with an orientation are larger in height where it is applied.
        assert fuzz._check(image, mask, fuzz._options[0])
    np.testing.assert_array_equal(read_ids(tmp_path / "a.png"), ids)


def test_damaged_images(tmp_path):
    fuzz = Fuzz(tmp_path, seed=0)
    assert 60 < fuzz.run("image", 300) < 180
    assert {"truncated file", "damaged file", "not an image"} <= set(fuzz.kinds)


def test_damaged_masks(tmp_path):
    fuzz = Fuzz(tmp_path, seed=1)
    assert 20 < fuzz.run("mask", 200) < 120
    assert {"truncated file", "damaged file", "too large"} <= set(fuzz.kinds)


@pytest.mark.slow
def test_ten_thousand_files(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fuzz = Fuzz(tmp_path, seed=2)
    assert 2000 < fuzz.run("image", 8000) < 5000
    assert 200 < fuzz.run("mask", 2000) < 1200
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (peak - before) / 1024 < MAX_MEGABYTES


def damage(change) -> bytes:
    """A PNG with other chunks, each with the right checksum."""
    good = files.saved("RGB", "PNG")
    some = files.chunks(good)
    change(some)
    return good[:8] + b"".join(files.chunk(*one) for one in some)


PNG = files.saved("RGB", "PNG")
JPEG = files.saved("RGB", "JPEG")
HEADER = PNG[16:29]
# What was done to a file, the file, the kind and a part of the reason.
DAMAGES = {
    "no IEND": (PNG[:-12], "truncated file", "must close with IEND"),
    "a byte less": (PNG[:-1], "truncated file", "IEND"),
    "cut in the pixels": (PNG[:-30], "truncated file", "inside chunk IDAT"),
    "empty": (b"", "truncated file", "ends after 0 bytes"),
    "IEND's checksum": (PNG[:-1] + b"x", "damaged file", "IEND does not fit"),
    "IDAT's checksum": (PNG[:-13] + b"x" + PNG[-12:], "damaged file", "IDAT does not"),
    "two IHDR": (
        damage(lambda some: some.insert(1, some[0])),
        "damaged file",
        "IHDR must come first, and once",
    ),
    "IHDR behind the pixels": (
        damage(lambda some: some.insert(2, some[0])),
        "damaged file",
        "IHDR must come first, and once",
    ),
    "another chunk first": (
        damage(lambda some: some.insert(0, (b"tEXt", b"a\0b"))),
        "damaged file",
        "IHDR must come first",
    ),
    "checksum of a text": (
        damage(lambda some: some.insert(2, (b"tEXt", b"a\0b"))).replace(
            b"a\0b", b"a\0c"
        ),
        "damaged file",
        "tEXt does not fit",
    ),
    "unknown critical chunk": (
        damage(lambda some: some.insert(2, (b"XXXX", b""))),
        "damaged file",
        "XXXX is none of the format",
    ),
    "chunk without a name": (
        damage(lambda some: some.insert(2, (b"a1b2", b""))),
        "damaged file",
        "has no name",
    ),
    "unknown compression": (
        damage(lambda some: some.__setitem__(0, (b"IHDR", HEADER[:10] + b"\1\0\0"))),
        "damaged file",
        "header has values",
    ),
    "no checksum of the pixels": (
        damage(lambda some: some.__setitem__(1, (b"IDAT", some[1][1][:-4]))),
        "damaged file",
        "got 2576, without end",
    ),
    "a row less": (
        damage(
            lambda some: some.__setitem__(
                1, (b"IDAT", files.zlib.compress(b"\0" * 112 * 22))
            )
        ),
        "damaged file",
        "must take 2576 bytes; got 2464",
    ),
    "impossible filter": (
        damage(
            lambda some: some.__setitem__(
                1, (b"IDAT", files.zlib.compress(b"\x05" * 2576))
            )
        ),
        "damaged file",
        "impossible filter",
    ),
    "other chunks between the pixels": (
        damage(
            lambda some: some.__setitem__(
                slice(1, 2),
                [
                    (b"IDAT", some[1][1][:20]),
                    (b"tEXt", b"a\0b"),
                    (b"IDAT", some[1][1][20:]),
                ],
            )
        ),
        "damaged file",
        "other chunks come between",
    ),
    "two palettes": (
        damage(lambda some: some.__setitem__(slice(1, 1), [(b"PLTE", b"abc")] * 2)),
        "damaged file",
        "palette is empty or comes twice",
    ),
    "no palette": (
        damage(lambda some: some.insert(1, (b"PLTE", b""))),
        "damaged file",
        "palette is empty or comes twice",
    ),
    "no pixels": (damage(lambda some: some.pop(1)), "damaged file", "no pixels"),
    "huge PNG": (
        mutations.png_with_size(PNG, 100_000, 100_000),
        "too large",
        "got 100000x100000",
    ),
    "huge JPEG": (
        mutations.jpeg_with_size(JPEG, 65_535, 65_535),
        "too large",
        "more pixels than Pillow reads",
    ),
    "JPEG without end": (JPEG[:-2], "truncated file", "must close with FF D9"),
    "JPEG cut in the middle": (JPEG[:-40], "truncated file", "FF D9"),
    "JPEG cut in a table": (JPEG[:100], "truncated file", "FF D9"),
    "JPEG whose last marker leads beyond it": (
        JPEG[:-2] + b"\xff\xef\xe5\x15" + JPEG[-2:],
        "truncated file",
        "FF D9",
    ),
    "JPEG in a JPEG": (
        JPEG[:2] + JPEG,
        "damaged file",
        "another JPEG begins",
    ),
    "JPEG segment without length": (
        JPEG.replace(b"\xff\xdb\x00\x43", b"\xff\xdb\x00\x01"),
        "damaged file",
        "impossible length",
    ),
    "lossless JPEG": (
        JPEG.replace(b"\xff\xc0", b"\xff\xc3"),
        "damaged file",
        "baseline or progressive; got marker FFC3",
    ),
    "BMP cut off": (files.saved("RGB", "BMP")[:-50], "truncated file", "truncated"),
    "PCX": (files.saved("RGB", "PCX"), "not an image", "no known image format"),
    "text": (b"hello", "not an image", "no known image format"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damages_of_images(tmp_path, case):
    content, kind, reason = DAMAGES[case]
    fuzz = Fuzz(tmp_path, seed=0)
    mask, _ = files.good_mask()
    assert not fuzz._check(content, mask, fuzz._options[0])
    (problem,) = encode_image(fuzz._options[0], fuzz._entry).problems
    assert problem.kind == kind
    assert reason in problem.message
    assert problem.file == str(tmp_path / "a.img")


@pytest.mark.parametrize(
    "content",
    [PNG + b"junk", JPEG + b"junk" * 99, JPEG + JPEG[:50]],
    ids=["PNG", "JPEG", "part of a JPEG"],
)
def test_what_follows_the_end_does_no_harm(tmp_path, content):
    fuzz = Fuzz(tmp_path, seed=0)
    mask, _ = files.good_mask()
    assert fuzz._check(content, mask, fuzz._options[0])


@pytest.mark.parametrize("exif", [b"MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03", b"MM\0*"])
def test_damaged_metadata_is_no_fault_and_says_nothing(tmp_path, exif):
    png = damage(lambda some: some.insert(1, (b"eXIf", exif)))
    fuzz = Fuzz(tmp_path, seed=0)
    mask, _ = files.good_mask()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fuzz._check(png, mask, fuzz._options[0])


@pytest.mark.parametrize("extra", [1, 111, 2000])
def test_more_pixels_than_declared_do_no_harm(tmp_path, extra):
    compressed = files.zlib.compress(b"\0" * (2576 + extra))
    png = damage(lambda some: some.__setitem__(1, (b"IDAT", compressed)))
    fuzz = Fuzz(tmp_path, seed=0)
    mask, _ = files.good_mask()
    assert fuzz._check(png, mask, fuzz._options[0])


def test_a_png_of_gigabytes_is_refused_at_once(tmp_path):
    compressed = files.zlib.compress(b"\0" * 2**27)
    png = damage(lambda some: some.__setitem__(1, (b"IDAT", compressed)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fuzz = Fuzz(tmp_path, seed=0)
    mask, _ = files.good_mask()
    assert not fuzz._check(png, mask, fuzz._options[0])
    assert fuzz.kinds == {"damaged file": 1}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (peak - before) / 1024 < 200


@pytest.mark.parametrize("passes", [False, True])
def test_interlaced_images(tmp_path, passes):
    """Seven passes: Pillow reads them, but cannot write them."""
    rows = files.picture()
    parts = []
    for top, left, down, right in (
        *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
        *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
    ):
        parts += [b"\0" + row.tobytes() for row in rows[top::down, left::right]]
    if passes:
        parts.pop()
    stream = files.zlib.compress(b"".join(parts))

    def change(some):
        some[0] = (b"IHDR", HEADER[:12] + b"\1")
        some[1] = (b"IDAT", stream)

    fuzz = Fuzz(tmp_path, seed=0)
    mask, _ = files.good_mask()
    assert fuzz._check(damage(change), mask, fuzz._options[0]) != passes


MASK, _IDS = files.good_mask()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (MASK[:-12], "must close with IEND"),
        (MASK[:-1] + b"x", "IEND does not fit"),
        (MASK.replace(b"IDAT", b"IDAU"), "does not fit its checksum"),
        (mutations.png_with_size(MASK, 100_000, 100_000), "got 100000x100000"),
        (files.saved("P", "PNG"), r"got a palette PNG of 8 bits"),
        (files.saved("L", "PNG"), r"id = R \+ 256 G \+ 65536 B; got a grey PNG of 8"),
        (files.png_of_depth_16(), "got an RGB PNG of 16 bits"),
        (JPEG, "must be a PNG; got a JPEG"),
    ],
)
def test_damages_of_masks(tmp_path, content, reason):
    path = tmp_path / "mask.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as error:
        read_ids(path)
    assert str(error.value).startswith(f"{path}: ")
