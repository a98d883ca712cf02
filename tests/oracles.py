"""The losses as NumPy loops in float64, one image at a time, slow and plain.

Axes as in the code: P pixels, N centers, G masks, C classes, D channels, M points.
Masks are `mask_ids` [P], -1 where none; centers of masks `mask_centers` [G], -1 too.
"""

from __future__ import annotations

import math

import numpy as np


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    top = max(logits)
    return logits - top - math.log(sum(math.exp(x - top) for x in logits))


def _softmax_rows(logits: np.ndarray) -> np.ndarray:
    return np.stack([np.exp(_log_softmax(row)) for row in logits])


def _nonzero_mean(values: list[float]) -> float:
    nonzero = [value for value in values if value != 0.0]
    return sum(nonzero) / len(nonzero) if nonzero else 0.0


def similarity(mask_logits, class_logits, mask_ids, mask_classes, not_void):
    """Dice [G, N] and class similarity [G, N]."""
    assignment = _softmax_rows(mask_logits)
    classes = _softmax_rows(class_logits)
    dice = np.zeros([len(mask_classes), assignment.shape[1]])
    by_class = np.zeros_like(dice)
    for g, mask_class in enumerate(mask_classes):
        for n in range(assignment.shape[1]):
            shared = gt_area = pred_area = 0.0
            for p in range(len(mask_ids)):
                pred_area += assignment[p, n] * not_void[p]
                if mask_ids[p] == g:
                    gt_area += 1.0
                    shared += assignment[p, n] * not_void[p]
            dice[g, n] = shared / ((gt_area + pred_area) / 2.0 + 1e-5)
            by_class[g, n] = classes[n, mask_class - 1] if mask_class else 0.0
    return dice, by_class


def pq_class(mask_logits, class_logits, mask_ids, mask_classes, not_void, mask_centers):
    """PQ-style class term."""
    dice, _ = similarity(mask_logits, class_logits, mask_ids, mask_classes, not_void)
    assignment = _softmax_rows(mask_logits)
    losses = []
    for n, logits in enumerate(class_logits):
        label, weight = len(logits) - 1, None
        for g, center in enumerate(mask_centers):
            if center == n:
                label, weight = mask_classes[g] - 1, 0.75 * max(dice[g, n], 1e-5)
        if weight is None:
            void = area = 0.0
            for p in range(len(mask_ids)):
                area += assignment[p, n]
                void += assignment[p, n] * (1.0 - not_void[p])
            weight = 0.25 * max(void / (area + 1e-5), 1e-5)
        losses.append(-weight * _log_softmax(logits)[label])
    return _nonzero_mean(losses)


def pq_mask(mask_logits, mask_ids, mask_centers, class_weights):
    """PQ-style mask term; `class_weights` [G] are constants."""
    probs = _softmax_rows(mask_logits)
    owned = [p for p, g in enumerate(mask_ids) if g >= 0 and mask_centers[g] >= 0]
    total = 0.0
    for g, center in enumerate(mask_centers):
        area = sum(mask_ids[p] == g for p in owned)
        if center < 0 or not area:
            continue
        shared = sum(probs[p, center] for p in owned if mask_ids[p] == g)
        covered = sum(probs[p, center] for p in owned)
        dice = (2.0 * shared + 1.0) / (covered + area + 1.0)
        total += max(class_weights[g], 1e-5) * (1.0 - dice)
    return 0.75 / probs.shape[1] * total


def mask_id(mask_logits, mask_ids, mask_centers):
    """Mask-ID cross entropy."""
    losses = []
    for p, g in enumerate(mask_ids):
        center = mask_centers[g] if g >= 0 else -1
        losses.append(-_log_softmax(mask_logits[p])[center] if center >= 0 else 0.0)
    return _nonzero_mean(losses)


def semantic(semantic_logits, labels):
    """Semantic cross entropy; label 0 is void."""
    return _nonzero_mean(
        [
            -_log_softmax(x)[c] if c else 0.0
            for x, c in zip(semantic_logits, labels, strict=True)
        ]
    )


def mask_approximation(reference_points, mask_ids, mask_centers, height, width):
    """Eq. 13 for the points [N, M, 2] of one layer."""
    extreme = center = 0.0
    matched = [g for g, n in enumerate(mask_centers) if n >= 0]
    for g in matched:
        for axis, size in ((0, height), (1, width)):
            points = [point[axis] for point in reference_points[mask_centers[g]]]
            places = []
            for p, owner in enumerate(mask_ids):
                if owner == g:
                    place = p // width if axis == 0 else p % width
                    places.append(place / (size - 1) if size > 1 else 0.0)
            extreme += abs(min(points) - min(places))
            extreme += abs(max(points) - max(places))
            center += abs(sum(points) / len(points) - sum(places) / len(places))
    k = len(matched)
    return extreme / (4.0 * k) + center / (2.0 * k) if k else 0.0


def pixel_contrastive(features, mask_ids, in_set, temperature):
    """Eq. 14, averaged over the pixels that have a loss."""
    members = [a for a in range(len(features)) if in_set[a]]
    losses = []
    for a in members:
        positives = [p for p in members if mask_ids[p] == mask_ids[a] >= 0]
        if not positives:
            continue
        denominator = sum(
            math.exp(float(np.dot(features[a], features[b])) / temperature)
            for b in members
        )
        loss = 0.0
        for p in positives:
            numerator = math.exp(float(np.dot(features[a], features[p])) / temperature)
            loss -= math.log(numerator / denominator) / len(positives)
        losses.append(loss)
    return _nonzero_mean(losses)


def instance_discrimination(features, mask_ids, num_masks, is_anchor, temperature):
    """MaX-DeepLab's loss against the mean feature of each mask."""
    means = {}
    for g in range(num_masks):
        own = [features[p] for p in range(len(features)) if mask_ids[p] == g]
        if own:
            mean = sum(own) / len(own)
            means[g] = mean / math.sqrt(max(float(np.dot(mean, mean)), 1e-12))
    losses = []
    for p, g in enumerate(mask_ids):
        if g < 0 or not is_anchor[g]:
            continue
        scores = {m: float(np.dot(features[p], means[m])) / temperature for m in means}
        denominator = sum(math.exp(score) for score in scores.values())
        losses.append(math.log(denominator) - scores[g])
    return _nonzero_mean(losses)
