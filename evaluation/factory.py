"""Config messages -> evaluations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmt.data.input.pipeline import Split
from cmt.data.panoptic.categories import Category, first_difference
from cmt.errors import InputError, few
from cmt.evaluation.evaluate import (
    GroundTruth,
    Predictor,
    evaluate,
    find,
    read_ground_truth,
)
from cmt.evaluation.submission import TestSet, read_test_set
from cmt.io import storage
from cmt.pictures.sheet import save_picture
from cmt.protos import experiment_pb2

_DRAWN_IMAGES = 3


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

    @property
    def num_images(self) -> int:
        """How many images are evaluated: the first ones of the split, or all."""
        limit = self.experiment.evaluation.max_images or self.split.num_images
        return min(limit, self.split.num_images)

    def check(self) -> None:
        """Checks that every image to be evaluated has its annotation and its PNG.

        Raises:
          InputError: one has not, or a record cannot be read.
        """
        names = self.split.image_names(self.num_images)
        masks = self.ground_truth.masks
        found = [find(name, self.ground_truth).mask_name for name in names]
        paths = [storage.join(masks, name) for name in found]
        folders = {storage.split(path)[0] for path in paths}
        there = {storage.join(f, n) for f in folders for n in storage.list_files(f)}
        missing = [path for path in paths if path not in there]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(paths)} images to evaluate have no ground "
                f"truth: {few(missing)} missing; copy the PNGs there, or set "
                "data.validation.masks to their folder"
            )

    def run(
        self,
        predictor: Predictor,
        output: Path | str,
        *,
        step: int,
        report: bool = False,
    ) -> dict[str, Any]:
        """Evaluates a predictor; see `evaluate`.

        Args:
          predictor: of the classes the evaluation was opened for.
          output: the folder of the results.
          step: training step of the weights.
          report: write report.html, too.
        """

        def read_photos(records: Sequence[int]) -> Iterator[np.ndarray]:
            return (example.image for example in self.split.examples(records))

        options = self.experiment.evaluation
        return evaluate(
            predictor,
            self.split.evaluation_batches(
                batch_size=options.batch_size, max_images=options.max_images
            ),
            self.ground_truth,
            output,
            step=step,
            config_name=self.experiment.name,
            num_images=self.num_images,
            pattern=self.experiment.data.validation.tfrecords,
            read_photos=read_photos if report else None,
        )

    def draw(self, predictor: Any, path: Path | str) -> None:
        """Draws the first images, the truth, the prediction and the clustering.

        Args:
          predictor: a `PanopticPredictor` of the classes the evaluation was opened for.
          path: the PNG file to write.
        """
        # Drawing needs Matplotlib, which takes long to import.
        from cmt.evaluation.pictures import clustering_sheet, rows_of

        experiment = self.experiment
        rows = rows_of(
            predictor,
            self.split,
            _DRAWN_IMAGES,
            confidence=experiment.evaluation.thing_confidence,
        )
        sheet = clustering_sheet(rows, num_centers=experiment.model.num_centers)
        save_picture(path, sheet)


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
    difference = first_difference(categories, split.categories)
    if difference:
        number, expected, found = difference
        raise InputError(
            f"class {number} of the network is {expected}, of the validation split "
            f"{found}; id, name and kind must be the same: evaluate on the data set "
            "that the network was trained on, or convert it with the same categories"
        )
    manifest = split.manifest
    ground_truth = read_ground_truth(manifest.annotations, manifest.masks)
    if not storage.is_folder(manifest.masks):
        raise InputError(
            f"{manifest.masks} is no folder; set data.validation.masks to the PNGs of "
            f"{manifest.annotations}"
        )
    return Evaluation(experiment, split, ground_truth)
