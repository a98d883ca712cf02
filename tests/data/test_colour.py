from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.input import colour
from cmt.data.input.colour import ColorJitter, Policy, change_colors


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
    made = colour._operations(values, factor, strength)
    np.testing.assert_allclose(made["brightness"](), image * 1.45)
    np.testing.assert_allclose(
        made["contrast"](), grey.mean() + 1.45 * (image - grey.mean()), rtol=1e-4
    )
    none = colour._operations(values, tf.constant(0.0), strength)
    np.testing.assert_allclose(
        none["saturation"](), np.repeat(grey[..., None], 3, -1), rtol=1e-4
    )
    smooth = none["sharpness"]().numpy()
    window = image[3:6, 5:8, 1].astype(float)
    expected = (window.sum() + 4 * window[1, 1]) / 13
    np.testing.assert_allclose(smooth[4, 6, 1], expected, rtol=1e-4)
    stretched = made["auto_contrast"]().numpy()
    np.testing.assert_allclose(stretched.min((0, 1)), 0, atol=1e-3)
    np.testing.assert_allclose(stretched.max((0, 1)), 255, rtol=1e-5)
    flat = tf.concat([values[..., :2], tf.fill([*values.shape[:2], 1], 7.0)], -1)
    np.testing.assert_array_equal(colour._auto_contrast(flat)[..., 2], 7.0)
    np.testing.assert_array_equal(made["posterize"](), image // 4 * 4)
    inverted = np.where(image < 128, image, 255 - image)
    np.testing.assert_array_equal(made["solarize"](), inverted)


def test_equalize_flattens_the_histogram(image):
    made = colour._operations(tf.cast(image, tf.float32), tf.constant(1.0), 0.5)
    result = made["equalize"]().numpy()
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


LUMA = np.array([0.299, 0.587, 0.114])


def run_many(image, count: int, jitter=None, policy=None) -> np.ndarray:
    """[count, H, W, 3]: the image with the changes of many seeds."""

    @tf.autograph.experimental.do_not_convert
    def one(number):
        return change_colors(
            tf.constant(image, tf.uint8),
            seed=tf.stack([tf.constant(7, tf.int64), number]),
            jitter=jitter or ColorJitter(),
            policy=policy or Policy(),
        )

    return next(tf.data.Dataset.range(count).map(one).batch(count).as_numpy_iterator())


@pytest.fixture
def pale() -> np.ndarray:
    """Pixels that no change of the tests drives out of 0 to 255."""
    return np.random.default_rng(4).integers(90, 120, (5, 7, 3))


def assert_fills(values: np.ndarray, low: float, high: float) -> None:
    """Values lie between two ends, reach both, and are as frequent everywhere."""
    assert low - 1e-3 < values.min() < low + 0.03 * (high - low)
    assert high - 0.03 * (high - low) < values.max() < high + 1e-3
    counts, _ = np.histogram(values, 4, (low - 1e-3, high + 1e-3))
    np.testing.assert_allclose(counts, len(values) / 4, rtol=0.3)


def test_jitter_uses_its_whole_range_and_draws_each_part_for_itself(pale):
    """All at once, and told apart: luma gives brightness, its spread contrast."""
    jitter = ColorJitter(brightness=0.3, contrast=0.4, saturation=0.2)
    results = run_many(pale, 400, jitter)
    luma, before = results @ LUMA, pale @ LUMA
    brightness = luma.mean((1, 2)) / before.mean()
    contrast = luma.std((1, 2)) / before.std() / brightness
    colors = (results - luma[..., None]) / (pale - before[..., None])
    saturation = np.median(colors, (1, 2, 3)) / brightness / contrast
    assert_fills(brightness, 0.7, 1.3)
    assert_fills(contrast, 0.6, 1.4)
    assert_fills(saturation, 0.8, 1.2)
    parts = np.stack([brightness, contrast, saturation])
    np.testing.assert_allclose(np.corrcoef(parts), np.eye(3), atol=0.15)


def test_hue_turns_by_its_share_of_a_full_turn_either_way():
    red = np.full((1, 1, 3), (148, 128, 128))
    results = run_many(red, 400, ColorJitter(hue=0.2))[:, 0, 0] - 128
    # In the plane across grey: red is at 0, green a third of a turn on.
    along = results @ [2, -1, -1] / np.sqrt(6)
    across = results @ [0, 1, -1] / np.sqrt(2)
    assert_fills(np.arctan2(across, along) / (2 * np.pi), -0.2, 0.2)
    np.testing.assert_allclose(np.hypot(along, across), 20 * np.sqrt(2 / 3), rtol=1e-3)


def test_saturation_comes_before_hue(pale):
    """Hue keeps the mean of a pixel, so that shows how saturation moved it to luma."""
    results = run_many(pale, 20, ColorJitter(saturation=0.3, hue=0.3))
    luma, mean = pale @ LUMA, pale.mean(-1)
    share = (results.mean(-1) - luma) / (mean - luma)
    certain = np.abs(mean - luma) > 2
    for one in share:
        np.testing.assert_allclose(one[certain], np.median(one), rtol=0.01)


@pytest.mark.parametrize("magnitude", [4, 6])
def test_what_the_policy_makes_of_grey(magnitude):
    """Each operation in as many images, as strong as the magnitude says."""
    grey, strength = 142, magnitude / 10
    results = run_many(np.full((2, 2, 3), grey), 800, policy=Policy(1, magnitude))
    reds = results[:, 0, 0, 0].astype(float).round(2)
    values, counts = np.unique(reds, return_counts=True)
    expected = {
        round(grey * (1 - 0.9 * strength), 2): 0.5,
        140.0: 1,  # to steps of 4
        # Contrast, saturation, sharpness, auto contrast, equalize.
        float(grey): 5,
        round(grey * (1 + 0.9 * strength), 2): 0.5,
    }
    solarized = float(255 - grey if grey >= 256 * (1 - strength) else grey)
    expected[solarized] = expected.get(solarized, 0) + 1
    found = dict(zip(values.tolist(), (counts / 100).tolist(), strict=True))
    assert set(found) == set(expected)
    for value, share in expected.items():
        assert abs(found[value] - share) < 0.4, value


def test_operations_follow_one_another_and_the_jitter_comes_last(image):
    policy = Policy(2, 7)
    fold_in = tf.random.experimental.stateless_fold_in
    different, clipped = 0, 0
    for number in range(6):
        seed = tf.constant([7, number], tf.int64)
        values = tf.cast(image, tf.float32)
        once = colour._random_operation(values, fold_in(seed, 0), 0.7)
        twice = colour._random_operation(once, fold_in(seed, 1), 0.7)
        np.testing.assert_allclose(run(image, number, policy=policy), twice, atol=1e-3)
        again = colour._random_operation(once, fold_in(seed, 0), 0.7)
        different += not np.array_equal(twice, again)
        # Brightness at the end: one factor for all that it leaves below 255.
        jitter = ColorJitter(brightness=0.3)
        result = run(image, number, jitter, policy)
        plain = twice.numpy()
        inside = (plain > 1) & (result < 254.9)
        ratios = result[inside] / plain[inside]
        np.testing.assert_allclose(ratios, np.median(ratios), rtol=1e-3)
        assert abs(np.median(ratios) - 1) > 1e-3
        assert 0 <= result.min() <= result.max() <= 255
        clipped += np.any(result == 255) and np.median(ratios) > 1
    assert different >= 3
    assert clipped >= 1
