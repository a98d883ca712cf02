"""Ground truth and prediction of each image, from COCO panoptic files."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cmt.data.panoptic.amend import set_things
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import (
    ImageId,
    PanopticImage,
    Segment,
)
from cmt.data.panoptic.kinds import Tally
from cmt.data.panoptic.masks import read_ids
from cmt.errors import InputError
from cmt.evaluation.annotations import read_annotations
from cmt.evaluation.overlap import (
    Overlap,
    PanopticMap,
    category_rows,
    measure_overlap,
    shorten,
)
from cmt.evaluation.settle import has_stuff_twice, settle
from cmt.io.storage import Location, is_file, is_folder, join


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


class Pair(NamedTuple):
    """Ground truth and prediction of an image, as runs of pixels row after row.

    Attributes:
      gt, pred: ids are [R], one of each run; segments are those that the PNG has.
      pixels: [R], how many pixels each run has.
      overlap: what the segments share.
      notes: of what the PNGs have otherwise than the json.
    """

    gt: PanopticMap
    pred: PanopticMap
    pixels: np.ndarray
    overlap: Overlap
    notes: Tally


class Pairs:
    """Reads the pairs of images; threads may do so at the same time.

    Attributes:
      gt: the ground truth.
    """

    def __init__(
        self,
        gt: PanopticFile,
        gt_masks: Location,
        pred: PanopticFile,
        pred_masks: Location,
    ):
        """Checks the files.

        Args:
          gt: ground truth, with categories.
          gt_masks: folder of its PNGs.
          pred: predictions; images that are not in the ground truth are left out.
          pred_masks: folder of its PNGs.

        Raises:
          InputError: an image has no prediction, two categories have one id, or the
            ground truth has no image, no categories or no PNGs.
        """
        _check_files(gt, pred)
        self.gt = gt
        self._gt_masks, self._pred_masks = _folder(gt_masks), _folder(pred_masks)
        self._predicted = pred.images
        self._rows = category_rows(gt.categories)
        self._is_thing = {category.id: category.is_thing for category in gt.categories}
        # Officially each such segment of a prediction counts. Where the ground truth
        # has some, too, and is merged, so is the prediction: the truth is right by
        # itself.
        twice = has_stuff_twice(gt.images.values(), self._is_thing)
        self._merged = self._is_thing if twice else {}

    def read(self, image: PanopticImage) -> Pair:
        """Reads the pair of an image of the ground truth.

        Raises:
          InputError: a PNG is missing or damaged, or the json and the PNGs do not fit
            each other.
        """
        predicted = self._predicted[image.image_id]
        # The areas of predictions do not matter.
        segments = [s._replace(area=None) for s in predicted.segments]
        gt, pred, pixels = shorten(
            _read_map(self._gt_masks, image.mask_name, [*image.segments]),
            _read_map(self._pred_masks, predicted.mask_name, segments),
        )
        gt, notes = _settled(gt, pixels, self._is_thing)
        pred, others = _settled(pred, pixels, self._merged)
        notes.join(others)
        overlap = measure_overlap(gt, pred, pixels, self._rows)
        return Pair(gt, pred, pixels, overlap, notes)


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
    if not (mask_name.lower().endswith(".png") or is_file(path)):
        # The json names the photo; the PNG has the same name.
        path = str(path).removesuffix(posixpath.splitext(mask_name)[1]) + ".png"
    return PanopticMap(path, read_ids(path), segments)


def _settled(
    side: PanopticMap, pixels: np.ndarray, is_thing: Mapping[int, bool]
) -> tuple[PanopticMap, Tally]:
    """The map with the segments that its PNG has; see `settle`."""
    settled = settle(side.name, side.ids, pixels, side.segments, is_thing)
    ids, segments, notes = settled
    return PanopticMap(side.name, ids, segments), notes
