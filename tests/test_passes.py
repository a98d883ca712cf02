"""Flips and scales at test time: what is averaged, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import linear_sum_assignment

from cmt import factory
from cmt.data.input.preprocess import resize_and_pad
from cmt.outputs import Predictions
from cmt.passes import Pass, match_centers, mirror, run_passes
from cmt.protos import evaluation_pb2
from cmt.serving.predictor import PanopticPredictor
from tests import fakes

FLIP = Pass(1.0, True)


class Recorded:
    """The fake network, which gives its centers other places in each call."""

    def __init__(self) -> None:
        self.network = fakes.FakeNetwork()
        self.seen: list[tf.Tensor] = []

    def __call__(self, images: tf.Tensor, training: bool) -> Predictions:
        found = self.network(images, training=training)
        shift = len(self.seen)
        self.seen.append(images)
        return found._replace(
            mask_logits=tf.roll(found.mask_logits, shift, axis=-1),
            class_logits=tf.roll(found.class_logits, shift, axis=1),
        )


def _crops(*sizes: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    images = [tf.constant(fakes.make_image(*size)) for size in sizes]
    made = [resize_and_pad(image, fakes.CROP_SIZE) for image in images]
    return tuple(tf.stack(part) for part in zip(*made, strict=True))


def _assert_same(one: Predictions, other: Predictions, atol: float) -> None:
    for name in ("mask_logits", "class_logits"):
        probs = [tf.nn.softmax(getattr(found, name)) for found in (one, other)]
        np.testing.assert_allclose(*probs, atol=atol, err_msg=name)


def test_a_flip_of_a_symmetric_network_changes_nothing():
    # The second image has padding on its right.
    crops, sizes = _crops((65, 81), (65, 41))
    assert sizes.numpy().tolist() == [[65, 81], [65, 41]]
    network = Recorded()
    plain, flipped = (run_passes(network, crops, sizes, p) for p in ([], [FLIP]))
    shifted = flipped._replace(
        mask_logits=tf.roll(flipped.mask_logits, -1, axis=-1),
        class_logits=tf.roll(flipped.class_logits, -1, axis=1),
    )
    assert len(network.seen) == 3
    # Columns 0 to 80 and 0 to 40 are turned, and the padding stays.
    image, turned = crops.numpy(), network.seen[2].numpy()
    np.testing.assert_array_equal(turned[0], image[0, :, ::-1])
    np.testing.assert_array_equal(turned[1, :, :41], image[1, :, 40::-1])
    np.testing.assert_array_equal(turned[1, :, 41:], image[1, :, 41:])
    _assert_same(plain, shifted, 1e-5)


def test_the_predictor_gives_the_same_map_with_a_flip():
    predictor = fakes.make_predictor()
    both = PanopticPredictor(
        predictor.network,
        crop_size=fakes.CROP_SIZE,
        categories=fakes.CATEGORIES,
        merge_options=fakes.MERGE_OPTIONS,
        passes=[FLIP],
    )
    images = fakes.make_image(65, 81, shift=5)[np.newaxis]
    # Without a graph, which would take seconds to trace.
    one, other = (p._segment(predictor.prepare(images)) for p in (predictor, both))
    assert len(np.unique(one["panoptic"])) == 5
    for name in ("panoptic", "segment_ids"):
        np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-5)


def test_columns_between_points_of_the_grid_are_interpolated():
    """A ramp: what the mirrored pass says of pixel x is what it saw at x."""
    width, crop = 50, (33, 65)
    ramp = np.linspace(0, 1, crop[1], dtype=np.float32)
    images = np.tile(ramp[:, np.newaxis], [1, crop[0], 1, 3])

    def network(images: tf.Tensor, training: bool) -> Predictions:
        logits = images[:, ::4, ::4, :1] * [[1.0, -1.0]]
        return Predictions(logits, tf.zeros([1, 2, 3]), logits, None, ())

    sizes = tf.constant([[33, width]])
    found = run_passes(network, tf.constant(images), sizes, [FLIP])
    plain = network(images, training=False)
    # Columns 0 to 48 of the pixels are in the image; two points have neighbours there.
    inner = slice(1, 12)
    probs = [tf.nn.softmax(p.mask_logits)[:, :, inner] for p in (found, plain)]
    np.testing.assert_allclose(*probs, atol=1e-6)
    np.testing.assert_array_equal(
        mirror(tf.constant(images), tf.constant([width]))[0, 0, :, 0],
        [*ramp[:width][::-1], *ramp[width:]],
    )


def test_scales_are_sizes_that_networks_take_and_come_back_to_one_grid():
    crops, sizes = _crops((65, 81))
    network = Recorded()
    passes = [Pass(0.5, False), Pass(1.5, True)]
    found = run_passes(network, crops, sizes, passes)
    assert [tuple(seen.shape[1:3]) for seen in network.seen] == [
        (65, 81),
        (33, 33),  # 0.5 * 80 is between 32 and 48: the even multiple of 16.
        (97, 129),
    ]
    plain = network.network(crops, training=False)
    assert found.mask_logits.shape == plain.mask_logits.shape
    owner, expected = (np.argmax(p.mask_logits, -1) for p in (found, plain))
    assert (owner == expected).mean() > 0.9
    np.testing.assert_allclose(
        tf.nn.softmax(found.class_logits), tf.nn.softmax(plain.class_logits), atol=1e-5
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_centers_match_as_in_a_loop(seed):
    rng = np.random.default_rng(seed)
    batch, height, width, centers, classes = 2, 3, 5, 7, 11
    valid = rng.random([batch, height, width]) < 0.8
    masks, classes_of = (
        rng.standard_normal([2, *shape]).astype(np.float32)
        for shape in ([batch, height, width, centers], [batch, centers, classes])
    )
    logs = [tf.nn.log_softmax(4 * part) for part in (masks, classes_of)]
    (one, other), (one_class, other_class) = (part.numpy() for part in logs)
    found = match_centers(
        one, one_class, other, other_class, tf.constant(valid, tf.float32)
    )
    expected = np.full([batch, centers], -1)
    for image in range(batch):
        similarity = np.zeros([centers, centers])
        for n in range(centers):
            for m in range(centers):
                a = np.exp(one[image, ..., n])[valid[image]].astype(np.float64)
                b = np.exp(other[image, ..., m])[valid[image]]
                dice = 2 * (a * b).sum() / (a.sum() + b.sum())
                p, q = np.exp(one_class[image, n]), np.exp(other_class[image, m])
                similarity[n, m] = dice * np.sqrt(p * q).sum() if dice >= 0.3 else 0
        for n, m in zip(*linear_sum_assignment(-similarity), strict=True):
            if similarity[n, m] > 0:
                expected[image, n] = m
    assert (expected >= 0).any() and (expected < 0).any()
    np.testing.assert_array_equal(found, expected)


def test_a_center_without_a_like_keeps_what_the_first_pass_says():
    """By hand: center 0 is found again and averaged; center 1 is not."""
    first = np.zeros([1, 9, 9, 3], np.float32)
    first[:, :, :4, 0] = first[:, :, 4:6, 1] = first[:, :, 6:, 2] = 6
    other = np.zeros_like(first)
    other[:, :, :4, 0] = 4
    other[:, :, 4:, 2] = 4  # Nothing is left for center 1.
    classes = np.log(np.array([[[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]], np.float32))
    changed = np.log(np.array([[[0.4, 0.6], [0.5, 0.5], [0.1, 0.9]]], np.float32))
    answers = iter([(first, classes), (other, changed)])

    def network(images: tf.Tensor, training: bool) -> Predictions:
        return Predictions(*map(tf.constant, next(answers)), images, None, ())

    crops = tf.zeros([1, 33, 33, 3])
    found = run_passes(network, crops, tf.constant([[33, 33]]), [Pass(1.0, False)])
    probs = np.exp(found.class_logits)
    np.testing.assert_allclose(probs[0, :2], [[0.6, 0.4], [0.6, 0.4]], atol=1e-6)
    logs = [tf.nn.log_softmax(part).numpy() for part in (first, other)]
    mean = (logs[0] + logs[1]) / 2
    np.testing.assert_allclose(found.mask_logits[..., 0], mean[..., 0], atol=1e-6)
    np.testing.assert_allclose(found.mask_logits[..., 1], logs[0][..., 1], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"flip": True}, [(1.0, True)]),
        ({"scale_step": 0.1}, []),
        (
            {"min_scale": 0.7, "max_scale": 1.2, "scale_step": 0.1},
            [(s, False) for s in (0.9, 0.8, 0.7, 1.1, 1.2)],
        ),
        (
            {"max_scale": 1.3, "flip": True},
            [(1.0, True), (1.25, False), (1.25, True)],
        ),
    ],
)
def test_passes_of_a_config(options, expected):
    found = factory.list_passes(evaluation_pb2.EvaluationConfig(**options))
    assert [way.is_flipped for way in found] == [way for _, way in expected]
    np.testing.assert_allclose([way.scale for way in found], [s for s, _ in expected])


@pytest.mark.slow
def test_a_config_of_the_package_runs_at_other_scales():
    """The network of scenes/tiny, which was built for one size, takes the others."""
    network = factory.build_model("scenes/tiny")
    crops = tf.random.uniform([2, 65, 65, 3], maxval=255, seed=3)
    sizes = tf.constant([[65, 65], [50, 65]])
    config = evaluation_pb2.EvaluationConfig(flip=True, min_scale=0.5, max_scale=1.5)
    plain, found = (
        run_passes(network, crops, sizes, passes)
        for passes in ([], factory.list_passes(config))
    )
    assert found.mask_logits.shape == plain.mask_logits.shape == (2, 17, 17, 24)
    assert np.isfinite(found.mask_logits).all()
    assert np.isfinite(found.class_logits).all()
