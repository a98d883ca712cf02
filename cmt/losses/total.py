"""All terms and their weights: the one place that knows either list."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import tensorflow as tf
import tf_keras

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
from cmt.losses.regions import Regions
from cmt.losses.semantic import semantic_loss
from cmt.losses.statistics import MaskStatistics, mask_statistics
from cmt.losses.targets import PixelTargets, pixel_targets, stride_labels
from cmt.matching.masks import MATCHERS, Matching, match_masks, take
from cmt.outputs import LayerPredictions, Predictions, Targets

_FIRST_PASS = "first_pass/"
_PIXEL_LOSSES = ("PIXEL_CONTRASTIVE", "INSTANCE_DISCRIMINATION")
# Reported with the terms; no part of the loss.
_UNMATCHED = "unmatched_masks"


@tf_keras.saving.register_keras_serializable(package="cmt")
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
      matcher: where masks are assigned to centers; see `cmt.matching.choose_matcher`.
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
    matcher: Literal["AUTO", "IN_GRAPH", "HOST"] = "AUTO"

    def __post_init__(self) -> None:
        for name, choices in (("pixel_loss", _PIXEL_LOSSES), ("matcher", MATCHERS)):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} must be one of {choices}; got {value!r}")
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

    def get_config(self) -> dict:
        """The arguments of the constructor, as Keras stores them in a `.keras` file."""
        names = [field.name for field in dataclasses.fields(self)]
        config = {name: getattr(self, name) for name in names}
        if self.is_thing is not None:
            config["is_thing"] = [bool(value) for value in self.is_thing]
        return config

    @classmethod
    def from_config(cls, config: dict) -> PanopticLoss:
        """The loss of which `get_config` gave the arguments."""
        return cls(**config)

    @functools.cached_property
    def weights(self) -> Mapping[str, float]:
        """Weight of every term that there may be, by its name."""
        layer = {
            "pq_mask": self.layer_weight * self.pq_mask_weight,
            "mask_id": self.layer_weight * self.mask_id_weight,
            "mask_approximation": self.mask_approximation_weight,
        }
        one_pass = {
            "pq_class": self.pq_class_weight,
            "pq_mask": self.pq_mask_weight,
            "mask_id": self.mask_id_weight,
            self.pixel_loss.lower(): self.pixel_loss_weight,
            "semantic": self.semantic_weight,
            _UNMATCHED: 0.0,
        } | {
            f"layer{number}/{term}": weight
            for number in range(1, self.num_layers + 1)
            for term, weight in layer.items()
        }
        return one_pass | {f"{_FIRST_PASS}{k}": w for k, w in one_pass.items()}

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
          "unmatched_masks" is no loss but a count, its weight 0: masks without a
          center, in an image that has more masks than centers.
          The first pass of a recursive network, matched by itself, has the same
          terms, "first_pass/" before their names. With predictions that are not finite
          some term of the image is not.

        Raises:
          ValueError: shapes of targets and predictions do not fit each other.
          InputError: the matcher is HOST where no host can be called.
        """
        stage_at = functools.cache(functools.partial(_Stage.of, targets))
        terms = self._terms(stage_at, targets, predictions)
        if predictions.first_pass is not None:
            first = self._terms(stage_at, targets, predictions.first_pass)
            terms |= {f"{_FIRST_PASS}{name}": term for name, term in first.items()}
        return terms

    def _terms(
        self, stage_at: _StageAt, targets: Targets, predictions: Predictions
    ) -> dict[str, tf.Tensor]:
        """The terms of one pass; the ground truth is prepared once a resolution."""
        self._check(predictions)
        main = stage_at(*predictions.mask_logits.shape[1:3])
        mask_logits = _flatten(predictions.mask_logits)
        statistics = main.measure(mask_logits)
        matching = match_masks(
            statistics.overlaps,
            predictions.class_logits,
            mask_classes=targets.mask_classes,
            matcher=self.matcher,
        )
        features = _flatten(predictions.pixel_features)
        terms = {
            "pq_class": pq_class_loss(predictions.class_logits, matching),
            **main.mask_terms(mask_logits, statistics, matching),
            self.pixel_loss.lower(): self._pixel_loss(features, main, targets),
            _UNMATCHED: matching.num_unmatched,
        }
        if predictions.semantic_logits is not None:
            terms["semantic"] = _semantic_term(predictions.semantic_logits, targets)
        extents = mask_extents(main.row_counts, main.column_counts)
        return terms | _layer_terms(predictions.layers, stage_at, matching, extents)

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
        self, features: tf.Tensor, main: _Stage, targets: Targets
    ) -> tf.Tensor:
        """The chosen loss [B] on pixel features [B, P, D]."""
        mask_ids, in_set = main.labels.mask_ids, main.labels.not_void
        num_masks = targets.mask_classes.shape[1]
        if self.pixel_loss == "INSTANCE_DISCRIMINATION":
            is_thing = self.is_thing
            if is_thing is None:
                is_thing = (True,) * self.num_classes
            return instance_discrimination_loss(
                features,
                mask_ids,
                masks=tf.one_hot(mask_ids, num_masks),
                is_anchor=tf.gather(
                    tf.constant((False, *is_thing)), targets.mask_classes
                ),
                temperature=self.pixel_loss_temperature,
            )
        if self.contrastive_pixels < features.shape[1]:
            indices = sample_pixels(
                mask_ids,
                main.areas[:, :num_masks],
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
            num_masks=num_masks,
            temperature=self.pixel_loss_temperature,
        )


