"""The PQ-style loss: matched centers towards class and mask, the others to void.

MaX-DeepLab (Wang et al., CVPR 2021), Sec. 3.3: minus the similarity of the matched
pairs, its product rule applied by hand, so that each factor weighs the other's term as
a constant.
"""

from __future__ import annotations

import tensorflow as tf

from cmt.losses.reduction import at_least, nonzero_mean
from cmt.matching.masks import Matching, Overlaps

# Share of the matched pairs in the loss; the rest is for the unmatched centers.
_MATCHED_SHARE = 0.75
_LEAST_WEIGHT = 1e-5


def pq_class_loss(class_logits: tf.Tensor, matching: Matching) -> tf.Tensor:
    """Cross entropy of the centers' classes, weighted by how well their masks fit.

    Args:
      class_logits: [B, N, C + 1] float32, void last.
      matching: of the main output.

    Returns:
      [B] float32.
    """
    void = class_logits.shape[-1] - 1
    matched = matching.center_classes > 0
    labels = tf.where(matched, matching.center_classes - 1, void)
    weights = tf.where(
        matched,
        _MATCHED_SHARE * at_least(matching.mask_similarity, _LEAST_WEIGHT),
        (1.0 - _MATCHED_SHARE) * at_least(matching.void_ratio, _LEAST_WEIGHT),
    )
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, class_logits)
    return nonzero_mean(tf.stop_gradient(weights) * losses)


def pq_mask_loss(overlaps: Overlaps, matching: Matching) -> tf.Tensor:
    """Dice loss of the matched centers, weighted by how sure they are of the class.

    It is a sum over the matched masks, divided by the number of centers, not a mean.
    Pixels without a center count nowhere, nor do masks without a pixel.

    Args:
      overlaps: of the main output or of a layer.
      matching: of the main output.

    Returns:
      [B] float32.
    """
    centers = matching.mask_centers
    num_centers = overlaps.masks.shape[-1]
    pairs = tf.one_hot(centers, num_centers, dtype=tf.float32)
    intersection = tf.reduce_sum(overlaps.masks * pairs, axis=1)
    # Sums, because a TPU would round the operands of products, areas, to bfloat16.
    gt_area = tf.reduce_sum(overlaps.mask_areas[:, :, tf.newaxis] * pairs, axis=1)
    owned = tf.cast(centers >= 0, tf.float32)[:, :, tf.newaxis]
    pred_area = tf.reduce_sum(owned * overlaps.masks, axis=1)
    losses = 1.0 - (2.0 * intersection + 1.0) / (pred_area + gt_area + 1.0)
    weights = at_least(matching.class_similarity, _LEAST_WEIGHT)
    weights = tf.where(gt_area > 0.0, tf.stop_gradient(weights), 0.0)
    return _MATCHED_SHARE / num_centers * tf.reduce_sum(weights * losses, axis=1)
