"""Config messages -> evaluations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cmt.data.input.pipeline import Split
from cmt.data.panoptic.categories import Category
from cmt.errors import InputError
from cmt.evaluation.evaluate import GroundTruth, Predictor, evaluate, read_ground_truth
from cmt.evaluation.submission import TestSet, read_test_set
from cmt.io.storage import is_folder
from cmt.protos import experiment_pb2


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The validation split of a config, opened.

    Attributes:
      experiment: the config.
      split: the images.
      ground_truth: of the images.
    """

    experiment: experiment_pb2.ExperimentConfig
    split: Split
    ground_truth: GroundTruth

    def run(
        self, predictor: Predictor, output: Path | str, *, step: int
    ) -> dict[str, Any]:
        """Evaluates a predictor; see `evaluate`.

        Args:
          predictor: of the classes the evaluation was opened for.
          output: the folder of the results.
          step: training step of the weights.
        """
        options = self.experiment.evaluation
        num_images = self.split.num_images
        if options.max_images:
            num_images = min(num_images, options.max_images)
        return evaluate(
            predictor,
            self.split.evaluation_batches(
                batch_size=options.batch_size, max_images=options.max_images
            ),
            self.ground_truth,
            output,
            step=step,
            config_name=self.experiment.name,
            num_images=num_images,
            pattern=self.experiment.data.validation.tfrecords,
        )


def open_test_set(experiment: experiment_pb2.ExperimentConfig) -> TestSet:
    """Reads the list of the test images of a config.

    Raises:
      InputError: the config names none, or their list cannot be used.
    """
    config = experiment.data.test
    for field in ("images", "list"):
        if not getattr(config, field):
            raise InputError(
                f"data.test.{field} is not set; the images of a test set are named by "
                "--set 'data.test.images=\"DIR\"' --set "
                "'data.test.list=\"image_info_test-dev2017.json\"'"
            )
    return read_test_set(config.images, config.list)


def open_evaluation(
    experiment: experiment_pb2.ExperimentConfig,
    split: Split,
    categories: Sequence[Category],
) -> Evaluation:
    """Opens the ground truth of a validation split and checks that it can be used.

    Args:
      experiment: the config.
      split: the validation split of the config.
      categories: the classes of the network.

    Raises:
      InputError: the network has other classes, or the ground truth cannot be used.
    """
    _check_same(categories, split.categories)
    manifest = split.manifest
    ground_truth = read_ground_truth(manifest.annotations, manifest.masks)
    if not is_folder(manifest.masks):
        raise InputError(
            f"{manifest.masks} is no folder; set data.validation.masks to the PNGs of "
            f"{manifest.annotations}"
        )
    return Evaluation(experiment, split, ground_truth)


def _check_same(categories: Sequence[Category], of_split: Sequence[Category]) -> None:
    """The order of the categories decides which class is which."""
    pairs = zip(categories, of_split, strict=False)
    for number, (expected, found) in enumerate(pairs, start=1):
        if (expected.id, expected.is_thing) != (found.id, found.is_thing):
            raise InputError(
                f"class {number} of the network is '{expected.name}' (id "
                f"{expected.id}), of the validation split '{found.name}' (id "
                f"{found.id}); evaluate on the data set the network was trained on"
            )
