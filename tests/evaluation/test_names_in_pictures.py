"""Names of classes in pictures, in whatever letters."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cmt.pictures import overlay


def write(name: str, number: int = 7) -> np.ndarray:
    """A picture of one segment of a class of this name."""
    picture = Image.new("RGB", (300, 100))
    overlay._write_names(picture, np.full([100, 300], number * 1000), {number: name})
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("дом", "кот"),
        ("ψ", "φ"),
        ("تفاحة", "برتقال"),
        ("כלב", "חתול"),
        ("café", "cafe"),
    ],
)
def test_pictures_write_names_of_other_alphabets(one, other):
    assert overlay.can_write(one)
    for same in (other, "7", "\ufffd" * len(one)):
        assert (write(one) != write(same)).any()


@pytest.mark.parametrize(
    "name", ["猫", "猫 cat", "🚗", "हाथी", "two\nlines", "a\ud800"]
)
def test_id_and_escapes_stand_for_a_name_whose_letters_pictures_have_not(name):
    label = overlay.drawn_name(7, name)
    assert label.startswith("7 ") and label.isascii() and label.isprintable()
    np.testing.assert_array_equal(write(name), write(label))
    assert (write(name) != write(name, 8)).any()
    assert (write(name) != write("犬")).any()


def test_leftward_names_need_a_layout_that_turns_them(monkeypatch):
    monkeypatch.setattr(overlay.features, "check", lambda name: False)
    overlay.can_write.cache_clear()
    try:
        assert overlay.can_write("дом") and not overlay.can_write("تفاحة")
    finally:
        overlay.can_write.cache_clear()


def test_a_name_that_is_too_long_shows_its_beginning():
    end = "w" * 60
    assert (write(f"first {end}") != write(f"other {end}")).any()


def test_pictures_are_drawn_without_tensorflow():
    script = """
import sys
import numpy as np
from cmt.evaluation.pictures import draw_overlay
from cmt.data.panoptic.categories import Category
image = np.zeros((40, 40, 3), np.uint8)
draw_overlay(image, np.full((40, 40), 1001), [Category(1, "猫", True, (200, 0, 0))])
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-X", "utf8", "-c", script], check=True)
