"""Every term and its gradient against the authors' published code, run."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cmt.losses import (
    instance_discrimination_loss,
    mask_statistics,
    pixel_contrastive_loss,
    pixel_targets,
    pq_class_loss,
    semantic_loss,
)
from cmt.matching.masks import (
    class_similarity,
    mask_similarity,
    match_masks,
    void_ratio,
)
from cmt.outputs import LayerPredictions

# Our name: the file's name and the prediction it depends on.
_TERMS = {
    "pq_class": ("pq_style_loss_class_term", "class_logits"),
    "pq_mask": ("pq_style_loss_mask_dice_term", "mask_logits"),
    "mask_id": ("mask_id_cross_entropy_loss", "mask_logits"),
    "instance_discrimination": ("instance_discrimination_loss", "pixel_features"),
    "semantic": ("semantic_loss", "semantic_logits"),
}
_FILE_NAMES = {
    "class_logits": "transformer_class_logits",
    "mask_logits": "pixel_space_mask_logits",
    "pixel_features": "pixel_space_normalized_feature",
    "semantic_logits": "semantic_logits",
}


def _flatten(x):
    return tf.reshape(x, [x.shape[0], -1, x.shape[-1]])


def _check_gradient(golden, key, field, gradient):
    """Compares a gradient with the file's, whole and by its norm for each image."""
    gradient = gradient.numpy()
    if field == "class_logits":
        gradient = gradient[..., np.argsort(golden.class_order)]
    if field == "semantic_logits":
        gradient = gradient[..., golden.first_channel :]
    name = f"{key}/{_FILE_NAMES[field]}"
    norms = np.linalg.norm(gradient.reshape(len(gradient), -1), axis=1)
    np.testing.assert_allclose(norms, golden.data[f"gradnorm/{name}"], rtol=1e-4)
    if f"grad/{name}" in golden.data:
        expected = golden.data[f"grad/{name}"]
        limit = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=0.0, atol=limit)


def _labels_and_matching(golden, matcher="AUTO"):
    """Labels, overlaps and matching of the main output."""
    predictions = golden.predictions
    labels = pixel_targets(golden.targets, *predictions.mask_logits.shape[1:3])
    height = predictions.mask_logits.shape[1]
    regions = labels.regions(golden.targets.mask_classes.shape[1], height)
    areas = tf.reduce_sum(regions.counts()[0], axis=1)
    logits = _flatten(predictions.mask_logits)
    overlaps = mask_statistics(logits, regions, areas).overlaps
    matching = match_masks(
        overlaps,
        predictions.class_logits,
        mask_classes=golden.targets.mask_classes,
        matcher=matcher,
    )
    return labels, overlaps, matching


@pytest.mark.parametrize("term", _TERMS)
def test_term_and_its_gradient(golden, make_loss, term):
    their_name, field = _TERMS[term]
    loss = make_loss(
        golden.num_classes,
        pixel_loss="INSTANCE_DISCRIMINATION",
        is_thing=golden.is_thing,
    )
    with tf.GradientTape() as tape:
        tape.watch(getattr(golden.predictions, field))
        value = loss.terms(golden.targets, golden.predictions)[term]
    expected = golden.data[f"loss/{their_name}"]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    gradient = tape.gradient(value, getattr(golden.predictions, field))
    _check_gradient(golden, f"loss/{their_name}", field, gradient)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_weighted_terms_and_their_sum(golden, make_loss, jit_compile):
    if "loss_coco_config_weights/total_loss" not in golden.data:
        weights, group = {}, "loss"
    else:
        weights = dict(pq_class_weight=3.0, pq_mask_weight=3.0, mask_id_weight=0.3)
        group = "loss_coco_config_weights"
    loss = make_loss(
        golden.num_classes,
        pixel_loss="INSTANCE_DISCRIMINATION",
        is_thing=golden.is_thing,
        **weights,
    )
    terms_of = tf.function(loss.terms, jit_compile=jit_compile, autograph=False)
    terms = terms_of(golden.targets, golden.predictions)
    parts = {name: golden.data[f"{group}/{_TERMS[name][0]}"] for name in _TERMS}
    for name, expected in parts.items():
        np.testing.assert_allclose(loss.weights[name] * terms[name], expected, 1e-5)
    expected = golden.data.get(f"{group}/total_loss", sum(parts.values()))
    np.testing.assert_allclose(loss.total(terms), expected, rtol=1e-5)
    np.testing.assert_allclose(
        loss(golden.targets, golden.predictions), expected.mean(), rtol=1e-5
    )


