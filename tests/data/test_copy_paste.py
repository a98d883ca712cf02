from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.categories import Category
from cmt.data.copy_paste import (
    PASTED_DIVISOR,
    CopyPaste,
    paste,
    paste_shares,
    widened,
)
from cmt.data.targets import number_masks, unpack
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
