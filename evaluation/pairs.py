"""Ground truth and prediction of each image, from COCO panoptic files."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from cmt.data.panoptic.masks import read_colors
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
from cmt.io.parallel import num_workers, parallel_map
from cmt.io.storage import Location, is_file, is_folder, join

# Pairs that take longer than a process takes to start.
_WORTH_A_PROCESS = 500


class PanopticFile(NamedTuple):
    """A COCO panoptic json.

    Attributes:
      path: of the file, for messages.
      categories: in the order of the file; empty where it has none (predictions).
      images: by image id, in the order of the annotations.
    """

    path: Location
    categories: list[Category]
    images: Mapping[ImageId, PanopticImage]

    @classmethod
    def read(cls, path: Location) -> PanopticFile:
        """Reads ground truth or predictions.

        Raises:
          InputError: see `read_annotations`.
        """
        annotations = read_annotations(path)
        # By default glibc keeps what the text took. Other systems have other ways.
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        return cls(path, *annotations)

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


class PairReader(NamedTuple):
    """Reads pairs of images, in any process.

    Attributes:
      gt_masks, pred_masks: folders of the PNGs.
      rows: from `category_rows`.
      is_thing: of each category id.
      merged: the same, where stuff in several segments is merged in predictions, too.
    """

    gt_masks: Location
    pred_masks: Location
    rows: Mapping[int, int]
    is_thing: Mapping[int, bool]
    merged: Mapping[int, bool]

    def read(self, image: PanopticImage, predicted: PanopticImage) -> Pair:
        """Reads the pair of an image of the ground truth and its prediction.

        Raises:
          InputError: a PNG is missing or damaged, or the json and the PNGs do not fit
            each other.
        """
        _keep_freed_memory()
        # The areas of predictions do not matter.
        segments = [s._replace(area=None) for s in predicted.segments]
        gt, pred, pixels = shorten(
            _read_map(self.gt_masks, image.mask_name, [*image.segments]),
            _read_map(self.pred_masks, predicted.mask_name, segments),
        )
        gt, notes = _settled(gt, pixels, self.is_thing)
        pred, others = _settled(pred, pixels, self.merged)
        notes.join(others)
        overlap = measure_overlap(gt, pred, pixels, self.rows)
        return Pair(gt, pred, pixels, overlap, notes)

    def measure(
        self, images: tuple[PanopticImage, PanopticImage]
    ) -> tuple[Overlap, Tally]:
        """The overlap and the notes of a pair, which are small; see `read`."""
        pair = self.read(*images)
        return pair.overlap, pair.notes


class Pairs:
    """The pairs of images of two files.

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
        self._predicted = pred.images
        is_thing = {category.id: category.is_thing for category in gt.categories}
        # Officially each such segment of a prediction counts. Where the ground truth
        # has some, too, and is merged, so is the prediction: the truth is right by
        # itself.
        twice = has_stuff_twice(gt.images.values(), is_thing)
        self._reader = PairReader(
            _folder(gt_masks),
            _folder(pred_masks),
            category_rows(gt.categories),
            is_thing,
            is_thing if twice else {},
        )

    def read(self, image: PanopticImage) -> Pair:
        """Reads the pair of an image of the ground truth; see `PairReader.read`."""
        return self._reader.read(image, self._predicted[image.image_id])

    def measure(self, workers: int = 0) -> Iterator[tuple[Overlap, Tally]]:
        """The overlap and the notes of each image of the ground truth, in its order.

        Args:
          workers: processes; 0 for as many as there are cores and pairs are worth.

        Raises:
          InputError: see `PairReader.read`.
        """
        images = self.gt.images
        workers = workers or min(num_workers(0), 1 + len(images) // _WORTH_A_PROCESS)
        both = ((image, self._predicted[i]) for i, image in images.items())
        return parallel_map(self._reader.measure, both, workers=workers, chunk=16)


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
    return PanopticMap(path, read_colors(path), segments)


def _settled(
    side: PanopticMap, pixels: np.ndarray, is_thing: Mapping[int, bool]
) -> tuple[PanopticMap, Tally]:
    """The map with the segments that its PNG has; see `settle`."""
    settled = settle(side.name, side.ids, pixels, side.segments, is_thing)
    ids, segments, notes = settled
    return PanopticMap(side.name, ids, segments), notes


@functools.cache
def _keep_freed_memory() -> None:
    """Spares a fifth of the time, which the system takes to hand out memory anew.

    By default glibc gives the memory of each image back. It keeps as much as twice the
    largest block that it once got from the system and was freed; this is one of 16 MiB.
    """
    np.empty(2**24, np.uint8)
