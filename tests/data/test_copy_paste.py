from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from cmt.data.input.copy_paste import (
    PASTED_DIVISOR,
    CopyPaste,
    paste,
    paste_shares,
    widened,
)
from cmt.data.input.targets import number_masks, unpack
from cmt.data.panoptic.categories import Category
from cmt.errors import InputError

CATEGORIES = [
    Category(1, "cat", True, (0, 0, 0)),
    Category(5, "dog", True, (0, 0, 0)),
    Category(9, "sky", False, (0, 0, 0)),
    Category(12, "sea", False, (0, 0, 0)),
]
CAT, DOG, SKY, SEA = (256 * number for number in (1, 2, 3, 4))
CROP = (33, 49)


def shares(**options) -> np.ndarray:
    return paste_shares(CopyPaste(**options), CATEGORIES)


def test_what_may_be_pasted():
    share = shares(thing_probability=0.3, stuff_probability=0.7, stuff="sea")
    assert share.shape == (5 * 256,)
    chosen = share[[0, CAT, CAT + 1, DOG + 255, SKY, SEA, SEA + 3]]
    np.testing.assert_allclose(chosen, [0, 0, 0.3, 0.3, 0, 0.7, 0.7])
    share = shares(thing_probability=1, stuff_probability=1, things="5, cat", stuff="9")
    assert share[[CAT + 1, DOG + 1, SKY, SEA]].tolist() == [1, 1, 1, 0]
    with pytest.raises(InputError, match="copy_paste.things.*such as cat.*got 'sky'"):
        shares(things="sky")


def test_names_with_commas_and_spaces():
    """ADE20K has such."""
    names = ("chest of drawers, chest", "chest", "bed ", "lamp")
    categories = [
        Category(10 * number, name, True, (0, 0, 0))
        for number, name in enumerate(names, start=1)
    ]
    for things, expected in (
        ("chest of drawers, chest", [1, 0, 0, 0]),
        ("chest, bed , 40", [0, 1, 1, 1]),
        ("lamp,chest of drawers, chest,bed", [1, 0, 1, 1]),
        (" , lamp,", [0, 0, 0, 1]),
    ):
        options = CopyPaste(thing_probability=1, things=things)
        share = paste_shares(options, categories)[256 + 1 :: 256]
        assert share.tolist() == expected, things
    with pytest.raises(
        InputError, match="drawers, chest; chest; bed; lamp; got 'ches'"
    ):
        paste_shares(CopyPaste(things="lamp, ches, bed"), categories)


@pytest.fixture
def scene():
    """Sky with a cat; elsewhere, sea with two dogs, a cat and crowd."""
    labels = np.full(CROP, SKY)
    labels[5:15, 5:15] = CAT + 1
    other = np.full((66, 98), SEA)
    other[:20, :20], other[40:, 40:60] = DOG + 1, DOG + 2
    other[30:40, 70:] = CAT + 1
    other[:10, 60:70] = CAT
    return (
        tf.fill([*CROP, 3], 10.0),
        tf.constant(labels, tf.int32),
        tf.fill([66, 98, 3], 200.0),
        tf.constant(other, tf.int32),
    )


def run(scene, number, share, scales=(0.5, 1.5), flip_probability=0.5):
    image, labels = paste(
        *scene,
        seed=tf.constant([3, number], tf.int64),
        shares=share,
        scales=scales,
        flip_probability=flip_probability,
    )
    return image.numpy(), labels.numpy()


def test_pasted_pixels_and_labels_agree(scene):
    share = shares(thing_probability=0.5, stuff_probability=0.5)
    seen = set()
    for number in range(30):
        image, labels = run(scene, number, share)
        assert image.shape == (*CROP, 3)
        assert labels.shape == CROP
        pasted = image[..., 0] > 100
        before = widened(scene[1]).numpy()
        np.testing.assert_array_equal(labels[~pasted], before[~pasted])
        classes, instances = np.divmod(labels[pasted], PASTED_DIVISOR)
        assert set(classes) <= {1, 2, 4}
        # No crowd, and no instance of the image below.
        assert np.all((instances > 256) == (classes != 4))
        seen |= set(zip(classes.tolist(), instances.tolist(), strict=True))
    assert seen == {(1, 257), (2, 257), (2, 258), (4, 0)}


def test_equal_labels_of_two_images_are_two_masks(scene):
    _, labels = run(scene, 1, shares(thing_probability=1, things="cat"), (1, 1), 0)
    masks = number_masks(
        tf.constant(labels),
        is_thing=[True, True, False, False],
        max_masks=5,
        divisor=PASTED_DIVISOR,
    )
    targets = unpack(masks)
    assert targets.mask_classes.numpy().tolist() == [3, 1, 1, 0, 0]
    cats = targets.semantic.numpy() == 1
    assert set(targets.mask_ids.numpy()[cats]) == {1, 2}


def test_all_or_nothing(scene):
    image, labels = run(scene, 1, shares(thing_probability=0))
    np.testing.assert_array_equal(image, scene[0])
    np.testing.assert_array_equal(labels, widened(scene[1]))
    image, _ = run(
        scene, 1, shares(thing_probability=1, stuff_probability=1), (1.5, 1.5)
    )
    assert np.mean(image[..., 0] > 100) > 0.9


def test_small_pictures_land_anywhere_and_flips_happen(scene):
    share = shares(thing_probability=0, stuff_probability=1)
    corners = set()
    for number in range(20):
        image, _ = run(scene, number, share, (0.5, 0.5), 0.5)
        rows, columns = np.nonzero(image[..., 0] > 100)
        corners.add((rows.min(), columns.min()))
        assert rows.max() - rows.min() <= 16
        assert columns.max() - columns.min() <= 24
    assert len(corners) > 10


