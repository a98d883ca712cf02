"""The same losses in the plainest TensorFlow: dense one-hot tensors throughout.

Written as the formulas of the papers read, to compare results, time and memory with.
Nothing is shared between terms or layers but the matching. To be fair it permutes the
labels to the order of the centers, which is cheaper than permuting logits, and draws
the pixels of Eq. 14 and solves the assignment by the package's own functions.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from cmt.losses import PanopticLoss, sample_pixels
from cmt.matching.assignment import assign_in_graph
from cmt.matching.masks import assign, choose_matcher, largest_masks
from cmt.outputs import LayerPredictions, Predictions, Targets


class _Labels(NamedTuple):
    """Labels at a resolution; P pixels, G masks.

    Attributes:
      semantic: [B, P] int32.
      mask_ids: [B, P] int32, -1 where no mask owns the pixel.
      masks: [B, P, G] float32, one-hot.
      not_void: [B, P] float32.
    """

    semantic: tf.Tensor
    mask_ids: tf.Tensor
    masks: tf.Tensor
    not_void: tf.Tensor


class _Matching(NamedTuple):
    """Permutation [B, G, N] of masks and centers; dice, class probability, void [B, N].

    `classes` [B, N] are those of the centers' masks, 0 where there is none.
    """

    permutation: tf.Tensor
    classes: tf.Tensor
    dice: tf.Tensor
    class_probs: tf.Tensor
    void_ratio: tf.Tensor


def straightforward_terms(
    loss: PanopticLoss, targets: Targets, predictions: Predictions
) -> dict[str, tf.Tensor]:
    """All terms [B] of one pass, by the names of `PanopticLoss.terms`.

    Args:
      loss: with the contrastive loss; what it is called with elsewhere.
      targets: the ground truth.
      predictions: without a first pass.
    """
    labels = _labels(targets, predictions.mask_logits)
    matching = _match(loss, labels, targets.mask_classes, predictions)
    terms = {
        "pq_class": _pq_class(predictions.class_logits, matching),
        "pixel_contrastive": _contrastive(loss, labels, predictions.pixel_features),
        "semantic": _semantic(targets, predictions.semantic_logits),
    }
    terms |= _mask_terms(targets, predictions.mask_logits, matching)
    size = predictions.mask_logits.shape[1:3]
    for number, layer in enumerate(predictions.layers, start=1):
        found = _mask_terms(targets, layer.affinity_logits, matching)
        found["mask_approximation"] = _mask_approximation(layer, labels, size, matching)
        terms |= {f"layer{number}/{name}": term for name, term in found.items()}
    return terms


def _flatten(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, [-1, x.shape[1] * x.shape[2], *x.shape[3:]])


def _strided(labels: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
    rows = (labels.shape[1] - 1) // (prediction.shape[1] - 1)
    columns = (labels.shape[2] - 1) // (prediction.shape[2] - 1)
    return _flatten(labels[:, ::rows, ::columns])


def _labels(targets: Targets, prediction: tf.Tensor) -> _Labels:
    semantic = _strided(targets.semantic, prediction)
    mask_ids = _strided(targets.mask_ids, prediction)
    masks = tf.one_hot(mask_ids, targets.mask_classes.shape[1])
    masks *= tf.cast(targets.mask_classes > 0, tf.float32)[:, tf.newaxis, :]
    not_void = tf.cast(semantic > 0, tf.float32)
    masks *= not_void[:, :, tf.newaxis]
    owned = tf.reduce_sum(masks, axis=2) > 0.0
    return _Labels(semantic, tf.where(owned, mask_ids, -1), masks, not_void)


def _match(
    loss: PanopticLoss,
    labels: _Labels,
    mask_classes: tf.Tensor,
    predictions: Predictions,
) -> _Matching:
    assignment = tf.nn.softmax(tf.stop_gradient(_flatten(predictions.mask_logits)))
    not_void = labels.not_void[:, :, tf.newaxis]
    overlap = tf.matmul(labels.masks, assignment, transpose_a=True)
    areas = tf.reduce_sum(labels.masks, axis=1)
    pred_areas = tf.reduce_sum(not_void * assignment, axis=1)
    dice = overlap / ((areas[:, :, None] + pred_areas[:, None, :]) / 2.0 + 1e-5)
    on_void = tf.reduce_sum((1.0 - not_void) * assignment, axis=1)
    probs = tf.nn.softmax(tf.stop_gradient(predictions.class_logits))[:, :, :-1]
    one_hot_classes = tf.one_hot(mask_classes - 1, loss.num_classes)
    class_probs = tf.matmul(one_hot_classes, probs, transpose_b=True)

    num_centers = dice.shape[2]
    real = largest_masks(areas, num_centers)
    in_graph = choose_matcher(loss.matcher) == "IN_GRAPH"
    solve = assign_in_graph if in_graph else assign
    permutation = tf.one_hot(solve(-dice * class_probs, real), num_centers)
    classes = tf.cast(mask_classes, tf.float32)[:, :, tf.newaxis]
    return _Matching(
        permutation,
        tf.cast(tf.reduce_sum(permutation * classes, axis=1), tf.int32),
        tf.reduce_sum(permutation * dice, axis=1),
        tf.reduce_sum(permutation * class_probs, axis=1),
        on_void / (tf.reduce_sum(assignment, axis=1) + 1e-5),
    )


def _mean(losses: tf.Tensor) -> tf.Tensor:
    """Mean over the entries that are not zero."""
    count = tf.reduce_sum(tf.cast(losses != 0.0, tf.float32), axis=1)
    return tf.math.divide_no_nan(tf.reduce_sum(losses, axis=1), count)


def _pq_class(class_logits: tf.Tensor, matching: _Matching) -> tf.Tensor:
    num_classes = class_logits.shape[2]
    matched = matching.classes > 0
    labels = tf.where(matched, matching.classes - 1, num_classes - 1)
    losses = tf.nn.softmax_cross_entropy_with_logits(
        tf.one_hot(labels, num_classes), class_logits
    )
    of_matched = 0.75 * tf.maximum(matching.dice, 1e-5)
    of_others = 0.25 * tf.maximum(matching.void_ratio, 1e-5)
    return _mean(losses * tf.where(matched, of_matched, of_others))


def _mask_terms(
    targets: Targets, logits: tf.Tensor, matching: _Matching
) -> dict[str, tf.Tensor]:
    labels = _labels(targets, logits)
    logits = _flatten(logits)
    masks = tf.matmul(labels.masks, matching.permutation)
    owned = tf.reduce_sum(masks, axis=2)

    probs = tf.nn.softmax(logits) * owned[:, :, tf.newaxis]
    areas = tf.reduce_sum(masks, axis=1)
    twice_overlap = 2.0 * tf.reduce_sum(probs * masks, axis=1)
    dice = (twice_overlap + 1.0) / (tf.reduce_sum(probs, axis=1) + areas + 1.0)
    weights = tf.maximum(matching.class_probs, 1e-5) * tf.cast(areas > 0.0, tf.float32)
    pq_mask = 0.75 / logits.shape[2] * tf.reduce_sum(weights * (1.0 - dice), axis=1)

    # Crowds have a target of zeros and a weight of 1; unmatched masks count as void.
    unmatched = tf.reduce_sum(labels.masks, axis=2) - owned
    losses = tf.nn.softmax_cross_entropy_with_logits(masks, logits)
    mask_id = _mean(labels.not_void * (1.0 - unmatched) * losses)
    return {"pq_mask": pq_mask, "mask_id": mask_id}


def _contrastive(loss: PanopticLoss, labels: _Labels, features: tf.Tensor) -> tf.Tensor:
    features, ids, in_set = _flatten(features), labels.mask_ids, labels.not_void
    if loss.contrastive_pixels < features.shape[1]:
        indices = sample_pixels(
            ids,
            tf.reduce_sum(labels.masks, axis=1),
            in_set,
            num_pixels=loss.contrastive_pixels,
            power=loss.contrastive_sampling_power,
        )
        features = tf.gather(features, indices, batch_dims=1)
        ids = tf.gather(ids, indices, batch_dims=1)
        in_set = tf.gather(in_set, indices, batch_dims=1)
    same = (ids[:, :, None] == ids[:, None, :]) & (ids >= 0)[:, :, None]
    positives = tf.cast(same, tf.float32)
    count = tf.reduce_sum(positives, axis=2, keepdims=True)
    similarity = tf.matmul(features, features, transpose_b=True)
    logits = similarity / loss.pixel_loss_temperature
    logits -= 99999.0 * (1.0 - in_set[:, None, :])
    losses = tf.nn.softmax_cross_entropy_with_logits(
        tf.math.divide_no_nan(positives, count), logits
    )
    return _mean(in_set * losses)


def _semantic(targets: Targets, semantic_logits: tf.Tensor) -> tf.Tensor:
    semantic = _strided(targets.semantic, semantic_logits)
    one_hot = tf.one_hot(semantic, semantic_logits.shape[3])
    losses = tf.nn.softmax_cross_entropy_with_logits(one_hot, _flatten(semantic_logits))
    return _mean(tf.cast(semantic > 0, tf.float32) * losses)


def _mask_approximation(
    layer: LayerPredictions, labels: _Labels, size: tf.TensorShape, matching: _Matching
) -> tf.Tensor:
    grid = tf.reshape(labels.masks, [-1, *size, labels.masks.shape[2]])
    losses = []
    for axis in (1, 2):
        counts = tf.reduce_sum(grid, axis=3 - axis)
        places = tf.range(size[axis - 1], dtype=tf.float32) / (size[axis - 1] - 1)
        places = places[tf.newaxis, :, tf.newaxis]
        points = layer.reference_points[:, :, :, axis - 1]
        area = tf.reduce_sum(counts, axis=1)
        for weight, ours, theirs in (
            (
                0.25,
                tf.reduce_min(points, axis=2),
                tf.reduce_min(tf.where(counts > 0.0, places, 1.0), axis=1),
            ),
            (
                0.25,
                tf.reduce_max(points, axis=2),
                tf.reduce_max(tf.where(counts > 0.0, places, 0.0), axis=1),
            ),
            (
                0.5,
                tf.reduce_mean(points, axis=2),
                tf.math.divide_no_nan(tf.reduce_sum(counts * places, axis=1), area),
            ),
        ):
            at_centers = tf.einsum("bgn,bg->bn", matching.permutation, theirs)
            losses.append(weight * tf.abs(ours - at_centers))
    matched = tf.reduce_sum(matching.permutation, axis=1)
    total = tf.reduce_sum(matched * tf.add_n(losses), axis=1)
    return tf.math.divide_no_nan(total, tf.reduce_sum(matched, axis=1))
