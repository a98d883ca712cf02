"""Each term against its NumPy loop, with a different prime on every axis."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.losses import (
    instance_discrimination_loss,
    mask_approximation_loss,
    mask_extents,
    mask_statistics,
    pixel_contrastive_loss,
    pixel_targets,
    sample_pixels,
)
from cmt.losses.reduction import nonzero_mean
from cmt.matching.masks import class_similarity, mask_similarity, match_masks
from cmt.outputs import Targets
from tests import oracles


def _flatten(x):
    return tf.reshape(x, [x.shape[0], -1, x.shape[-1]])


def _match(case, targets):
    """Labels, overlaps and matching of the main output."""
    labels = pixel_targets(targets, case.height, case.width)
    regions = labels.regions(case.masks, case.height)
    areas = tf.reduce_sum(regions.counts()[0], axis=1)
    logits = _flatten(case.predictions.mask_logits)
    overlaps = mask_statistics(logits, regions, areas).overlaps
    matching = match_masks(
        overlaps, case.predictions.class_logits, mask_classes=targets.mask_classes
    )
    return labels, overlaps, matching


@pytest.fixture
def setting(random_case):
    """Labels at the main resolution and the matching of the random case."""
    case = random_case
    labels, _, matching = _match(case, case.targets)
    return case, labels, matching


def _terms(case, make_loss):
    loss = make_loss(case.classes, num_layers=len(case.predictions.layers))
    return loss.terms(case.targets, case.predictions)


def test_similarities(setting):
    case, labels, _ = setting
    mask_logits = _flatten(case.predictions.mask_logits)
    dice = mask_similarity(_match(case, case.targets)[1]).numpy()
    by_class = class_similarity(
        case.predictions.class_logits, case.targets.mask_classes
    ).numpy()
    for b in range(case.batch):
        expected_dice, expected_class = oracles.similarity(
            mask_logits[b].numpy(),
            case.predictions.class_logits[b].numpy(),
            labels.mask_ids[b].numpy(),
            case.targets.mask_classes[b].numpy(),
            labels.not_void[b].numpy(),
        )
        np.testing.assert_allclose(dice[b], expected_dice, rtol=1e-5)
        real = case.targets.mask_classes[b].numpy() > 0
        np.testing.assert_allclose(by_class[b][real], expected_class[real], rtol=1e-5)


def test_pq_class(setting, make_loss):
    case, labels, matching = setting
    value = _terms(case, make_loss)["pq_class"]
    for b in range(case.batch):
        expected = oracles.pq_class(
            _flatten(case.predictions.mask_logits)[b].numpy(),
            case.predictions.class_logits[b].numpy(),
            labels.mask_ids[b].numpy(),
            case.targets.mask_classes[b].numpy(),
            labels.not_void[b].numpy(),
            matching.mask_centers[b].numpy(),
        )
        assert value[b].numpy() == pytest.approx(expected, rel=1e-5)


def _stages(case):
    """Name, logits of the main output and of each layer."""
    yield "", case.predictions.mask_logits
    for number, layer in enumerate(case.predictions.layers, start=1):
        yield f"layer{number}/", layer.affinity_logits


def _check_mask_terms(case, targets, make_loss):
    """Compares the mask terms of all stages; returns the centers of the masks."""
    _, _, matching = _match(case, targets)
    by_class = class_similarity(
        case.predictions.class_logits, targets.mask_classes
    ).numpy()
    loss = make_loss(case.classes, num_layers=len(case.predictions.layers))
    terms = loss.terms(targets, case.predictions)
    for stage, logits in _stages(case):
        labels = pixel_targets(targets, *logits.shape[1:3])
        for b in range(case.batch):
            flat = _flatten(logits)[b].numpy()
            mask_ids = labels.mask_ids[b].numpy()
            centers = matching.mask_centers[b].numpy()
            weights = [
                by_class[b, g, n] if n >= 0 else 0 for g, n in enumerate(centers)
            ]
            expected = oracles.pq_mask(flat, mask_ids, centers, weights)
            assert terms[f"{stage}pq_mask"][b].numpy() == pytest.approx(expected, 1e-5)
            expected = oracles.mask_id(flat, mask_ids, centers)
            assert terms[f"{stage}mask_id"][b].numpy() == pytest.approx(expected, 1e-5)
    return matching.mask_centers.numpy()


def test_mask_terms_of_all_stages(random_case, make_loss):
    _check_mask_terms(random_case, random_case.targets, make_loss)


def test_mask_that_vanishes_in_the_layers(random_case, make_loss):
    """Mask 1 lies between the pixels of a layer: it is in the main terms alone."""
    case = random_case
    ids = np.zeros([case.batch, case.height, case.width], np.int32)
    ids[:, 1, 1] = 1
    targets = Targets(
        semantic=tf.constant(np.where(ids == 1, 1, 3)),
        mask_ids=tf.constant(ids),
        mask_classes=tf.constant(np.tile([[3, 1, 0]], [case.batch, 1])),
    )
    assert not pixel_targets(targets, 3, 4).mask_ids.numpy().any()
    centers = _check_mask_terms(case, targets, make_loss)
    assert (centers[:, :2] >= 0).all()


def test_semantic(setting, make_loss):
    case, labels, _ = setting
    value = _terms(case, make_loss)["semantic"]
    for b in range(case.batch):
        logits = _flatten(case.predictions.semantic_logits)[b].numpy()
        expected = oracles.semantic(logits, labels.semantic[b].numpy())
        assert value[b].numpy() == pytest.approx(expected, rel=1e-5)


def test_mask_approximation(setting, make_loss):
    case, labels, matching = setting
    terms = _terms(case, make_loss)
    for number, layer in enumerate(case.predictions.layers, start=1):
        for b in range(case.batch):
            expected = oracles.mask_approximation(
                layer.reference_points[b].numpy(),
                labels.mask_ids[b].numpy(),
                matching.mask_centers[b].numpy(),
                case.height,
                case.width,
            )
            value = terms[f"layer{number}/mask_approximation"][b].numpy()
            assert value == pytest.approx(expected, rel=1e-5)


def test_mask_approximation_by_hand(setting):
    """One mask, the right column of a 3 x 5 image; two points."""
    rows, columns = tf.ones([1, 3, 1]), 3.0 * tf.one_hot([[4]], 5, axis=1)
    extents = mask_extents(rows, columns)
    assert [part.numpy().tolist() for part in extents] == [
        [[[0.0, 1.0]]],
        [[[1.0, 1.0]]],
        [[[0.5, 1.0]]],
    ]
    matching = setting[2]._replace(center_masks=tf.constant([[-1, 0]]))
    unused, points = [[9.0, 9.0], [9.0, 9.0]], [[0.25, 0.5], [0.5, 0.75]]
    value = mask_approximation_loss(tf.constant([[unused, points]]), extents, matching)
    extreme = (0.25 + 0.5 + 0.5 + 0.25) / 4
    center = (0.125 + 0.375) / 2
    assert value.numpy().tolist() == [extreme + center]


def test_coordinates_of_an_image_one_pixel_high():
    extents = mask_extents(3.0 * tf.ones([1, 1, 1]), tf.ones([1, 3, 1]))
    assert [part.numpy()[0, 0].tolist() for part in extents] == [
        [0.0, 0.0],
        [0.0, 1.0],
        [0.0, 0.5],
    ]


def test_pixel_contrastive(setting, make_loss):
    case, labels, _ = setting
    value = _terms(case, make_loss)["pixel_contrastive"]
    for b in range(case.batch):
        expected = oracles.pixel_contrastive(
            _flatten(case.predictions.pixel_features)[b].numpy(),
            labels.mask_ids[b].numpy(),
            labels.not_void[b].numpy(),
            0.3,
        )
        assert value[b].numpy() == pytest.approx(expected, rel=1e-5)


def test_pixel_contrastive_by_hand():
    """Two pixels of one mask at right angles: log(e + 1) - 1/2 each."""
    value = pixel_contrastive_loss(
        tf.constant([[[1.0, 0.0], [0.0, 1.0]]]),
        tf.constant([[0, 0]]),
        tf.ones([1, 2]),
        num_masks=1,
        temperature=1.0,
    )
    assert value.numpy()[0] == pytest.approx(np.log(np.e + 1.0) - 0.5, rel=1e-6)


@pytest.mark.parametrize("rows", [1, 8, 64])
def test_pixel_contrastive_in_stripes(monkeypatch, rows):
    """Values and gradients do not depend on how the matrix is cut."""
    from cmt.losses import contrastive

    rng = np.random.default_rng(3)
    features = tf.math.l2_normalize(
        tf.constant(rng.normal(size=[2, 37, 5]).astype(np.float32)), axis=-1
    )
    mask_ids = tf.constant(rng.integers(-1, 4, [2, 37]), tf.int32)  # with crowd
    in_set = tf.constant(rng.integers(0, 5, [2, 37]) > 0, tf.float32)  # with void
    results = []
    for stripe_rows in (37, rows):
        monkeypatch.setattr(contrastive, "_STRIPE_ROWS", stripe_rows)
        with tf.GradientTape() as tape:
            tape.watch(features)
            value = pixel_contrastive_loss(
                features, mask_ids, in_set, num_masks=4, temperature=0.3
            )
        results.append((value, tape.gradient(value, features)))
    for one, other in zip(*results, strict=True):
        assert np.any(other)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_gradient_of_pixel_contrastive(setting):
    """The gradient written by hand against TensorFlow's of the plain formula."""
    case, labels, _ = setting
    features = _flatten(case.predictions.pixel_features)
    # Without crowd, whose gradient is not that of the value.
    in_set = tf.cast(labels.mask_ids >= 0, tf.float32)
    same = labels.mask_ids[:, :, None] == labels.mask_ids[:, None, :]
    positive = tf.cast(same, tf.float32) * in_set[:, :, None] * in_set[:, None, :]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(features)
        value = pixel_contrastive_loss(
            features, labels.mask_ids, in_set, num_masks=case.masks, temperature=0.3
        )
        logits = tf.matmul(features, features, transpose_b=True) / 0.3
        logits += -1e9 * (1.0 - in_set[:, None, :])
        share = tf.math.divide_no_nan(
            positive, tf.reduce_sum(positive, axis=2, keepdims=True)
        )
        losses = -tf.reduce_sum(share * tf.nn.log_softmax(logits, axis=2), axis=2)
        plain = nonzero_mean(losses)
    np.testing.assert_allclose(value, plain, rtol=1e-5)
    np.testing.assert_allclose(
        tape.gradient(value, features), tape.gradient(plain, features), atol=1e-6
    )


