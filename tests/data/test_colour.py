from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.data import colour
from cmt.data.colour import ColorJitter, Policy, change_colors


@pytest.fixture
def image() -> tf.Tensor:
    rng = np.random.default_rng(0)
    return tf.constant(rng.integers(20, 200, (13, 17, 3)), tf.uint8)


def run(image, number=1, jitter=None, policy=None) -> np.ndarray:
    return change_colors(
        image,
        seed=tf.constant([7, number], tf.int64),
        jitter=jitter or ColorJitter(),
        policy=policy or Policy(),
    ).numpy()


def test_nothing_is_changed_by_default(image):
    np.testing.assert_array_equal(run(image), image)


def test_brightness_multiplies(image):
    for number in range(5):
        result = run(image, number, ColorJitter(brightness=0.2))
        ratios = result / image.numpy()
        np.testing.assert_allclose(ratios, ratios.mean(), rtol=1e-4)
        assert 0.8 <= ratios.mean() <= 1.2
        assert abs(ratios.mean() - 1) > 1e-3


def test_contrast_and_saturation_keep_the_mean_brightness(image):
    luma = np.array([0.299, 0.587, 0.114])
    for jitter in (ColorJitter(contrast=0.2), ColorJitter(saturation=0.2)):
        result = run(image, 2, jitter)
        assert np.abs(result - image).max() > 1
        np.testing.assert_allclose(
            (result @ luma).mean(), (image.numpy() @ luma).mean(), rtol=1e-4
        )
    # Saturation keeps that of every pixel.
    np.testing.assert_allclose(result @ luma, image.numpy() @ luma, rtol=1e-4)


def test_hue_keeps_grey_and_turns_red():
    third = colour._hue_rotation(tf.constant(1 / 3)).numpy()
    np.testing.assert_allclose(third @ [1, 0, 0], [0, 1, 0], atol=1e-6)
    grey = tf.fill([2, 3, 3], tf.constant(90, tf.uint8))
    np.testing.assert_allclose(run(grey, 3, ColorJitter(hue=0.5)), 90.0, atol=1e-3)


def test_every_operation_by_hand(image):
    values = tf.cast(image, tf.float32)
    image = image.numpy()
    factor, strength = tf.constant(1.45), 0.5
    grey = image @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(colour._brightness(values, factor, 0), image * 1.45)
    np.testing.assert_allclose(
        colour._contrast(values, factor, 0),
        grey.mean() + 1.45 * (image - grey.mean()),
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        colour._saturation(values, tf.constant(0.0), 0),
        np.repeat(grey[..., None], 3, -1),
        rtol=1e-4,
    )
    smooth = colour._sharpness(values, tf.constant(0.0), 0).numpy()
    window = image[3:6, 5:8, 1].astype(float)
    expected = (window.sum() + 4 * window[1, 1]) / 13
    np.testing.assert_allclose(smooth[4, 6, 1], expected, rtol=1e-4)
    stretched = colour._auto_contrast(values).numpy()
    np.testing.assert_allclose(stretched.min((0, 1)), 0, atol=1e-3)
    np.testing.assert_allclose(stretched.max((0, 1)), 255, rtol=1e-5)
    posterized = colour._posterize(values, 0, strength)
    np.testing.assert_array_equal(posterized, image // 4 * 4)
    inverted = np.where(image < 128, image, 255 - image)
    np.testing.assert_array_equal(colour._solarize(values, 0, strength), inverted)


def test_equalize_flattens_the_histogram(image):
    result = colour._equalize(tf.cast(image, tf.float32)).numpy()
    for channel in range(3):
        before, after = image.numpy()[..., channel].ravel(), result[..., channel]
        order = np.argsort(before, kind="stable")
        assert np.all(np.diff(after.ravel()[order]) >= 0)
        assert after.min() == 0
        np.testing.assert_allclose(after.max(), 255, rtol=1e-6)
        shares = np.histogram(after, 4, (0, 255))[0] / after.size
        np.testing.assert_allclose(shares, 0.25, atol=0.05)
    flat = tf.fill([3, 4, 3], 9.0)
    np.testing.assert_array_equal(colour._equalize(flat), flat)


def test_the_policy_draws_all_operations_from_the_seed_alone(image):
    policy = Policy(num_operations=1, magnitude=6)
    results = [run(image, number, policy=policy) for number in range(40)]
    distinct = {result.tobytes() for result in results}
    # Four operations have a sign.
    assert len(distinct) == 12
    assert all(0 <= result.min() <= result.max() <= 255 for result in results)
    np.testing.assert_array_equal(results[5], run(image, 5, policy=policy))
    twice = Policy(num_operations=2, magnitude=6)
    assert not np.array_equal(results[5], run(image, 5, policy=twice))
