"""All terms and their weights: the one place that knows either list."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Literal

import tensorflow as tf

from cmt.losses.contrastive import (
    instance_discrimination_loss,
    pixel_contrastive_loss,
    sample_pixels,
)
from cmt.losses.mask_approximation import (
    MaskExtents,
    mask_approximation_loss,
    mask_extents,
)
from cmt.losses.mask_id import mask_id_loss
from cmt.losses.pq_style import pq_class_loss, pq_mask_loss
from cmt.losses.semantic import semantic_loss
from cmt.losses.targets import (
    PixelTargets,
    pixel_targets,
    stride_labels,
)
from cmt.matching import Matching, match_masks, take
from cmt.outputs import LayerPredictions, Predictions, Targets

_PIXEL_LOSSES = ("PIXEL_CONTRASTIVE", "INSTANCE_DISCRIMINATION")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PanopticLoss:
    """The loss of the network: weighted sum of terms, each scored by its own function.

    Matching, and the weights that one factor of the PQ-style loss gives the other, come
    from the main output and are reused for every layer.

    Attributes:
      num_classes: C, void not counted.
      num_layers: the most layers that predictions have.
      pq_class_weight: of the PQ-style class term.
      pq_mask_weight: of the PQ-style mask term.
      mask_id_weight: of the mask-ID cross entropy.
      pixel_loss: which loss is on the pixel features.
      pixel_loss_weight: its weight.
      pixel_loss_temperature: divides its cosine similarities, above 0.
      contrastive_pixels: pixels sampled from an image for Eq. 14; all of them where it
        has fewer.
      contrastive_sampling_power: of the sampling probability; above 0 favours small
        masks.
      mask_approximation_weight: of Eq. 13, for each layer.
      semantic_weight: of the semantic cross entropy.
      layer_weight: times the main output's weight, the weight of a layer's mask terms.
      is_thing: for classes 1..C in order. INSTANCE_DISCRIMINATION scores the pixels of
        things; without this, those of every mask.
    """

    num_classes: int
    num_layers: int
    pq_class_weight: float
    pq_mask_weight: float
    mask_id_weight: float
    pixel_loss: Literal["PIXEL_CONTRASTIVE", "INSTANCE_DISCRIMINATION"]
    pixel_loss_weight: float
    pixel_loss_temperature: float
    contrastive_pixels: int
    contrastive_sampling_power: float
    mask_approximation_weight: float
    semantic_weight: float
    layer_weight: float
    is_thing: Sequence[bool] | None = None

    def __post_init__(self) -> None:
        if self.pixel_loss not in _PIXEL_LOSSES:
            raise ValueError(
                f"pixel_loss must be one of {_PIXEL_LOSSES}; got {self.pixel_loss!r}"
            )
        if not self.pixel_loss_temperature > 0:
            raise ValueError(
                "pixel_loss_temperature must be above 0; got"
                f" {self.pixel_loss_temperature}"
            )
        if self.is_thing is not None and len(self.is_thing) != self.num_classes:
            raise ValueError(
                "is_thing must have one entry a class; got"
                f" {len(self.is_thing)} and num_classes {self.num_classes}"
            )

    @functools.cached_property
    def weights(self) -> Mapping[str, float]:
        """Weight of every term that there may be, by its name."""
        layer = {
            "pq_mask": self.layer_weight * self.pq_mask_weight,
            "mask_id": self.layer_weight * self.mask_id_weight,
            "mask_approximation": self.mask_approximation_weight,
        }
        return {
            "pq_class": self.pq_class_weight,
            "pq_mask": self.pq_mask_weight,
            "mask_id": self.mask_id_weight,
            self.pixel_loss.lower(): self.pixel_loss_weight,
            "semantic": self.semantic_weight,
        } | {
            f"layer{number}/{term}": weight
            for number in range(1, self.num_layers + 1)
            for term, weight in layer.items()
        }

    def __call__(self, targets: Targets, predictions: Predictions) -> tf.Tensor:
        """The loss of a batch: a scalar, the mean of `total` over the images."""
        return tf.reduce_mean(self.total(self.terms(targets, predictions)))

    def total(self, terms: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Weighted sum of terms.

        Args:
          terms: as from `terms`.

        Returns:
          [B] float32.
        """
        return tf.add_n([self.weights[name] * term for name, term in terms.items()])

    def terms(self, targets: Targets, predictions: Predictions) -> dict[str, tf.Tensor]:
        """Every term on its own.

        Args:
          targets: the ground truth; the size of its labels minus 1 is a multiple of
            the size of each prediction minus 1.
          predictions: of static size. A term whose part is None is left out.

        Returns:
          [B] float32 by name: "pq_class", "pq_mask", "mask_id", "pixel_contrastive" or
          "instance_discrimination", "semantic", and of the layers, counted from 1,
          "layer1/pq_mask", "layer1/mask_id", "layer1/mask_approximation", and so on.

        Raises:
          ValueError: shapes of targets and predictions do not fit each other.
        """
        self._check(predictions)
        height, width = predictions.mask_logits.shape[1:3]
        labels = pixel_targets(targets, height, width)
        mask_logits = _flatten(predictions.mask_logits)
        masks = labels.masks(targets.mask_classes.shape[1])
        matching = match_masks(
            mask_logits,
            predictions.class_logits,
            masks=masks,
            mask_classes=targets.mask_classes,
            not_void=labels.not_void,
        )
        pixel_centers = take(matching.mask_centers, labels.mask_ids, default=-1)
        terms = {
            "pq_class": pq_class_loss(predictions.class_logits, matching),
            "pq_mask": pq_mask_loss(mask_logits, pixel_centers, matching),
            "mask_id": mask_id_loss(mask_logits, pixel_centers, labels.is_crowd),
            self.pixel_loss.lower(): self._pixel_loss(
                _flatten(predictions.pixel_features),
                labels,
                masks,
                targets.mask_classes,
            ),
        }
        if predictions.semantic_logits is not None:
            terms["semantic"] = _semantic_term(predictions.semantic_logits, targets)
        extents = mask_extents(masks, height, width)
        return terms | _layer_terms(predictions.layers, targets, matching, extents)

    def _check(self, predictions: Predictions) -> None:
        if len(predictions.layers) > self.num_layers:
            raise ValueError(
                "predictions must have at most num_layers layers; got"
                f" {len(predictions.layers)} and {self.num_layers}"
            )
        for name in ("class_logits", "semantic_logits"):
            logits = getattr(predictions, name)
            if logits is not None and logits.shape[-1] != self.num_classes + 1:
                raise ValueError(
                    f"{name} must have num_classes + 1 channels; got"
                    f" {logits.shape[-1]} and num_classes {self.num_classes}"
                )

    def _pixel_loss(
        self,
        features: tf.Tensor,
        labels: PixelTargets,
        masks: tf.Tensor,
        mask_classes: tf.Tensor,
    ) -> tf.Tensor:
        """The chosen loss [B] on pixel features [B, P, D]."""
        if self.pixel_loss == "INSTANCE_DISCRIMINATION":
            is_thing = self.is_thing
            if is_thing is None:
                is_thing = (True,) * self.num_classes
            return instance_discrimination_loss(
                features,
                labels.mask_ids,
                masks=masks,
                is_anchor=tf.gather(tf.constant((False, *is_thing)), mask_classes),
                temperature=self.pixel_loss_temperature,
            )
        mask_ids, in_set = labels.mask_ids, labels.not_void
        if self.contrastive_pixels < features.shape[1]:
            indices = sample_pixels(
                mask_ids,
                tf.reduce_sum(masks, axis=1),
                in_set,
                num_pixels=self.contrastive_pixels,
                power=self.contrastive_sampling_power,
            )
            features, mask_ids, in_set = (
                tf.gather(part, indices, batch_dims=1)
                for part in (features, mask_ids, in_set)
            )
        return pixel_contrastive_loss(
            features,
            mask_ids,
            in_set,
            num_masks=mask_classes.shape[1],
            temperature=self.pixel_loss_temperature,
        )


