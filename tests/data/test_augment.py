from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.augment import Augmentation, augment
from cmt.data.preprocess import resize_and_pad

CROP = (33, 49)


def run(augmentation: Augmentation, number: int, image: np.ndarray, labels: np.ndarray):
    return augment(
        tf.constant(image),
        tf.constant(labels),
        seed=tf.constant([5, number], tf.int64),
        crop_size=CROP,
        augmentation=augmentation,
    )


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