def test_instance_discrimination(setting, make_loss):
    case, labels, _ = setting
    is_thing = tuple(c % 2 == 0 for c in range(1, case.classes + 1))
    classes = case.targets.mask_classes.numpy()
    for things in (is_thing, None):
        loss = make_loss(
            case.classes,
            num_layers=2,
            pixel_loss="INSTANCE_DISCRIMINATION",
            is_thing=things,
        )
        value = loss.terms(case.targets, case.predictions)["instance_discrimination"]
        for b in range(case.batch):
            expected = oracles.instance_discrimination(
                _flatten(case.predictions.pixel_features)[b].numpy(),
                labels.mask_ids[b].numpy(),
                case.masks,
                [c > 0 and (things is None or things[c - 1]) for c in classes[b]],
                0.3,
            )
            assert value[b].numpy() == pytest.approx(expected, rel=1e-5)


def test_instance_discrimination_of_a_mask_whose_mean_is_zero():
    features = tf.constant([[[1.0, 0.0], [-1.0, 0.0]]])
    ids = tf.constant([[0, 0]])
    with tf.GradientTape() as tape:
        tape.watch(features)
        value = instance_discrimination_loss(
            features,
            ids,
            masks=tf.one_hot(ids, 1),
            is_anchor=tf.constant([[True]]),
            temperature=0.3,
        )
    assert np.isfinite(tape.gradient(value, features).numpy()).all()