def _flatten(pixels: tf.Tensor) -> tf.Tensor:
    """[B, h, w, K] to [B, h * w, K]."""
    height, width, channels = pixels.shape[1:]
    return tf.reshape(pixels, [-1, height * width, channels])


def _semantic_term(semantic_logits: tf.Tensor, targets: Targets) -> tf.Tensor:
    height, width = semantic_logits.shape[1:3]
    labels = stride_labels(targets.semantic, height, width)
    return semantic_loss(_flatten(semantic_logits), labels)


def _layer_terms(
    layers: Sequence[LayerPredictions],
    targets: Targets,
    matching: Matching,
    extents: MaskExtents,
) -> dict[str, tf.Tensor]:
    """The terms of all layers, with the main output's matching."""

    @functools.cache
    def at(height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Center of each pixel, and whether it is crowd, at a resolution."""
        labels = pixel_targets(targets, height, width)
        centers = take(matching.mask_centers, labels.mask_ids, default=-1)
        return centers, labels.is_crowd

    terms = {}
    for number, layer in enumerate(layers, start=1):
        if layer.affinity_logits is not None:
            centers, is_crowd = at(*layer.affinity_logits.shape[1:3])
            logits = _flatten(layer.affinity_logits)
            terms[f"layer{number}/pq_mask"] = pq_mask_loss(logits, centers, matching)
            terms[f"layer{number}/mask_id"] = mask_id_loss(logits, centers, is_crowd)
        if layer.reference_points is not None:
            terms[f"layer{number}/mask_approximation"] = mask_approximation_loss(
                layer.reference_points, extents, matching
            )
    return terms
