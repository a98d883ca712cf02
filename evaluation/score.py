"""Scores of COCO panoptic predictions from files: PQ, mask AP and mIoU at once."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import PanopticImage
from cmt.data.panoptic.kinds import Kind, Tally
from cmt.evaluation.bootstrap import (
    LEVEL,
    RESAMPLES,
    ClassCounts,
    quality_intervals,
)
from cmt.evaluation.breakdown import (
    SIDES,
    THINGS,
    count_by_size,
    place_by_things,
    quality_by_size,
    quality_by_things,
)
from cmt.evaluation.overlap import Instances, Overlap, find_instances
from cmt.evaluation.pairs import Pairs, PanopticFile
from cmt.evaluation.panoptic_quality import count_matches, match_segments, quality
from cmt.evaluation.per_image import ImageCounts, write_images
from cmt.evaluation.semantic import add_confusion, mean_iou
from cmt.io.progress import track
from cmt.io.spool import Spool
from cmt.io.storage import Location


def score_files(
    gt_json: Location,
    gt_masks: Location,
    pred_json: Location,
    pred_masks: Location,
    *,
    workers: int = 0,
    per_image: Location | None = None,
    things: Collection[str] = (),
) -> dict[str, Any]:
    """Scores COCO panoptic predictions.

    Paths may be local or what `tf.io.gfile` reads.

    Args:
      gt_json: ground truth, with categories.
      gt_masks: folder of its PNGs.
      pred_json: predictions; images that are not in the ground truth are left out.
      pred_masks: folder of its PNGs.
      workers: processes; 0 for as many as there are cores and images are worth.
      per_image: the CSV file to write, see `write_images`; None for none.
      things: names or ids of the categories that are things, in place of what the
        ground truth says; () to leave that.

    Returns:
      See `Measurement.result`.

    Raises:
      InputError: a file is missing or damaged, or see `Pairs` and `PairReader.read`.
    """
    gt, pred = PanopticFile.read(gt_json), PanopticFile.read(pred_json)
    if things:
        gt = gt.with_things(things)
    pairs = Pairs(gt, gt_masks, pred, pred_masks)
    return measure(pairs, workers=workers, per_image=per_image).result()


def measure(
    pairs: Pairs, *, workers: int = 0, per_image: Location | None = None
) -> Measurement:
    """Counts what all scores are made of; the result does not depend on `workers`.

    Args:
      pairs: the files.
      workers: processes; 0 for as many as there are cores and images are worth.
      per_image: the CSV file to write, see `write_images`; None for none.

    Raises:
      InputError: see `PairReader.read`.
    """
    measurement = Measurement(pairs.gt.categories)
    images = pairs.gt.images.values()
    with contextlib.closing(pairs.measure(workers)) as found:
        shown = track(found, description="score", total=len(images))
        for image, (overlap, notes) in zip(images, shown, strict=True):
            measurement.add(image, overlap, notes)
    if per_image is not None:
        write_images(per_image, pairs.gt.categories, measurement.images)
    return measurement


class Measurement:
    """What is counted, summed over images.

    Attributes:
      categories: C classes, of the data set.
      images: the counts of each image, in the order they were added.
      confusion: [C + 1, C + 1], see `add_confusion`.
    """

    def __init__(self, categories: Sequence[Category]):
        size = len(categories)
        self.categories = categories
        self._is_thing = np.array([category.is_thing for category in categories], bool)
        self._counts, self._of_pixels = np.zeros([2, size, 4])
        self._by_size = np.zeros([len(SIDES), size, 4])
        self._by_things = np.zeros([len(THINGS), size, 4])
        self._images_by_things = np.zeros(len(THINGS), int)
        self.confusion = np.zeros([size + 1, size + 1])
        self._instances: Spool[Instances] = Spool()
        # By class, of the instances; None where a predicted thing has no score.
        self._places: dict[int, list[int]] | None = {}
        self._notes = Tally()
        self.images: Spool[ImageCounts] = Spool()

    def add(self, image: PanopticImage, overlap: Overlap, notes: Tally) -> None:
        """Adds an image."""
        classes = overlap.gt_class, overlap.pred_class, len(self.categories)
        matches = match_segments(overlap)
        counts = of_pixels = count_matches(matches, *classes)
        if Kind.AREA in notes:
            matches = match_segments(overlap, areas_of_pixels=True)
            of_pixels = count_matches(matches, *classes)
        self._counts += counts
        self._of_pixels += of_pixels
        self._by_size += count_by_size(overlap, matches, len(counts))
        place = place_by_things(counts, self._is_thing)
        self._by_things[place] += counts
        self._images_by_things[place] += 1
        add_confusion(self.confusion, overlap)
        self._add_instances(find_instances(overlap, self._is_thing))
        self._notes.join(notes)
        rows = np.flatnonzero(counts.any(axis=1))
        name = image.file_name or image.mask_name
        self.images.append(ImageCounts(image.image_id, name, rows, counts[rows]))

    def _add_instances(self, found: Mapping[int, Instances]) -> None:
        if any(np.isnan(of_class.pred_score).any() for of_class in found.values()):
            self._places = None
        if self._places is not None:
            for row, of_class in found.items():
                self._places.setdefault(row, []).append(len(self._instances))
                self._instances.append(of_class)

    def result(self) -> dict[str, Any]:
        """Computes all scores.

        Returns:
          The groups and classes of `quality`; and
          "intervals": of PQ by bootstrap over images, "all", "things", "stuff" and
          "per_class" by category id, each [low, high] in percent, with "level" in
          percent and "resamples"; None for less than two images;
          "by_size": see `quality_by_size`, areas as in the PNGs;
          "by_things": see `quality_by_things`;
          "semantic": see `mean_iou`;
          "mask_ap": see `mask_ap`; None where a predicted thing has no "score";
          "notes": a `Tally` of what the PNGs have otherwise than the json. Where areas
          of the ground truth are among them, which the official formula takes from the
          json, "with_pixel_areas" has the panoptic quality with those of the PNG.
        """
        result = {
            **quality(self.categories, self._counts),
            "intervals": self._intervals(),
            "by_size": quality_by_size(self._by_size),
            "by_things": quality_by_things(self._by_things, self._images_by_things),
            "semantic": mean_iou(self.confusion, self.categories),
            "mask_ap": self._mask_ap(),
            "notes": self._notes,
        }
        if Kind.AREA in self._notes:
            of_pixels = quality(self.categories, self._of_pixels)
            result["with_pixel_areas"] = of_pixels
        return result

    def _intervals(self) -> dict[str, Any] | None:
        """Intervals of PQ, of the classes that occur."""
        if len(self.images) < 2:
            return None
        occurs = np.flatnonzero(self._counts.any(axis=1))
        rows = np.concatenate([image.rows for image in self.images])
        counts = np.concatenate([image.counts for image in self.images])
        sizes = [len(image.rows) for image in self.images]
        places = np.repeat(np.arange(len(sizes)), sizes)
        classes = [
            ClassCounts(places[rows == row], counts[rows == row]) for row in occurs
        ]
        things = self._is_thing[occurs]
        ids = [str(self.categories[row].id) for row in occurs]
        groups = dict(zip(ids, np.eye(len(ids), dtype=bool), strict=True))
        groups |= {"all": things | True, "things": things, "stuff": ~things}
        found = quality_intervals(classes, len(sizes), groups)
        per_class = {number: found.pop(number) for number in ids}
        about = {"level": LEVEL, "resamples": RESAMPLES}
        return {**about, **found, "per_class": per_class}

    def _mask_ap(self) -> dict[str, Any] | None:
        if self._places is None:
            return None
        from cmt.evaluation.mask_ap import mask_ap  # pycocotools is slow to import.

        instances = (
            (row, [self._instances[place] for place in self._places[row]])
            for row in sorted(self._places)
        )
        return mask_ap(instances, self.categories)
