"""Overlays and sheets, checked by their pixels."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from PIL import Image

from cmt.errors import InputError
from cmt.evaluation import pictures
from cmt.evaluation.curves import plot_learning_curve
from cmt.pictures import overlay
from cmt.pictures.sheet import contact_sheet, save_picture
from tests import fakes


def test_colors_differ_within_a_class_and_between():
    panoptic = np.array([[7001, 7002, 7003, 7004, 7005, 3000, 12001, 12002, 90000, 0]])
    colors = overlay.segment_colors(panoptic, fakes.CATEGORIES)
    assert set(colors) == set(panoptic[0].tolist()) - {0}
    assert colors[3000] == fakes.CATEGORIES[1].color
    assert colors[7001] == fakes.CATEGORIES[0].color
    for left, right in itertools.combinations(colors.values(), 2):
        assert math.dist(left, right) >= 40


def test_overlay_pixels():
    image = np.full([100, 120, 3], 100, np.uint8)
    panoptic = np.zeros([100, 120], np.int32)
    panoptic[20:60, 30:90] = 7001
    picture = overlay.draw_overlay(
        image, panoptic, fakes.CATEGORIES, names=False, enlarge=False
    )
    assert picture.shape == image.shape and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[5, 5], [100, 100, 100])  # void
    expected = 0.45 * np.array([100] * 3) + 0.55 * np.array([220, 40, 40])
    np.testing.assert_allclose(picture[40, 60], expected, atol=1)
    # The contour is where the right or lower neighbour is another segment.
    for row, column in ((19, 60), (59, 60), (40, 29), (40, 89)):
        np.testing.assert_array_equal(picture[row, column], [255, 255, 255])
    assert (picture == 255).all(-1).sum() == 2 * 60 + 2 * 40 - 1  # a corner is both


def test_small_images_are_enlarged_and_names_are_inside():
    image = np.zeros([97, 97, 3], np.uint8)
    panoptic = np.zeros([97, 97], np.int32)
    panoptic[30:70, 20:80] = 12001
    plain = overlay.draw_overlay(image, panoptic, fakes.CATEGORIES, names=False)
    named = overlay.draw_overlay(image, panoptic, fakes.CATEGORIES)
    assert plain.shape == named.shape == (485, 485, 3)
    rows, columns = np.nonzero((plain != named).any(-1))
    assert rows.size > 100
    assert rows.min() >= 150 and rows.max() < 350
    assert columns.min() >= 100 and columns.max() < 400
    # Legible: white letters of some height.
    assert rows.max() - rows.min() >= 12
    assert (named[rows, columns] == 255).all(-1).sum() > 30


def test_names_do_not_cover_each_other():
    labels = np.zeros([60, 60], np.int32)
    labels[::2] = 7001
    labels[1::2] = 12001
    picture = Image.new("RGB", (60, 60))
    overlay._write_names(picture, labels, {7: "one", 12: "another one"})
    once = Image.new("RGB", (60, 60))
    overlay._write_names(
        once, np.where(labels == 7001, 7001, 0), {7: "one", 12: "another one"}
    )
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(once))


def test_innermost_pixel():
    mask = np.zeros([30, 40], bool)
    mask[5:12, 10:31] = True
    row, column, depth = overlay._innermost(mask)
    assert row == 8 and 13 <= column <= 27 and depth == 4


def test_center_colors_are_different():
    colors = pictures.center_colors(128)
    assert colors.shape == (128, 3) and colors.dtype == np.uint8
    assert len(np.unique(colors, axis=0)) == 128


def test_contact_sheet_places_pictures():
    red = np.full([10, 20, 3], (255, 0, 0), np.uint8)
    blue = np.full([20, 10, 3], (0, 0, 255), np.uint8)
    sheet = contact_sheet(
        [[red, blue], [blue]], ["first", "second"], cell_pixels=50, gap_pixels=4
    )
    assert sheet.shape == (2 * 54 + 4 + 24, 2 * 54 + 4, 3)
    np.testing.assert_array_equal(sheet[24 + 4 + 25, 4 + 25], (255, 0, 0))
    np.testing.assert_array_equal(sheet[24 + 4 + 25, 4 + 54 + 25], (0, 0, 255))
    np.testing.assert_array_equal(sheet[24 + 4 + 54 + 25, 4 + 25], (0, 0, 255))
    np.testing.assert_array_equal(sheet[24 + 4 + 54 + 25, 4 + 54 + 25], (255,) * 3)


def test_clustering_sheet_shows_assignment_and_points():
    image = np.full([96, 96, 3], 50, np.uint8)
    assignment = np.zeros([6, 6], np.int64)
    assignment[:, 3:] = 2
    assignment[4:] = 1  # padding
    row = pictures.SheetRow(
        image=image,
        ground_truth=image,
        prediction=image,
        assignments=[assignment],
        reference_points=[np.array([[[0.25, 0.25], [0.25, 0.75]]])],
        centers=np.array([2]),
        valid_share=(4 / 6, 1.0),
    )
    sheet = pictures.clustering_sheet([row], num_centers=3)
    assert sheet.shape == (24 + 6 + 246, 6 + 5 * 246, 3)
    colors = pictures.center_colors(3)
    top, left = 24 + 6, 6 + 3 * 246
    for y in (10, 120, 230):
        np.testing.assert_array_equal(sheet[top + y, left + 60], colors[0])
        np.testing.assert_array_equal(sheet[top + y, left + 180], colors[2])
    # The first point: a quarter of the crop is 0.375 of the image's height.
    point = sheet[top + round(0.375 * 240), left + 246 + 60].astype(int)
    assert np.abs(point - colors[2]).max() < 60


def test_save_picture(tmp_path):
    picture = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    save_picture(tmp_path / "new" / "a.png", picture)
    np.testing.assert_array_equal(Image.open(tmp_path / "new" / "a.png"), picture)


def test_learning_curve(tmp_path):
    lines = [
        {"step": s, "total": 9.0 / s, "pq_mask": 3.0 / s, "learning_rate": 1e-3 / s}
        for s in range(1, 9)
    ]
    lines[-1]["validation/total"] = 2.0
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plot_learning_curve(metrics, tmp_path / "curve.png")
    pixels = np.asarray(Image.open(tmp_path / "curve.png").convert("RGB"))
    assert pixels.shape[0] > 400 and pixels.shape[1] > 800
    assert (pixels != 255).any(-1).mean() > 0.01


@pytest.mark.parametrize("text", ["", "not json\n", "[1, 2]\n", '{"loss": 1}\n'])
def test_learning_curve_refuses(tmp_path, text):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(text)
    with pytest.raises(InputError, match="metrics.jsonl"):
        plot_learning_curve(metrics, tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()
    with pytest.raises(InputError, match="no such file"):
        plot_learning_curve(tmp_path / "missing.jsonl", tmp_path / "curve.png")
