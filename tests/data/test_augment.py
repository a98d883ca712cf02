from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from cmt.data.input import preprocess
from cmt.data.input.augment import (
    Augmentation,
    View,
    draw_view,
    window_of_image,
    window_of_labels,
)
from cmt.data.input.preprocess import resize_and_pad

CROP = (33, 49)


def run(augmentation: Augmentation, number: int, image: np.ndarray, labels: np.ndarray):
    """The image and its labels, scaled, cropped, flipped and padded."""
    view = draw_view(
        tf.shape(labels),
        seed=tf.constant([5, number], tf.int64),
        crop_size=CROP,
        augmentation=augmentation,
    )
    window = window_of_image(tf.constant(image), view)
    image = preprocess.resize_image(window, view.size)
    labels = window_of_labels(tf.constant(labels), view)
    labels = preprocess.resize_labels(labels, view.size)
    return preprocess.pad_image(image, CROP), preprocess.pad_labels(labels, CROP)


@pytest.fixture
def pair():
    """A picture whose red channel is its label, so that the two must agree."""
    labels = np.zeros((33, 49), np.int32)
    labels[3:20, 5:12], labels[10:30, 25:45] = 90, 200
    image = np.repeat(labels[..., None], 3, -1).astype(np.uint8)
    return image, labels


def test_scale_one_is_the_evaluation(pair):
    image, labels = pair
    plain = Augmentation(1, 1, 0.1, 0)
    result, _ = run(plain, 0, image, labels)
    np.testing.assert_array_equal(result, resize_and_pad(tf.constant(image), CROP)[0])


def test_a_flip_is_a_flip_of_both(pair):
    image, labels = pair
    result, flipped = run(Augmentation(1, 1, 0.1, 1), 0, image, labels)
    np.testing.assert_array_equal(result, image[:, ::-1])
    np.testing.assert_array_equal(flipped, labels[:, ::-1])


def test_image_and_labels_stay_together(pair):
    augmentation = Augmentation(0.5, 2, 0, 0.5)
    for number in range(20):
        result, labels = run(augmentation, number, *pair)
        assert result.shape == (*CROP, 3)
        assert labels.shape == CROP
        difference = np.abs(result[..., 0].numpy() - labels.numpy())
        # The image blends at borders: by half of the highest step, 200, at most.
        inside = result[..., 0].numpy() != 127.5
        assert np.mean(difference[inside] > 101) < 0.01
        assert np.all(labels.numpy()[~inside] == 0)


def test_small_images_are_padded_at_the_bottom_and_right(pair):
    for number in range(4):
        result, _ = run(Augmentation(0.5, 0.5, 0, 0.5), number, *pair)
        padding = np.all(result.numpy() == 127.5, axis=-1)
        assert not padding[:16, :24].any()
        assert padding[17:].all()
        assert padding[:, 25:].all()


def test_scales_come_in_steps_up_to_the_largest(pair):
    image, labels = pair
    labels = np.ones_like(labels)
    widths = set()
    for number in range(60):
        _, result = run(Augmentation(0.4, 0.8, 0.2, 0), number, image, labels)
        widths.add(int(result.numpy().any(0).sum()))
    # 49 times 0.4, 0.6 and 0.8.
    assert widths == {20, 29, 39}


def test_what_is_drawn_depends_on_the_seed_alone(pair):
    augmentation = Augmentation(0.5, 1.5, 0.1, 0.5)
    first = run(augmentation, 1, *pair)[0].numpy()
    assert np.array_equal(first, run(augmentation, 1, *pair)[0])
    assert any(
        not np.array_equal(first, run(augmentation, number, *pair)[0])
        for number in range(2, 6)
    )


def draw_views(image_size, crop_size, augmentation: Augmentation, count: int) -> View:
    """The views of many seeds, as arrays."""

    @tf.autograph.experimental.do_not_convert
    def draw(number):
        return draw_view(
            tf.constant(image_size),
            seed=tf.stack([tf.constant(5, tf.int64), number]),
            crop_size=crop_size,
            augmentation=augmentation,
        )

    drawn = tf.data.Dataset.range(count).map(draw).batch(count)
    return View(*next(drawn.as_numpy_iterator()))


def test_every_window_inside_the_image_is_as_likely():
    """Of 60 x 90 pixels 40 x 60 are seen: at 21 x 31 places, the last ones too."""
    drawn = draw_views((60, 90), (40, 60), Augmentation(1.5, 1.5, 0, 0), 4000)
    assert np.all(drawn.size == [40, 60])
    assert np.all(drawn.extent == [40, 60])
    for starts, places in zip(drawn.start.T, (21, 31), strict=True):
        assert starts.min() == 0
        counts = np.bincount(starts)
        assert len(counts) == places
        np.testing.assert_allclose(counts, 4000 / places, rtol=0.4)


