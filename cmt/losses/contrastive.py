"""Losses on pixel features: pixels of one mask together, of different masks apart.

`pixel_contrastive_loss` (Eq. 14) compares pixels with pixels,
`instance_discrimination_loss` (MaX-DeepLab) pixels with the mean of each mask. Products
are of float32: operands in bfloat16 change gradients of the pixel features by 1.3e-3 of
the largest (measured at the size of `benchmarks/loss.py`).
"""

from __future__ import annotations

import tensorflow as tf

from cmt.losses.products import matmul
from cmt.losses.reduction import at_least, gradient_only, nonzero_mean
from cmt.random_numbers import uniform

# A logit that is never chosen; the value of the authors' published code.
_NEVER = -99999.0
# The least normal float32: keeps logarithms finite.
_TINY = 1.2e-38
# Of the matrix of similarities: few enough that a stripe stays in the cache.
_STRIPE_ROWS = 512


def sample_pixels(
    mask_ids: tf.Tensor,
    mask_areas: tf.Tensor,
    not_void: tf.Tensor,
    *,
    num_pixels: int,
    power: float,
) -> tf.Tensor:
    """Draws the pixels A of Eq. 14 without replacement, small masks favoured.

    The odds of a pixel are (P / area of its mask) ** power. One that has a class and
    no mask (a crowd) counts as a mask of one pixel, as in the authors' published code.
    Void pixels come last, where an image has too few others.

    Args:
      mask_ids: [B, P] int32, -1 where no mask owns the pixel.
      mask_areas: [B, G] float32, in pixels.
      not_void: [B, P] float32, 0 on void pixels, else 1.
      num_pixels: k, how many to draw; at most P.
      power: of the sampling probability; 0 draws uniformly.

    Returns:
      [B, k] int32, indices of pixels.
    """
    pixels = mask_ids.shape[1]
    own_area = tf.gather(mask_areas, tf.maximum(mask_ids, 0), batch_dims=1)
    own_area = tf.maximum(tf.where(mask_ids >= 0, own_area, 1.0), 1.0)
    logits = power * tf.math.log(pixels / own_area) + _NEVER * (1.0 - not_void)
    drawn = tf.maximum(uniform(tf.shape(logits)[0], [pixels]), _TINY)
    gumbel = -tf.math.log(-tf.math.log(drawn))
    return tf.math.top_k(logits + gumbel, k=num_pixels, sorted=False).indices


def pixel_contrastive_loss(
    pixel_features: tf.Tensor,
    mask_ids: tf.Tensor,
    in_set: tf.Tensor,
    *,
    num_masks: int,
    temperature: float,
) -> tf.Tensor:
    """Contrasts every sampled pixel with all of them (Eq. 14).

    The positives of a pixel are the pixels of its mask, itself among them. A pixel
    without a mask is in every denominator and has a loss of 0.

    Args:
      pixel_features: [B, K, D] float32 of unit length over D, the sampled pixels A.
      mask_ids: [B, K] int32, mask that owns the pixel, -1 where none does.
      in_set: [B, K] float32, 1 where the pixel belongs to A, 0 for one that only fills
        up the K (void, in an image with fewer other pixels) and counts nowhere.
      num_masks: G, greater than every mask id.
      temperature: divides the cosine similarities, above 0.

    Returns:
      [B] float32.
    """
    masks = tf.one_hot(mask_ids, num_masks, dtype=tf.float32)
    masks = masks * in_set[:, :, tf.newaxis]
    count = tf.maximum(tf.reduce_sum(masks, axis=1), 1.0)[:, :, tf.newaxis]
    mean = matmul(masks, pixel_features, transpose_left=True) / count
    # The mean log-numerator over a pixel's positives is the similarity to their mean.
    own_mean = matmul(masks, mean)
    positive = tf.reduce_sum(pixel_features * own_mean, axis=-1) / temperature
    has_mask = tf.reduce_sum(masks, axis=-1) > 0.0
    log_sum = _log_sum_similarity(pixel_features, in_set, temperature)
    # Paper: a sum over the pixels A. Here: the mean over those with a loss, as in the
    # authors' published code, because the weight of 1 belongs to that.
    # The same code gives pixels without a mask no value, but a gradient away from all.
    others = gradient_only(log_sum) * in_set
    return nonzero_mean(tf.where(has_mask, log_sum - positive, others))