def test_sampling_favours_small_masks_and_never_takes_void():
    tf.random.set_seed(3)
    # Areas 1, 3 and 8 of 16 pixels, one pixel of crowd, three of void.
    ids = np.repeat([0, 1, 2, -1], [1, 3, 8, 4])[np.newaxis]
    not_void = np.repeat([1.0, 0.0], [13, 3])[np.newaxis].astype(np.float32)
    draws = 4000
    indices = sample_pixels(
        tf.constant(np.tile(ids, [draws, 1])),
        tf.constant(np.tile([[1.0, 3.0, 8.0]], [draws, 1]), tf.float32),
        tf.constant(np.tile(not_void, [draws, 1])),
        num_pixels=1,
        power=1.5,
    ).numpy()
    share = np.bincount(indices.ravel(), minlength=16) / draws
    odds = np.repeat([1.0, 3.0, 8.0, 1.0, np.inf], [1, 3, 8, 1, 3]) ** -1.5
    np.testing.assert_allclose(share, odds / odds.sum(), atol=0.03)
    assert share[13:].sum() == 0.0


def test_sampling_without_replacement_takes_void_last():
    tf.random.set_seed(4)
    ids = tf.constant([[0, 0, -1, 1, -1, 0, 1]])
    not_void = tf.constant([[1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]])
    areas = tf.constant([[3.0, 2.0]])
    for _ in range(20):
        drawn = sample_pixels(ids, areas, not_void, num_pixels=6, power=1.5).numpy()[0]
        assert len(set(drawn)) == 6
        assert set(drawn) >= {0, 1, 3, 5, 6}


def test_uniform_sampling_with_power_zero():
    tf.random.set_seed(5)
    ids = tf.constant(np.tile([[0, 1, 1, 1]], [4000, 1]))
    areas = tf.constant(np.tile([[1.0, 3.0]], [4000, 1]), tf.float32)
    drawn = sample_pixels(ids, areas, tf.ones([4000, 4]), num_pixels=1, power=0.0)
    share = np.bincount(drawn.numpy().ravel(), minlength=4) / 4000
    np.testing.assert_allclose(share, 0.25, atol=0.03)


def test_nonzero_mean():
    values = tf.constant([[0.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(values)
        mean = nonzero_mean(values)
    assert mean.numpy().tolist() == [3.0, 0.0]
    assert tape.gradient(mean, values).numpy()[1].tolist() == [0.0, 0.0, 0.0]