def test_the_parts_of_a_view_have_nothing_to_do_with_each_other():
    drawn = draw_views((401, 401), (101, 101), Augmentation(1.2, 2, 0, 0.25), 2000)
    room = 401 - drawn.extent
    places = drawn.start / room
    parts = np.stack([drawn.extent[:, 0], *places.T, drawn.flipped])
    correlations = np.corrcoef(parts)
    np.testing.assert_allclose(correlations, np.eye(4), atol=0.1)
    assert 0.21 < drawn.flipped.mean() < 0.29


def drawn_scales(augmentation: Augmentation, count: int) -> np.ndarray:
    """What sizes and windows say of the scales: a crop of 400 from 1001 pixels."""
    drawn = draw_views((1001, 1001), (400, 400), augmentation, count)
    size, extent = drawn.size[:, 0], drawn.extent[:, 0]
    np.testing.assert_array_equal(extent < 1001, (size == 400) & (extent < 1001))
    # Corners are aligned: between them there is one pixel less.
    return ((size - 1) * 1000 / (extent - 1) + 1) / 400


def test_scales_reach_both_ends_and_never_pass_them():
    scales = drawn_scales(Augmentation(0.5, 1.5, 0, 0), 3000)
    assert 0.497 < scales.min() < 0.505
    assert 1.495 < scales.max() < 1.503
    counts, _ = np.histogram(scales, 10, (0.5, 1.5))
    np.testing.assert_allclose(counts, 300, rtol=0.25)


def test_every_step_is_as_likely():
    """Steps as a config holds them: the float32 nearest to 0.1 is above it."""
    step = float(np.float32(0.1))
    scales = drawn_scales(Augmentation(0.5, 1.5, step, 0), 2200)
    tenths, counts = np.unique(np.round(scales * 10).astype(int), return_counts=True)
    np.testing.assert_allclose(scales, np.round(scales, 1), atol=0.003)
    assert tenths.tolist() == list(range(5, 16))
    np.testing.assert_allclose(counts, 200, rtol=0.25)


def test_windows_by_hand():
    """At twice the size, 51 of 102 pixels are 50 / 101 of the way from 0 to 100."""
    drawn = draw_views((101, 101), (51, 51), Augmentation(2, 2, 0, 0), 5)
    assert np.all(drawn.extent == 51)
    assert np.all(drawn.size == 51)
    # One pixel is the least, and it stands for all there is.
    drawn = draw_views((3, 1000), (33, 33), Augmentation(0.5, 0.5, 0, 0), 5)
    assert np.all(drawn.size == [1, 16])
    assert np.all(drawn.extent == [3, 1000])
    assert np.all(drawn.start == 0)


def patches(shape, values, seed: int) -> np.ndarray:
    """Labels of 8 x 8 pixels each, in no order and without symmetry."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(values, [-(-side // 8) for side in shape])
    return np.kron(coarse, np.ones((8, 8), int))[: shape[0], : shape[1]]


@pytest.mark.parametrize(("scales", "width"), [((0.5, 1.5), 3), ((1.5, 3), 5)])
def test_the_colour_of_a_label_stays_its_colour(scales, width):
    """Nothing is mixed but next to borders; no label is seen that was not there."""
    values = np.array([257, 258, 300, 512, 770, 1025, 2000, 65535])
    palette = np.random.default_rng(2).integers(0, 256, (len(values), 3))
    labels = patches((72, 100), values, 3)
    image = palette[np.searchsorted(values, labels)].astype(np.uint8)
    colors = {0: [127.5] * 3, **dict(zip(values.tolist(), palette, strict=True))}
    compared = 0
    for number in range(20):
        augmentation = Augmentation(*scales, 0, 0.5)
        result, seen = run(augmentation, number, image, labels.astype(np.int32))
        seen = seen.numpy()
        assert set(np.unique(seen)) <= set(colors)
        inside = ndimage.minimum_filter(seen, width) == ndimage.maximum_filter(
            seen, width
        )
        for value in np.unique(seen[inside]):
            place = inside & (seen == value)
            np.testing.assert_allclose(
                result.numpy()[place],
                np.tile(colors[value], (place.sum(), 1)),
                atol=0.1,
            )
            compared += place.sum()
    assert compared > 1000
