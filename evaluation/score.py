"""Scores of COCO panoptic predictions from files: PQ, mask AP and mIoU at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from cmt.data.panoptic.amend import set_things
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import (
    ImageId,
    PanopticImage,
    Segment,
    read_annotations,
)
from cmt.data.panoptic.kinds import Kind, Tally
from cmt.data.panoptic.masks import read_ids
from cmt.errors import InputError
from cmt.evaluation.bootstrap import LEVEL, RESAMPLES, quality_intervals
from cmt.evaluation.overlap import (
    Instances,
    Overlap,
    PanopticMap,
    category_rows,
    find_instances,
    measure_overlap,
    shorten,
)
from cmt.evaluation.panoptic_quality import count_segments, quality
from cmt.evaluation.per_image import ImageCounts, write_images
from cmt.evaluation.semantic import add_confusion, mean_iou
from cmt.evaluation.settle import has_stuff_twice, settle
from cmt.io.parallel import num_workers
from cmt.io.progress import track
from cmt.io.storage import Location, is_folder, join


class PanopticFile(NamedTuple):
    """A COCO panoptic json.

    Attributes:
      path: of the file, for messages.
      categories: in the order of the file; empty where it has none (predictions).
      images: by image id, in the order of the annotations.
    """

    path: Location
    categories: list[Category]
    images: dict[ImageId, PanopticImage]

    @classmethod
    def read(cls, path: Location) -> PanopticFile:
        """Reads ground truth or predictions.

        Raises:
          InputError: see `read_annotations`.
        """
        categories, images = read_annotations(path)
        return cls(path, categories, {image.image_id: image for image in images})

    def with_things(self, things: Collection[str]) -> PanopticFile:
        """Returns a copy whose things are the categories of these names or ids.

        Raises:
          InputError: no category has one of the names.
        """
        entries = [category.to_json() for category in self.categories]
        set_things({"categories": entries}, things)
        return self._replace(categories=[Category.from_json(one) for one in entries])

    def only(self, image_ids: Collection[ImageId]) -> PanopticFile:
        """Returns a copy that has the annotations of some images alone."""
        chosen = {i: image for i, image in self.images.items() if i in image_ids}
        return self._replace(images=chosen)


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
    """Scores COCO panoptic predictions; see `score`.

    Paths may be local or what `tf.io.gfile` reads.

    Args:
      gt_json: ground truth, with categories.
      gt_masks: folder of its PNGs.
      pred_json: predictions; images that are not in the ground truth are left out.
      pred_masks: folder of its PNGs.
      workers: images at a time; 0 for as many as there are cores.
      per_image: the CSV file to write, see `write_images`; None for none.
      things: names or ids of the categories that are things, in place of what the
        ground truth says; () to leave that.

    Returns:
      See `score`.

    Raises:
      InputError: a file is missing or damaged, or see `score`.
    """
    gt, pred = PanopticFile.read(gt_json), PanopticFile.read(pred_json)
    if things:
        gt = gt.with_things(things)
    options = {"workers": workers, "per_image": per_image}
    return score(gt, gt_masks, pred, pred_masks, **options)


def score(
    gt: PanopticFile,
    gt_masks: Location,
    pred: PanopticFile,
    pred_masks: Location,
    *,
    workers: int = 0,
    per_image: Location | None = None,
) -> dict[str, Any]:
    """Scores predictions; the result does not depend on `workers`.

    Args:
      gt: ground truth, with categories.
      gt_masks: folder of its PNGs.
      pred: predictions; images that are not in the ground truth are left out.
      pred_masks: folder of its PNGs.
      workers: images at a time, in threads (decoding and counting release Python's
        lock); 0 for as many as there are cores.
      per_image: the CSV file to write, see `write_images`; None for none.

    Returns:
      The groups and classes of `quality`; and
      "intervals": of PQ by bootstrap over images, "all", "things" and "stuff", each
      [low, high] in percent, with "level" in percent and "resamples"; None for less
      than two images;
      "semantic": see `mean_iou`;
      "mask_ap": see `mask_ap`; None where a thing of the predictions has no "score";
      "notes": a `Tally` of what the PNGs have otherwise than the json. Where areas of
      the ground truth are among them, which the official formula takes from the json,
      "with_pixel_areas" has the panoptic quality with those of the PNG.

    Raises:
      InputError: a PNG is missing or damaged, an image has no prediction, or the json
        and the PNGs do not fit each other.
    """
    _check_files(gt, pred)
    gt_masks, pred_masks = _folder(gt_masks), _folder(pred_masks)
    rows = category_rows(gt.categories)
    is_thing = {category.id: category.is_thing for category in gt.categories}
    # Officially each such segment of a prediction counts. Where the ground truth has
    # some, too, and is merged, so is the prediction: the truth is right by itself.
    merged = is_thing if has_stuff_twice(gt.images.values(), is_thing) else {}

    def measure(image: PanopticImage) -> tuple[Overlap, np.ndarray, Tally]:
        predicted = pred.images[image.image_id]
        # The areas of predictions do not matter.
        segments = [s._replace(area=None) for s in predicted.segments]
        true, found, pixels = shorten(
            _read_map(gt_masks, image.mask_name, image.segments),
            _read_map(pred_masks, predicted.mask_name, segments),
        )
        true, notes = _settled(true, pixels, is_thing)
        found, others = _settled(found, pixels, merged)
        notes.join(others)
        overlap = measure_overlap(true, found, pixels, rows)
        return overlap, count_segments(overlap, len(rows)), notes

    _keep_freed_memory()
    sums = _Sums(gt.categories)
    images = gt.images.values()
    with ThreadPoolExecutor(num_workers(workers)) as pool:
        measured = pool.map(measure, images)
        measured = track(measured, description="score", total=len(images))
        for image, of_image in zip(images, measured, strict=True):
            sums.add(image, *of_image)
    if per_image is not None:
        write_images(per_image, gt.categories, sums.images)
    return sums.result()


class _Sums:
    """What is summed over images.

    Attributes:
      images: the counts of each, in the order they were added.
    """

    def __init__(self, categories: Sequence[Category]):
        size = len(categories)
        self._categories = categories
        self._is_thing = np.array([category.is_thing for category in categories], bool)
        self._counts, self._of_pixels = np.zeros([2, size, 4])
        self._confusion = np.zeros([size + 1, size + 1])
        # By class; None where a thing of the predictions has no score.
        self._instances: dict[int, list[Instances]] | None = {}
        self._notes = Tally()
        self.images: list[ImageCounts] = []

    def add(
        self, image: PanopticImage, overlap: Overlap, counts: np.ndarray, notes: Tally
    ) -> None:
        """Adds an image, with its counts [C, 4]."""
        self._counts += counts
        of_pixels = counts
        if Kind.AREA in notes:
            of_pixels = count_segments(overlap, len(counts), areas_of_pixels=True)
        self._of_pixels += of_pixels
        add_confusion(self._confusion, overlap)
        self._add_instances(find_instances(overlap, self._is_thing))
        self._notes.join(notes)
        rows = np.flatnonzero(counts.any(axis=1))
        name = image.file_name or image.mask_name
        self.images.append(ImageCounts(image.image_id, name, rows, counts[rows]))

    def _add_instances(self, found: Mapping[int, Instances]) -> None:
        if any(np.isnan(of_class.pred_score).any() for of_class in found.values()):
            self._instances = None
        if self._instances is not None:
            for row, of_class in found.items():
                self._instances.setdefault(row, []).append(of_class)

    def result(self) -> dict[str, Any]:
        """Computes all scores; see `score`."""
        result = {
            **quality(self._categories, self._counts),
            "intervals": self._intervals(),
            "semantic": mean_iou(self._confusion, self._categories),
            "mask_ap": self._mask_ap(),
            "notes": self._notes,
        }
        if Kind.AREA in self._notes:
            of_pixels = quality(self._categories, self._of_pixels)
            result["with_pixel_areas"] = of_pixels
        return result

    def _intervals(self) -> dict[str, Any] | None:
        if len(self.images) < 2:
            return None
        occurs = np.flatnonzero(self._counts.any(axis=1))
        by_image = np.zeros([len(self.images), len(occurs), 4])
        for of_image, image in zip(by_image, self.images, strict=True):
            of_image[np.searchsorted(occurs, image.rows)] = image.counts
        things = self._is_thing[occurs]
        groups = {"all": things | True, "things": things, "stuff": ~things}
        intervals = quality_intervals(by_image, groups)
        return {"level": LEVEL, "resamples": RESAMPLES, **intervals}

    def _mask_ap(self) -> dict[str, Any] | None:
        if self._instances is None:
            return None
        from cmt.evaluation.mask_ap import mask_ap  # pycocotools is slow to import.

        return mask_ap(self._instances, self._categories)


def _keep_freed_memory() -> None:
    """Spares a third of the time, which the system takes to hand out memory anew.

    By default glibc gives the memory of each image back. It keeps as much as twice the
    largest block that it once got from the system and was freed; this is one of 16 MiB.
    """
    np.empty(2**24, np.uint8)


def _check_files(gt: PanopticFile, pred: PanopticFile) -> None:
    if not gt.categories:
        raise InputError(
            f'{gt.path}: ground truth needs a list "categories"; give the ground '
            "truth's json to --gt and the prediction's to --pred"
        )
    if not gt.images:
        raise InputError(f"{gt.path}: has no annotation, so there is nothing to score")
    missing = [image for image in gt.images if image not in pred.images]
    if missing:
        raise InputError(
            f"{pred.path}: {len(missing)} of {len(gt.images)} images of the "
            f"ground truth have no prediction, for example image {missing[0]}; predict "
            "every image (one without segments has an empty segments_info)"
        )


def _folder(path: Location) -> Location:
    if not is_folder(path):
        raise InputError(f"{path}: no such folder; give the folder of the PNGs")
    return path


def _read_map(
    folder: Location, mask_name: str, segments: Sequence[Segment]
) -> PanopticMap:
    path = join(folder, mask_name)
    return PanopticMap(path, read_ids(path), segments)


def _settled(
    side: PanopticMap, pixels: np.ndarray, is_thing: Mapping[int, bool]
) -> tuple[PanopticMap, Tally]:
    """The map with the segments that its PNG has; see `settle`."""
    settled = settle(side.name, side.ids, pixels, side.segments, is_thing)
    ids, segments, notes = settled
    return PanopticMap(side.name, ids, segments), notes
