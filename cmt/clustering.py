"""The paper's equations as pure functions. START HERE.

Cluster centers take turns with pixels: pixels are assigned to centers by feature
affinity (Eq. 6), centers are updated from their pixels (Eq. 5, 7), pixels from their
centers (Eq. 8), and both know where they are (Eq. 9-12). Variables live in
`cmt/layers/dual_path.py`, which calls these functions in this order.

Letters: b batch, p pixel, n center, m key of the attention, h head, d channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

TensorFunction = Callable[[tf.Tensor], tf.Tensor]
LOCATION_POWER = 3.0  # of coordinates over features, where both enter a convolution


def attention_weights(
    queries: tf.Tensor, keys: tf.Tensor, *, normalize: TensorFunction = tf.identity
) -> tf.Tensor:
    """softmax(Qc Kp^T) over the keys (the weights of Eq. 3).

    Paper: centers attend to pixels. Here: the caller may append the centers to the
    keys, and pixels may attend to centers, because in MaX-DeepLab, which the network
    is built on, they do.

    Args:
      queries: [B, N, heads, d].
      keys: [B, K, heads, d].
      normalize: applied to the logits [B, heads, N, K]; a batch norm in the network,
        in place of a division by sqrt(d).

    Returns:
      [B, heads, N, K] float32; the keys of a query sum to 1.
    """
    logits = normalize(tf.einsum("bnhd,bmhd->bhnm", queries, keys))
    return tf.nn.softmax(tf.cast(logits, tf.float32), axis=-1)  # over keys


def retrieve(weights: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """softmax(Qc Kp^T) Vp: what attention brings (Eq. 3, without C +).

    Args:
      weights: [B, heads, N, K], of `attention_weights`.
      values: [B, K, heads, e].

    Returns:
      [B, N, heads, e].
    """
    return tf.einsum("bhnm,bmhd->bnhd", tf.cast(weights, values.dtype), values)


def update_affinity(
    affinity_logits: tf.Tensor | None,
    pixel_keys: tf.Tensor,
    center_queries: tf.Tensor,
    *,
    normalize: TensorFunction = tf.identity,
) -> tf.Tensor:
    """S' = S + K~p Q~c^T, the residual affinity logits (inside Eq. 6).

    Args:
      affinity_logits: [B, P, N] S of the layer before; None in the first, where S = 0.
      pixel_keys: [B, P, d] K~p.
      center_queries: [B, N, d] Q~c.
      normalize: applied to the product [B, P, N]; a scalar batch norm in the network.

    Returns:
      [B, P, N] S'.
    """
    product = normalize(tf.einsum("bpd,bnd->bpn", pixel_keys, center_queries))
    return product if affinity_logits is None else affinity_logits + product


def assign(affinity_logits: tf.Tensor) -> tf.Tensor:
    """Z = softmax over the N centers (Eq. 4 and 6).

    Args:
      affinity_logits: [B, P, N].

    Returns:
      [B, P, N]; the centers of a pixel sum to 1.
    """
    logits = tf.cast(affinity_logits, tf.float32)
    return tf.nn.softmax(logits, axis=-1)  # over centers


def assign_to_best(affinity_logits: tf.Tensor) -> tf.Tensor:
    """Z of k-means: all of a pixel to the center of its largest logit.

    Not differentiated: the logits learn from their own supervision alone.
    Source: Yu et al., k-means Mask Transformer (kMaX-DeepLab), the authors' follow-up.

    Args:
      affinity_logits: [B, P, N].

    Returns:
      [B, P, N] of 0 and 1; the centers of a pixel sum to 1, the first of equals wins.
    """
    best = tf.argmax(affinity_logits, axis=-1, output_type=tf.int32)
    return tf.stop_gradient(
        tf.one_hot(best, affinity_logits.shape[-1], dtype=affinity_logits.dtype)
    )


def pool_pixels(assignment: tf.Tensor, pixel_values: tf.Tensor) -> tf.Tensor:
    """Z^T Vp: what a center receives from the pixels assigned to it (Eq. 5).

    Args:
      assignment: [B, P, N].
      pixel_values: [B, P, d].

    Returns:
      [B, N, d], a sum over pixels.
    """
    return tf.einsum("bpn,bpd->bnd", assignment, pixel_values)


def combine_updates(attended: tf.Tensor, pooled: tf.Tensor | None) -> tf.Tensor:
    """(softmax(Qc Kp^T) + Z^T) Vp, term by term (the bracket of Eq. 7).

    Args:
      attended: [B, N, d], the attention term of `retrieve`.
      pooled: [B, N, d], the clustering term of `pool_pixels`; None where clustering is
        off, which leaves Eq. 3.

    Returns:
      [B, N, d].
    """
    return attended if pooled is None else attended + pooled


def update_centers(cluster_centers: tf.Tensor, update: tf.Tensor) -> tf.Tensor:
    """C^ = C + (softmax(Qc Kp^T) + Z^T) Vp (Eq. 7), with the update in C's channels.

    Args:
      cluster_centers: [B, N, D].
      update: [B, N, D], of `combine_updates`.

    Returns:
      [B, N, D].
    """
    return cluster_centers + update


def spread_centers(assignment: tf.Tensor, center_values: tf.Tensor) -> tf.Tensor:
    """Z Vc: what a pixel receives from its centers (the update of Eq. 8).

    Args:
      assignment: [B, P, N].
      center_values: [B, N, d].

    Returns:
      [B, P, d].
    """
    return tf.einsum("bpn,bnd->bpd", assignment, center_values)


def update_pixels(pixel_features: tf.Tensor, update: tf.Tensor) -> tf.Tensor:
    """F^ = F + Z Vc (Eq. 8), with the update in the channels of F.

    Args:
      pixel_features: [B, ..., D].
      update: [B, ..., D].

    Returns:
      [B, ..., D].
    """
    return pixel_features + update


def update_reference_embedding(embedding: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
    """e^ = e + MLP(C) (Eq. 9).

    Args:
      embedding: [B, N, 2 M] e of the layer before.
      change: [B, N, 2 M] MLP(C).

    Returns:
      [B, N, 2 M].
    """
    return embedding + change


def reference_mask(embedding: tf.Tensor) -> tf.Tensor:
    """r = sigmoid(e^) (Eq. 10).

    Args:
      embedding: [B, N, 2 M], the M rows (h) first, then the M columns (w).

    Returns:
      [B, N, M, 2] points (h, w) in [0, 1].
    """
    rows, columns = tf.split(tf.sigmoid(embedding), 2, axis=-1)
    return tf.stack([rows, columns], axis=-1)


def pixel_coordinates(height: int, width: int, dtype: tf.DType) -> tf.Tensor:
    """r^p of Eq. 12: pixel (i, j) is at (i / (height - 1), j / (width - 1)).

    Args:
      height: rows, 1 or more; a single row is at 0.
      width: columns, 1 or more.
      dtype: of the result.

    Returns:
      [height, width, 2] (h, w) in [0, 1].
    """

    def axis(length):
        last = tf.cast(tf.maximum(length - 1, 1), tf.float32)
        return tf.cast(tf.range(length), tf.float32) / last

    grid = tf.meshgrid(axis(height), axis(width), indexing="ij")
    return tf.cast(tf.stack(grid, axis=-1), dtype)


def coordinate_convolution(
    features: tf.Tensor, coordinates: tf.Tensor, convolve: TensorFunction
) -> tf.Tensor:
    """Conv(Concat(features, coordinates)), 1x1 (Eq. 11 for centers, 12 for pixels).

    Paper: coordinates in [0, 1]. Here: they are shifted and scaled to have
    `LOCATION_POWER` times the power of the features, because 2 of 258 channels between
    0 and 1 are 0.1% of it: next to nothing of a center's update would be location.

    Args:
      features: [B, n, D].
      coordinates: [B or 1, n, K] in [0, 1].
      convolve: the convolution [B, n, D + K] -> [B, n, E].

    Returns:
      [B, n, E].
    """
    # A number between 0 and 1 has the variance 1 / 12, a feature, roughly, 1.
    channels, num_coordinates = features.shape[-1], coordinates.shape[-1]
    scale = math.sqrt(12.0 * LOCATION_POWER * channels / num_coordinates)
    shape = tf.concat([tf.shape(features)[:-1], [num_coordinates]], axis=0)
    coordinates = tf.broadcast_to(scale * (coordinates - 0.5), shape)
    joined = [features, tf.cast(coordinates, features.dtype)]
    return convolve(tf.concat(joined, axis=-1))
