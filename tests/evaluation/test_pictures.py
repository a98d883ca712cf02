"""Overlays and sheets, checked by their pixels."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cmt.errors import InputError
from cmt.evaluation import pictures
from cmt.evaluation.curves import plot_learning_curve
from cmt.outputs import LayerPredictions, Predictions
from cmt.pictures import heat, overlay
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
    assert row == 8.5 and 13 <= column <= 27 and depth == 4


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


def test_captions_are_below_their_pictures():
    red = np.full([10, 10, 3], (255, 0, 0), np.uint8)
    plain = contact_sheet([[red], [red]], cell_pixels=50, gap_pixels=4)
    sheet = contact_sheet(
        [[red], [red]], captions=[["one"], [""]], cell_pixels=50, gap_pixels=4
    )
    assert sheet.shape == (plain.shape[0] + 2 * 20, *plain.shape[1:])
    below = sheet[54:74], sheet[128:148]
    assert (below[0] != 255).any() and (below[1] == 255).all()
    np.testing.assert_array_equal(sheet[4:54], plain[4:54])
    np.testing.assert_array_equal(sheet[78:128], plain[58:108])


def test_resampling_keeps_corners_and_is_linear():
    values = np.array([[0.0, 4.0, 8.0], [2.0, 6.0, 10.0]])
    expected = np.array([[0, 2, 4, 6, 8], [1, 3, 5, 7, 9], [2, 4, 6, 8, 10]])
    np.testing.assert_allclose(heat.resample(values, (3, 5)), expected)
    both = heat.resample(np.stack([values, -values], -1), (3, 5))
    np.testing.assert_allclose(both, np.stack([expected, -expected], -1))
    # Half of the width: what is right of it is padding.
    valid = heat.resample(values, (3, 3), valid_share=(1, 0.5))
    np.testing.assert_allclose(valid, expected[:, :3])
    # One row or column is repeated.
    np.testing.assert_allclose(heat.resample(values[:1, :1], (2, 2)), np.zeros([2, 2]))


def test_sure_pixels_have_their_centers_colour():
    image = np.full([8, 8, 3], 100, np.uint8)
    colors = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    assignment = np.array([[[1.0, 0.0], [0.75, 0.25], [0.5, 0.5], [0.0, 1.0]]])
    picture = heat.draw_assignment(image, assignment, colors)[0]
    shadow = 255 - 0.45 * 155
    for pixel, opacity, color in zip(
        picture, (0.85, 0.425, 0, 0.85), colors[[0, 0, 0, 1]], strict=True
    ):
        expected = opacity * color + (1 - opacity) * shadow
        np.testing.assert_allclose(pixel, expected, atol=1)


def test_heat_is_bright_where_weights_are_and_the_mask_is_outlined():
    image = np.full([40, 60, 3], 100, np.uint8)
    weights = np.zeros([40, 60])
    weights[10, 20], weights[30, 50] = 0.02, 0.01
    picture = heat.draw_heat(image, weights)
    np.testing.assert_array_equal(picture[0, 0], [45] * 3)
    assert picture[10, 20].sum() > picture[30, 50].sum() > 2 * picture[0, 0].sum()
    # It is shares that are drawn.
    np.testing.assert_array_equal(heat.draw_heat(image, 7 * weights), picture)
    mask = np.zeros([40, 60], bool)
    mask[5:15, 5:15] = True
    changed = (heat.draw_heat(image, weights, mask) != picture).any(-1)
    assert changed[4:6, 10].all() and changed[14:16, 10].all()
    assert not changed[7:13, 7:13].any() and not changed[:, 20:].any()
    assert (heat.draw_heat(image, 0 * weights) == 45).all()


IMAGE = np.full([96, 96, 3], 50, np.uint8)


def sure(assignment: np.ndarray) -> np.ndarray:
    """Affinity logits of a hard assignment."""
    return 20.0 * (assignment[..., np.newaxis] == np.arange(3))


def sheet_row(**changes) -> pictures.SheetRow:
    assignment = np.zeros([6, 6], np.int64)
    assignment[:, 3:] = 2
    assignment[4:] = 1  # padding
    row = pictures.SheetRow(
        image=IMAGE,
        ground_truth=IMAGE,
        prediction=IMAGE,
        affinity_logits=[sure(assignment)],
        reference_points=[np.array([[[0.25, 0.25], [0.25, 0.75]]])],
        centers=np.array([2]),
        valid_share=(3 / 5, 1.0),
    )
    return row._replace(**changes)


def test_clustering_sheet_shows_assignment_and_points():
    sheet = pictures.clustering_sheet([sheet_row()], num_centers=3)
    assert sheet.shape == (24 + 6 + 246, 6 + 5 * 246, 3)
    colors = pictures.center_colors(3)
    top, left = 24 + 6, 6 + 3 * 246
    shadow = 0.15 * (255 - 0.45 * 205)
    for y in (10, 120, 230):
        for x, center in ((60, 0), (180, 2)):
            expected = 0.85 * colors[center] + shadow
            np.testing.assert_allclose(sheet[top + y, left + x], expected, atol=2)
    # The first point: a quarter of the crop is 0.417 of the image's height.
    point = sheet[top + round(0.417 * 240), left + 246 + 60].astype(int)
    assert np.abs(point - colors[2]).max() < 60


def test_another_layer_gives_another_picture():
    first = np.zeros([6, 6], np.int64)
    second = first.copy()
    second[2:, 2:] = 1
    unsure = 0.05 * sure(second)
    layers = [sure(first), sure(second), unsure]
    row = sheet_row(affinity_logits=layers, reference_points=[])
    sheet = pictures.clustering_sheet([row], num_centers=3)
    assert sheet.shape[1] == 6 + 6 * 246  # No column for points.
    one, two, three = (
        sheet[30:270, left : left + 240].astype(int)
        for left in range(6 + 3 * 246, sheet.shape[1], 246)
    )
    changed = np.abs(one - two).max(-1) > 30
    assert changed[150:, 150:].all() and not changed[:60].any()
    # The same clusters, less sure: paler.
    assert (np.ptp(three, axis=-1) < 0.75 * np.ptp(two, axis=-1)).mean() > 0.9


def focus(**changes) -> pictures.Focus:
    mask = np.zeros([24, 24])
    mask[12:, 12:] = 1
    weights = np.zeros([2, 6, 6])
    weights[0, 1, 1] = 0.3
    weights[1, 4, 4] = 0.3
    pixels = mask[::4, ::4] > 0.5
    return pictures.Focus(mask, pixels, list(weights), [weights[1]] * 2)._replace(
        **changes
    )


def test_attention_sheet_has_a_row_for_attention_and_one_for_clustering():
    row = sheet_row(focus=focus(), valid_share=(1.0, 1.0))
    sheet = pictures.attention_sheet([sheet_row(), row])
    # The image without a focus is left out.
    assert sheet.shape == (24 + 6 + 2 * 266, 6 + 3 * 246, 3)
    cells = [
        [sheet[y : y + 240, x : x + 240].astype(int) for x in (6, 252, 498)]
        for y in (30, 296)
    ]
    hot = [
        [np.unravel_index(cell.sum(-1).argmax(), [240, 240]) for cell in line[1:]]
        for line in cells
    ]
    upper, lower = (1 / 5 * 240, 1 / 5 * 240), (4 / 5 * 240, 4 / 5 * 240)
    np.testing.assert_allclose(hot, [[upper, lower], [lower, lower]], atol=3)
    np.testing.assert_array_equal(cells[1][1], cells[1][2])


def test_attention_sheet_without_clustering_and_in_kmeans():
    for missing in ("assignment", "attention"):
        row = sheet_row(focus=focus(**{missing: []}))
        sheet = pictures.attention_sheet([row])
        assert sheet.shape == (24 + 6 + 266, 6 + 3 * 246, 3)
    assert (pictures.attention_sheet([sheet_row()])[24:] == 255).all()


def test_an_explanation_has_layers_beside_each_other_and_points_over_masks():
    masks = np.zeros([24, 24, 3])
    masks[:, :12, 0] = masks[:, 12:, 2] = 20
    whole = {"focus": focus(), "valid_share": (1.0, 1.0), "mask_logits": masks}
    row = sheet_row(ground_truth=None, **whole)
    sheet = pictures.explanation_sheet(row)
    assert sheet.shape == (24 + 6 + 3 * 326, 6 + 4 * 306, 3)

    def cell(line, column):
        top, left = 30 + line * 326, 6 + column * 306
        return sheet[top : top + 300, left : left + 300].astype(int)

    colors, shadow = pictures.center_colors(3), 0.15 * (255 - 0.45 * 205)
    for line, column in ((0, 2), (1, 0)):  # of the layer, and the final masks
        for x, center in ((30, 0), (270, 2)):
            expected = 0.85 * colors[center] + shadow
            np.testing.assert_allclose(cell(line, column)[20, x], expected, atol=2)
    # A reference point and its dark edge; the mask's colour is around both.
    point = cell(1, 0)[75 - 8 : 75 + 9, 75 - 8 : 75 + 9]
    np.testing.assert_allclose(point[8, 8], colors[2], atol=30)
    assert point.sum(-1).min() < 150
    hot = [cell(line, 2).sum(-1).argmax() for line in (1, 2)]
    places = [np.unravel_index(place, [300, 300]) for place in hot]
    np.testing.assert_allclose(places, [(60, 60), (240, 240)], atol=3)
    assert (cell(2, 0) == 255).all()


def test_an_explanation_shows_what_a_network_has():
    masks = np.zeros([24, 24, 3])
    for changes, lines, columns in (
        ({"focus": focus(attention=[])}, 2, 4),  # k-means
        ({"focus": focus(assignment=[]), "affinity_logits": []}, 2, 4),
        ({"reference_points": []}, 2, 3),  # no center is confident
    ):
        row = sheet_row(mask_logits=masks, **changes)
        sheet = pictures.explanation_sheet(row)
        assert sheet.shape == (24 + 6 + lines * 326, 6 + columns * 306, 3)


def layers_of_a_network(height: int, width: int, centers: int) -> LayerPredictions:
    rng = np.random.default_rng(3)
    return LayerPredictions(
        tf.constant(rng.normal(size=[1, height, width, centers]), tf.float32),
        tf.constant(rng.uniform(size=[1, centers, 4, 2]), tf.float32),
        tf.constant(rng.uniform(size=[1, 2, centers, height, width]), tf.float32),
    )


def test_a_row_is_about_the_largest_thing():
    # Center 0 is grass and owns most, 1 and 3 are balls, 2 is unsure.
    owners = np.zeros([1, 17, 21], np.int64)
    owners[0, 2:5, 2:5], owners[0, 6:16, 6:16], owners[0, 8:16, 16:] = 1, 3, 2
    class_logits = np.zeros([1, 4, 5], np.float32)
    class_logits[0, [0, 1, 3], [1, 0, 0]] = 9
    class_logits[0, 2, 4] = 9
    layer = layers_of_a_network(5, 6, 4)
    predictions = Predictions(
        mask_logits=tf.constant(9.0 * (owners[..., np.newaxis] == np.arange(4))),
        class_logits=tf.constant(class_logits),
        pixel_features=None,
        semantic_logits=None,
        layers=(layer, layer),
    )
    image = np.zeros([65, 81, 3], np.uint8)
    labels = np.zeros([65, 81], np.int32)

    def make(given: Predictions) -> pictures.SheetRow:
        return pictures.make_row(
            image,
            ground_truth=labels,
            panoptic=labels,
            predictions=given,
            categories=fakes.CATEGORIES,
            confidence=0.5,
            size=np.array([33, 81]),
            crop_size=(65, 81),
        )

    row = make(predictions)
    np.testing.assert_array_equal(row.centers, [0, 1, 3])
    assert row.valid_share == (0.5, 1.0)
    assert len(row.affinity_logits) == len(row.focus.attention) == 2
    np.testing.assert_array_equal(row.focus.mask > 0.5, owners[0] == 3)
    np.testing.assert_array_equal(row.focus.pixels, owners[0, ::4, ::4] == 3)
    mean = layer.center_attention.numpy()[0, :, 3].mean(0)
    np.testing.assert_allclose(row.focus.attention[1], mean)
    assigned = tf.nn.softmax(layer.affinity_logits, axis=-1)[0, ..., 3]
    np.testing.assert_allclose(row.focus.assignment[0], assigned, rtol=1e-5)
    # Both sheets take it; where nobody is sure there is nothing to look at.
    assert pictures.clustering_sheet([row], num_centers=4).shape[1] == 6 + 6 * 246
    assert pictures.attention_sheet([row]).shape == (30 + 2 * 266, 6 + 3 * 246, 3)
    unsure = predictions._replace(class_logits=tf.zeros([1, 4, 5]))
    assert make(unsure).focus is None


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