@pytest.mark.parametrize("matcher", ["HOST", "IN_GRAPH"])
def test_matching(golden, matcher):
    data, predictions = golden.data, golden.predictions
    _, overlaps, matching = _labels_and_matching(golden, matcher)
    real = data["match/gt_mask_is_real"]
    np.testing.assert_array_equal(
        matching.mask_centers, np.where(real, data["match/slot_of_gt_mask"], -1)
    )
    dice = mask_similarity(overlaps).numpy()
    np.testing.assert_allclose(
        dice[real], data["match/mask_similarity_dice"][real], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        void_ratio(overlaps),
        data["match/mask_void_ratio"],
        rtol=1e-5,
        atol=1e-7,
    )
    by_class = class_similarity(predictions.class_logits, golden.targets.mask_classes)
    np.testing.assert_allclose(
        (-dice * by_class)[real], data["match/weights"][real], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        -np.sum(matching.mask_similarity * matching.class_similarity, axis=1),
        data["match/optimal_total_real_rows"],
        rtol=1e-5,
    )


def test_contrastive_of_recorded_pixels(golden):
    labels, _, _ = _labels_and_matching(golden)
    features = golden.predictions.pixel_features
    pixels = labels.mask_ids.shape[1]
    groups = {key.split("/")[0] for key in golden.data if "contrastive" in key}
    groups = {name for name in groups if name.startswith("loss_")}
    assert len(groups) == 3
    for group in groups:
        everything = np.tile(np.arange(pixels), [len(features), 1])
        indices = golden.data.get(f"{group}/indices", everything)
        with tf.GradientTape() as tape:
            tape.watch(features)
            value = pixel_contrastive_loss(
                tf.gather(_flatten(features), indices, batch_dims=1),
                tf.gather(labels.mask_ids, indices, batch_dims=1),
                tf.ones(indices.shape),
                num_masks=golden.targets.mask_classes.shape[1],
                temperature=0.3,
            )
        key = f"{group}/instance_discrimination_loss"
        np.testing.assert_allclose(value, golden.data[key], rtol=1e-5, err_msg=key)
        gradient = tape.gradient(value, features)
        _check_gradient(golden, key, "pixel_features", gradient)


def test_semantic_of_recorded_pixels(golden):
    labels, _, _ = _labels_and_matching(golden)
    logits = golden.predictions.semantic_logits
    (key,) = (
        k
        for k in golden.data
        if k.startswith("loss_semantic_sampled") and k.endswith("semantic_loss")
    )
    indices = golden.data[key.replace("semantic_loss", "indices")]
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = semantic_loss(
            tf.gather(_flatten(logits), indices, batch_dims=1),
            tf.gather(labels.semantic, indices, batch_dims=1),
        )
    np.testing.assert_allclose(value, golden.data[key], rtol=1e-5)
    gradient = tape.gradient(value, logits)
    _check_gradient(golden, key, "semantic_logits", gradient)


def test_auxiliary_output_reuses_the_matching(golden_aux, make_loss):
    case = golden_aux
    labels, _, matching = _labels_and_matching(case)
    layer = LayerPredictions(case.aux("pixel_space_mask_logits"), None)
    loss = make_loss(case.num_classes, num_layers=1)
    terms = loss.terms(case.targets, case.predictions._replace(layers=(layer,)))
    is_thing = np.array([False, *case.is_thing])
    values = {
        "pq_style_loss_mask_dice_term": terms["layer1/pq_mask"],
        "mask_id_cross_entropy_loss": terms["layer1/mask_id"],
        "pq_style_loss_class_term": pq_class_loss(
            case.aux("transformer_class_logits"), matching
        ),
        "instance_discrimination_loss": instance_discrimination_loss(
            _flatten(case.aux("pixel_space_normalized_feature")),
            labels.mask_ids,
            masks=tf.one_hot(labels.mask_ids, case.targets.mask_classes.shape[1]),
            is_anchor=tf.constant(is_thing[case.targets.mask_classes.numpy()]),
            temperature=0.3,
        ),
    }
    for name, value in values.items():
        expected = case.data[f"loss_aux/aux_0{name}"]
        np.testing.assert_allclose(value, expected, rtol=1e-5, err_msg=name)