def _log_sum_similarity(
    features: tf.Tensor, in_set: tf.Tensor, temperature: float
) -> tf.Tensor:
    """Log of the sum over t of exp(f_s . f_t / temperature), [B, K], t in the set.

    The matrix of K x K values is symmetric: only its upper half is computed, in stripes
    of rows that begin at the diagonal, and kept for the gradient.
    """
    pixels = features.shape[1]
    starts = range(0, pixels, _STRIPE_ROWS)

    @tf.custom_gradient
    def log_sum(features: tf.Tensor):
        squared_length = tf.reduce_sum(features * features, axis=-1)
        shift = tf.reduce_max(squared_length, axis=1)[:, tf.newaxis] / temperature
        members = in_set[:, :, tf.newaxis]
        stripes, totals = [], []
        for start in starts:
            end = min(start + _STRIPE_ROWS, pixels)
            rows = features[:, start:end] / temperature
            similarity = matmul(rows, features[:, start:], transpose_right=True)
            stripe = tf.exp(similarity - shift[:, :, tf.newaxis])
            across = matmul(stripe, members[:, start:])
            down = matmul(stripe, members[:, start:end], transpose_left=True)
            stripes.append(stripe)
            totals += _both_sides(across, down, start, pixels)
        # Of unit length, a pixel of the set adds exp(0) = 1 to its own sum.
        total = at_least(tf.squeeze(tf.add_n(totals), axis=-1), _TINY)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            share = (upstream / total)[:, :, tf.newaxis]
            sides = tf.concat([share, members], axis=-1)
            other_sides = tf.concat([members, share], axis=-1)
            gradients = []
            for start, stripe in zip(starts, stripes, strict=True):
                end = min(start + _STRIPE_ROWS, pixels)
                # One stripe after the other, or the pairs of all take memory at once.
                with tf.control_dependencies(gradients[-1:]):
                    pairs = stripe * matmul(
                        sides[:, start:end],
                        other_sides[:, start:],
                        transpose_right=True,
                    )
                across = matmul(pairs, features[:, start:])
                down = matmul(pairs, features[:, start:end], transpose_left=True)
                gradients += _both_sides(across, down, start, pixels)
            return tf.add_n(gradients) / temperature

        return tf.math.log(total) + shift, gradient

    return log_sum(features)


def _both_sides(
    across: tf.Tensor, down: tf.Tensor, start: int, pixels: int
) -> list[tf.Tensor]:
    """What a stripe adds to its own rows and, by symmetry, to those below, [B, K, D].

    Args:
      across: [B, R, D], for its R rows.
      down: [B, K - start, D], for the rows from `start` on, its own among them.
      start: its first row.
      pixels: K.
    """
    rows = across.shape[1]
    below = pixels - start - rows
    parts = [tf.pad(across, [[0, 0], [start, below], [0, 0]])]
    if below:
        parts.append(tf.pad(down[:, rows:], [[0, 0], [start + rows, 0], [0, 0]]))
    return parts


def instance_discrimination_loss(
    pixel_features: tf.Tensor,
    mask_ids: tf.Tensor,
    *,
    masks: tf.Tensor,
    is_anchor: tf.Tensor,
    temperature: float,
) -> tf.Tensor:
    """Contrasts pixels with the normalised mean feature of every mask.

    MaX-DeepLab (Wang et al., CVPR 2021), Sec. 3.4. The means are differentiated.

    Args:
      pixel_features: [B, P, D] float32 of unit length over D.
      mask_ids: [B, P] int32, mask that owns the pixel, -1 where none does.
      masks: [B, P, G] float32, `mask_ids` as zeros and ones.
      is_anchor: [B, G] bool, masks whose pixels have a loss; the others are in the
        denominators only.
      temperature: divides the cosine similarities, above 0.

    Returns:
      [B] float32.
    """
    area = tf.reduce_sum(masks, axis=1)
    total = matmul(masks, pixel_features, transpose_left=True)
    mean = total / tf.maximum(area, 1.0)[:, :, tf.newaxis]
    mean = tf.math.l2_normalize(mean, axis=-1)
    logits = matmul(pixel_features, mean, transpose_right=True) / temperature
    logits = tf.where((area > 0.0)[:, tf.newaxis, :], logits, _NEVER)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.maximum(mask_ids, 0), logits
    )
    own_is_anchor = tf.gather(is_anchor, tf.maximum(mask_ids, 0), batch_dims=1)
    return nonzero_mean(tf.where(own_is_anchor & (mask_ids >= 0), losses, 0.0))
