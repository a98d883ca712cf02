"""Measures the layers of a trained network: location and attention.

    python tools/look_inside.py RUN

RUN is a run directory, such as demo/run; the data is that of its config, on the
validation split. `ablation_measure.py` has the same numbers in every result.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras

from cmt import run_files
from cmt.config import load_experiment
from cmt.data.input.open import Data
from cmt.evaluation.attention import attention_density
from cmt.losses.mask_approximation import (
    MaskExtents,
    mask_approximation_loss,
    mask_extents,
)
from cmt.losses.statistics import mask_statistics
from cmt.losses.targets import pixel_targets
from cmt.matching.masks import Matching, match_masks, take
from cmt.outputs import Predictions, Targets
from cmt.serving.factory import load_predictor


class Seen(NamedTuple):
    """A batch of held-out scenes, its masks matched to centers as in training."""

    predictions: Predictions
    matching: Matching
    extents: MaskExtents

    @classmethod
    def of(cls, targets: Targets, predictions: Predictions) -> Seen:
        """Matches the masks of a batch."""
        height, width, num_centers = predictions.mask_logits.shape[1:]
        pixels = pixel_targets(targets, height, width)
        regions = pixels.regions(targets.mask_classes.shape[1], height)
        row_counts, column_counts = regions.counts()
        logits = tf.reshape(predictions.mask_logits, [-1, height * width, num_centers])
        areas = tf.reduce_sum(row_counts, axis=1)
        matching = match_masks(
            mask_statistics(logits, regions, areas).overlaps,
            predictions.class_logits,
            mask_classes=targets.mask_classes,
        )
        return cls(predictions, matching, mask_extents(row_counts, column_counts))

    @property
    def matched(self) -> np.ndarray:
        """[B, N] bool, the centers that have a mask."""
        return self.matching.center_masks.numpy() >= 0

    def centroids(self) -> np.ndarray:
        """[K, 2], (h, w) in [0, 1] of the masks of the K matched centers."""
        found = take(self.extents.center, self.matching.center_masks, default=0.0)
        return found.numpy()[self.matched]


def location_by_layer(seen: Sequence[Seen]) -> list[dict[str, float]]:
    """How well reference points tell where the masks of their centers are.

    Returns:
      For each layer "r2_h" and "r2_w", of the points' mean as a prediction of the
      mask's centroid, no line fitted, and "mask_approximation", the loss (Eq. 13).
    """
    wanted = np.concatenate([batch.centroids() for batch in seen])
    total = np.square(wanted - wanted.mean(axis=0)).sum(axis=0)
    found = []
    for layer in range(len(seen[0].predictions.layers)):
        points = [b.predictions.layers[layer].reference_points for b in seen]
        means = [
            x.numpy().mean(axis=2)[batch.matched]
            for x, batch in zip(points, seen, strict=True)
        ]
        losses = [
            mask_approximation_loss(x, batch.extents, batch.matching).numpy()
            for x, batch in zip(points, seen, strict=True)
        ]
        error = np.square(np.concatenate(means) - wanted).sum(axis=0)
        r2_h, r2_w = 1 - error / np.maximum(total, 1e-12)
        loss = np.concatenate(losses).mean()
        found.append(_rounded({"r2_h": r2_h, "r2_w": r2_w, "mask_approximation": loss}))
    return found


def look_inside(network: tf_keras.Model, data: Data, batch_size: int) -> dict[str, Any]:
    """Measures the layers on the whole batches of the validation split."""
    forward = tf.function(lambda x: network(x, training=False), autograph=False)
    split = data.validation
    batch_size = min(batch_size, split.num_images)
    batches = split.batches(global_batch_size=batch_size, seed=0)
    seen = [
        Seen.of(targets, forward(images))
        for images, targets in batches.take(split.num_images // batch_size)
    ]
    density = attention_density((batch.predictions, batch.matched) for batch in seen)
    found = {"attention_density": [_rounded(layer) for layer in density]}
    if seen[0].predictions.layers[0].reference_points is not None:
        found["location"] = location_by_layer(seen)
    return found


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in numbers.items()}


def main() -> None:
    """Prints a line of numbers a layer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=pathlib.Path)
    run = parser.parse_args().run
    experiment = load_experiment(run / run_files.CONFIG_FILE)
    data = Data(experiment.data)
    predictor, step = load_predictor(experiment, data, run)
    batch_size = experiment.trainer.global_batch_size
    for name, layers in look_inside(predictor.network, data, batch_size).items():
        for number, layer in enumerate(layers, start=1):
            values = ", ".join(f"{key} {value:g}" for key, value in layer.items())
            print(f"step {step}, {name}, layer {number}: {values}")


if __name__ == "__main__":
    main()