class _Stage(NamedTuple):
    """The ground truth at one resolution, shared by all that is predicted there.

    Attributes:
      labels: class and mask of each pixel.
      regions: the region each pixel lies in.
      row_counts: [B, h, G + 2] float32, pixels of each region in each row.
      column_counts: [B, w, G + 2] float32, the same in each column.
      areas: [B, G + 2] float32, pixels of each region.
    """

    labels: PixelTargets
    regions: Regions
    row_counts: tf.Tensor
    column_counts: tf.Tensor
    areas: tf.Tensor

    @classmethod
    def of(cls, targets: Targets, height: int, width: int) -> _Stage:
        """At the resolution of a prediction."""
        labels = pixel_targets(targets, height, width)
        regions = labels.regions(targets.mask_classes.shape[1], height)
        row_counts, column_counts = regions.counts()
        areas = tf.reduce_sum(row_counts, axis=1)
        return cls(labels, regions, row_counts, column_counts, areas)

    def measure(self, mask_logits: tf.Tensor) -> MaskStatistics:
        """What the terms need of mask logits [B, P, N]."""
        return mask_statistics(mask_logits, self.regions, self.areas)

    def mask_terms(
        self, mask_logits: tf.Tensor, statistics: MaskStatistics, matching: Matching
    ) -> dict[str, tf.Tensor]:
        """The terms of mask logits [B, P, N], with the main output's matching."""
        centers = take(matching.mask_centers, self.labels.mask_ids, default=-1)
        return {
            "pq_mask": pq_mask_loss(statistics.overlaps, matching),
            "mask_id": mask_id_loss(
                mask_logits, statistics, centers, self.labels.is_crowd
            ),
        }


# Height and width to the ground truth there.
_StageAt = Callable[[int, int], _Stage]


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
    stage_at: _StageAt,
    matching: Matching,
    extents: MaskExtents,
) -> dict[str, tf.Tensor]:
    """The terms of all layers, with the main output's matching."""
    terms = {}
    for number, layer in enumerate(layers, start=1):
        found = {}
        if layer.affinity_logits is not None:
            stage = stage_at(*layer.affinity_logits.shape[1:3])
            logits = _flatten(layer.affinity_logits)
            found = stage.mask_terms(logits, stage.measure(logits), matching)
        if layer.reference_points is not None:
            found["mask_approximation"] = mask_approximation_loss(
                layer.reference_points, extents, matching
            )
        terms |= {f"layer{number}/{name}": term for name, term in found.items()}
    return terms