def run_many(scene, count: int, share, scales, flip_probability=0.0):
    """[count, h, w] red, and labels, of many seeds."""

    @tf.autograph.experimental.do_not_convert
    def one(number):
        image, labels = paste(
            *scene,
            seed=tf.stack([tf.constant(3, tf.int64), number]),
            shares=share,
            scales=scales,
            flip_probability=flip_probability,
        )
        return image[..., 0], labels

    return next(tf.data.Dataset.range(count).map(one).batch(count).as_numpy_iterator())


def test_every_place_is_as_likely(scene):
    """16 x 24 pixels in 33 x 49: 18 x 26 places, row and column for themselves."""
    share = shares(thing_probability=1, stuff_probability=1)
    red, _ = run_many(scene, 2000, share, (0.5, 0.5))
    first_row = np.argmax(red.max(2) > 100, 1)
    first_column = np.argmax(red.max(1) > 100, 1)
    assert np.all((red > 100).any(2).sum(1) == 16)
    assert np.all((red > 100).any(1).sum(1) == 24)
    for first, places in ((first_row, 18), (first_column, 26)):
        counts = np.bincount(first)
        assert len(counts) == places
        np.testing.assert_allclose(counts, 2000 / places, rtol=0.5)
    assert abs(np.corrcoef(first_row, first_column)[0, 1]) < 0.1


def test_scales_reach_both_ends(scene):
    """A picture that fills the crop at 1 is 33 * 0.3 to 33 * 0.6 pixels high."""
    share = shares(thing_probability=1, stuff_probability=1)
    red, _ = run_many(scene, 400, share, (0.3, 0.6))
    heights = (red > 100).any(2).sum(1)
    assert set(heights) == set(range(10, 21))
    counts, _ = np.histogram(heights, 3, (9.9, 19.8))
    np.testing.assert_allclose(counts, 400 / 3, rtol=0.25)
    # Where a picture lands has nothing to do with how large it is.
    first_row = np.argmax(red.max(2) > 100, 1) / (CROP[0] - heights)
    widths = (red > 100).any(1).sum(1)
    first_column = np.argmax(red.max(1) > 100, 1) / (CROP[1] - widths)
    for place in (first_row, first_column):
        assert abs(np.corrcoef(place, heights)[0, 1]) < 0.15


def test_large_pictures_are_cropped_anywhere(scene):
    """At twice the size, 10 x 10 pixels of a dog are 20 x 20, in part or not seen."""
    red, labels = run_many(scene, 300, shares(thing_probability=1, things="5"), (2, 2))
    first = (labels == 2 * PASTED_DIVISOR + 257).sum((1, 2))
    assert 250 < first.max() <= 441
    assert first.min() == 0
    np.testing.assert_array_equal(red > 100, labels // PASTED_DIVISOR == 2)


def test_each_segment_is_drawn_for_itself_with_its_probability(scene):
    share = shares(thing_probability=0.3, stuff_probability=0.6)
    _, labels = run_many(scene, 500, share, (1, 1))
    cat, dog = PASTED_DIVISOR, 2 * PASTED_DIVISOR
    values = (dog + 257, dog + 258, cat + 257, 4 * PASTED_DIVISOR)
    seen = np.stack([(labels == value).any((1, 2)) for value in values])
    np.testing.assert_allclose(seen.mean(1), [0.3, 0.3, 0.3, 0.6], atol=0.08)
    np.testing.assert_allclose(np.corrcoef(seen), np.eye(4), atol=0.15)


@pytest.mark.parametrize(
    ("probability", "low", "high"), [(0, 0, 0), (0.25, 0.19, 0.31)]
)
def test_flips_are_drawn_with_their_probability(scene, probability, low, high):
    """The first dog is in the left half unless the picture is flipped."""
    share = shares(thing_probability=1, things="dog")
    _, labels = run_many(scene, 400, share, (1, 1), probability)
    dogs = labels == 2 * PASTED_DIVISOR + 257
    left, right = dogs[:, :, :24].any((1, 2)), dogs[:, :, 25:].any((1, 2))
    assert np.all(left != right)
    assert low <= right.mean() <= high


def test_pasted_colours_are_those_of_the_pasted_labels():
    """Each label has a colour, in both images: so it is wherever one label reigns."""
    rng = np.random.default_rng(5)
    values = np.array([CAT + 1, CAT + 2, DOG + 1, DOG + 7, SKY, SEA])
    colors = np.arange(6) * 40 + 20

    def drawn(height: int, width: int):
        coarse = rng.integers(0, 6, (-(-height // 8), -(-width // 8)))
        numbers = np.kron(coarse, np.ones((8, 8), int))[:height, :width]
        image = np.repeat(colors[numbers][..., None], 3, -1)
        return tf.constant(image, tf.float32), tf.constant(values[numbers], tf.int32)

    pair = (*drawn(*CROP), *drawn(61, 83))
    share = shares(thing_probability=0.6)  # stuff could meet its like
    red, labels = run_many(pair, 60, share, (0.5, 1.5), 0.5)
    classes, instances = np.divmod(labels, PASTED_DIVISOR)
    plain = classes * 256 + instances % 256
    assert set(np.unique(plain)) == set(values)
    assert np.any(instances > 256)
    for one, image in zip(labels, red, strict=True):
        alone = ndimage.minimum_filter(one, 3) == ndimage.maximum_filter(one, 3)
        number = one // PASTED_DIVISOR * 256 + one % PASTED_DIVISOR % 256
        expected = colors[np.searchsorted(values, number)]
        np.testing.assert_allclose(image[alone], expected[alone], atol=0.1)
