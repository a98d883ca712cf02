"""How densely centers attend to pixels: the paper's Fig. 1 as a number.

A center that spreads its weights w, of sum 1, over the pixels as if there were E of
them with equal weights has the effective number of pixels

    E = exp(-sum_p w_p log w_p),

the exponential of the entropy: 1 if all weight is on one pixel, P if P pixels have
equal weights.

Which weights? Fig. 1 shows "averaged multi-head attentions", and the paper calls
attention denser because of Eq. 7, in which a center gets (softmax(Qc Kp^T) + Z^T) Vp.
So there are two numbers: of the attention alone, averaged over heads, and of the sum
of Eq. 7 as it is printed. In that sum the pixels of the attention add up to 1 at most,
those of Z to the area of the cluster, which is more: the number of the sum is nearly
that of Z, and it is larger than the attention's by design. Whether the attention
itself gets denser is what only the first number tells. (The network normalises each
term before it adds them, channel by channel, which no single weight describes.)

Weights that are equal everywhere are densest and tell a center nothing. So a second
number goes with the first, for what the paper calls "more consistent with the final
segmentation": the share of the weights that lies on the center's own final mask.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import softmax

if TYPE_CHECKING:
    import tensorflow as tf

    from cmt.outputs import LayerPredictions, Predictions


class CenterWeights(NamedTuple):
    """The weights that pixels have in a layer's update of the centers (Eq. 7).

    Attributes:
      attention: [B, heads, N, h, w], softmax(Qc Kp^T); None where centers attend to no
        pixels.
      assignment: [B, N, h, w], Z^T; None without clustering.
    """

    attention: np.ndarray | None
    assignment: np.ndarray | None

    @property
    def mean_attention(self) -> np.ndarray | None:
        """[B, N, h, w], the attention averaged over the heads."""
        return None if self.attention is None else self.attention.mean(1)

    @property
    def update(self) -> np.ndarray:
        """[B, N, h, w], attention plus assignment, as far as the layer has them."""
        terms = (self.mean_attention, self.assignment)
        return sum(term for term in terms if term is not None)


def center_weights(layer: LayerPredictions) -> CenterWeights:
    """Reads the weights of Eq. 7 from what a layer predicts in inference.

    A layer that clusters and does not attend is one of k-means: its Z is 0 or 1.
    """
    from cmt import clustering

    attention, assignment = layer.center_attention, None
    if layer.affinity_logits is not None:
        is_hard = attention is None
        assign = clustering.assign_to_best if is_hard else clustering.assign
        assignment = np.moveaxis(assign(layer.affinity_logits).numpy(), -1, 1)
    return CenterWeights(None if attention is None else attention.numpy(), assignment)


def effective_pixels(weights: np.ndarray) -> np.ndarray:
    """E = exp(entropy) of the weights, which are divided by their sum first.

    Args:
      weights: [..., h, w], 0 or more.

    Returns:
      [...] float64 in [1, h w]; 0 where all weights are 0.
    """
    flat = weights.reshape([*weights.shape[:-2], -1]).astype(np.float64)
    total = flat.sum(-1, keepdims=True)
    shares = flat / np.where(total > 0, total, 1)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.where(total[..., 0] > 0, np.exp(-(shares * logarithms).sum(-1)), 0.0)


def final_masks(predictions: Predictions) -> np.ndarray:
    """Gives each pixel of the layers' grid to the center that wins it in the end.

    Returns:
      [B, N, h, w] bool, of the mask logits at every fourth pixel: those lie where the
      pixels of stride 16 do.
    """
    logits = predictions.mask_logits.numpy()[:, ::4, ::4]
    winners = logits.argmax(-1)[:, np.newaxis]
    return winners == np.arange(logits.shape[-1])[:, np.newaxis, np.newaxis]


def share_on_mask(weights: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The part of the weights that lies inside of masks.

    Args:
      weights: [..., h, w], 0 or more.
      masks: [..., h, w] bool.

    Returns:
      [...] float64 in [0, 1]; 0 where all weights are 0.
    """
    total = weights.sum((-2, -1), dtype=np.float64)
    inside = np.where(masks, weights, 0).sum((-2, -1), dtype=np.float64)
    return inside / np.where(total > 0, total, 1)


def confident_centers(class_logits: tf.Tensor, confidence: float) -> np.ndarray:
    """Tells which centers are sure of a class other than void.

    Args:
      class_logits: [B, N, C + 1], void last.
      confidence: the least probability of the class.

    Returns:
      [B, N] bool.
    """
    class_probs = softmax(np.asarray(class_logits), axis=-1)[..., :-1]
    return class_probs.max(-1) >= confidence


def attention_density(
    batches: Iterable[tuple[Predictions, np.ndarray]],
) -> list[dict[str, float]]:
    """Averages the effective number of pixels over centers, layer by layer.

    All pixels of the grid count, those of padding too.

    Args:
      batches: predictions of inference, and [B, N] bool, the centers that count: the
        confident ones or those that are matched with a mask. The others stand for
        nothing, and where they look says nothing.

    Returns:
      For each layer, over all centers of all batches:
        attention: mean E of the attention averaged over heads; missing in k-means.
        attention_of_a_head: mean E of the single heads; missing in k-means.
        update: mean E of attention plus assignment (Eq. 7); the same as `attention`
          without clustering, the hard assignment's in k-means.
        attention_on_mask, update_on_mask: mean share of these weights on the center's
          final mask; the first is missing in k-means.
        pixels: h w of the grid; E / pixels is the share of all pixels.
        centers: how many centers are averaged.
      The means are NaN if no center counts.
    """
    sums: list[dict[str, float]] = []
    for predictions, centers in batches:
        masks = final_masks(predictions)
        sums = sums or [{} for _ in predictions.layers]
        for layer, numbers in zip(predictions.layers, sums, strict=True):
            weights = center_weights(layer)
            found = _named("update", weights.update, masks)
            if weights.attention is not None:
                found |= _named("attention", weights.mean_attention, masks)
                heads = effective_pixels(weights.attention)
                found["attention_of_a_head"] = heads.mean(1)
            for name, values in found.items():
                numbers[name] = numbers.get(name, 0.0) + float(values[centers].sum())
            numbers["centers"] = numbers.get("centers", 0) + int(centers.sum())
            numbers["pixels"] = int(np.prod(weights.update.shape[-2:]))
    counts = ("centers", "pixels")
    return [
        {
            name: number if name in counts else number / (layer["centers"] or np.nan)
            for name, number in layer.items()
        }
        for layer in sums
    ]


def _named(name: str, weights: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers [B, N] of one kind of weights [B, N, h, w]."""
    return {
        name: effective_pixels(weights),
        f"{name}_on_mask": share_on_mask(weights, masks),
    }
