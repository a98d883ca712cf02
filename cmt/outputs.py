"""What goes into the network's loss and what comes out of the network.

Shapes, here and everywhere: B images, H x W input pixels, N cluster centers,
C classes (void not counted), M points of a reference mask, G the most ground-truth
masks of an image. h x w is the output resolution, stride 4: h = ceil(H / 4).

Labels: class 0 is void, 1..C are the classes in the order of the data set's
categories ("contiguous"). `class_logits` has void last: index c is class c + 1.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class LayerPredictions(NamedTuple):
    """How one transformer layer clusters the pixels.

    Attributes:
      affinity_logits: [B, ceil(H / 16), ceil(W / 16), N] float32, S' of Eq. 6; None
        where clustering is off.
      reference_points: [B, N, M, 2] float32, (h, w) in [0, 1], Eq. 10; None where
        the location module is off.
      center_attention: [B, heads, N, ceil(H / 16), ceil(W / 16)] float32 in [0, 1],
        how much a center attends to each pixel, Eq. 3; the pixels of a center and a
        head sum to at most 1, because the softmax runs over pixels and centers. In
        inference alone; None in training and where centers attend to no pixels
        (k-means).
    """

    affinity_logits: tf.Tensor | None
    reference_points: tf.Tensor | None
    center_attention: tf.Tensor | None = None


class Predictions(NamedTuple):
    """The output of the network.

    Attributes:
      mask_logits: [B, h, w, N] float32, softmax over N gives the masks.
      class_logits: [B, N, C + 1] float32, void last.
      pixel_features: [B, h, w, D] float32 of unit length over D.
      semantic_logits: [B, h, w, C + 1] float32, channel = class, 0 is void; None
        where the auxiliary branch is off.
      layers: one entry a transformer layer, first to last.
      stride4_features: [B, h, w, 4 f2], the decoder's output before activation, which
        the second pass of a recursive feature network takes in.
      first_pass: of a recursive feature network; None elsewhere.
    """

    mask_logits: tf.Tensor
    class_logits: tf.Tensor
    pixel_features: tf.Tensor
    semantic_logits: tf.Tensor | None
    layers: tuple[LayerPredictions, ...]
    stride4_features: tf.Tensor | None = None
    first_pass: Predictions | None = None


class Targets(NamedTuple):
    """The ground truth of a batch.

    Attributes:
      semantic: [B, H, W] int32, class of each pixel, 0 where void.
      mask_ids: [B, H, W] int32, index in `mask_classes` of the mask that owns the
        pixel, -1 where none does (void, crowd).
      mask_classes: [B, G] int32, class 1..C of each mask, 0 where there is no mask.
      image_ids: [B] int32, place of the image in its data set, counted from 0 in the
        order of the shards; None where nobody asks.
    """

    semantic: tf.Tensor
    mask_ids: tf.Tensor
    mask_classes: tf.Tensor
    image_ids: tf.Tensor | None = None
