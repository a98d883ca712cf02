"""Checks of a COCO panoptic json by itself, without the files it names."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from cmt.data.checks.categories import check_categories
from cmt.data.checks.entries import EntryCheck, id_of
from cmt.data.checks.problems import Kind
from cmt.data.checks.segments import SegmentsCheck
from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import ImageId, PanopticImage, record_name
from cmt.io.storage import Location

# A key of the annotations that only this format has, and what it is called.
_OTHER_FORMATS = {
    "caption": "captions",
    "keypoints": "keypoint annotations",
    "segmentation": "instance annotations",
    "bbox": "instance annotations",
}
_OTHER_NAMES = ("instances_", "person_keypoints_", "captions_", "stuff_", "image_info_")
_LISTS = ("categories", "images", "annotations")
_NOT_PANOPTIC = "give COCO panoptic annotations (not the instance or caption json)"


class JsonCheck(EntryCheck):
    """Goes once through a json, collecting what is wrong and what can be used.

    Attributes:
      categories: those without a fault, in order.
      images: the annotated images whose files can be looked at.
      is_thing: of every category that has an id; None where it does not say.
      num_images: entries of "images".
      num_annotations: entries of "annotations".
      image_names: file names of all images, those with faults too.
      mask_names: file names of all annotations, those with faults too.
      incomplete: images of which not all segments have an id that can be read, so
        that other ids in the PNG are no fault.
    """

    def __init__(self, path: Location, content: dict[str, Any]):
        """Checks the content of a json; its path is for the problems."""
        super().__init__(path)
        self.categories: list[Category] = []
        self.images: list[PanopticImage] = []
        self.num_images = self.num_annotations = 0
        self.image_names: set[str] = set()
        self.mask_names: set[str] = set()
        self.incomplete: set[str] = set()
        self.is_thing: dict[int, bool | None] = {}
        # Ids; None for an entry without one, which may be that of any.
        self._faulty_images: set[ImageId | None] = set()
        self._annotated: set[ImageId | None] = set()
        lists = {key: content.get(key) for key in _LISTS}
        for key, value in lists.items():
            if not isinstance(value, list):
                arrived = "nothing" if value is None else type(value).__name__
                message = f'"{key}" must be a list; got {arrived}'
                self.add(Kind.STRUCTURE, message, _NOT_PANOPTIC)
        if self.problems:
            return
        self.num_images = len(lists["images"])
        self.num_annotations = len(lists["annotations"])
        if not self._is_of_other_format(lists["annotations"]):
            self._go_through(**lists)

    def _is_of_other_format(self, annotations: list) -> bool:
        """Finds annotations of which none is panoptic: that is the one fault."""
        entries = [entry for entry in annotations if isinstance(entry, dict)]
        if not entries or any("segments_info" in entry for entry in entries):
            return False
        keys = set().union(*entries)
        known = [name for key, name in _OTHER_FORMATS.items() if key in keys]
        fix, file = _NOT_PANOPTIC, PurePosixPath(self._file).name
        for prefix in _OTHER_NAMES:
            if file.startswith(prefix):
                name = f"panoptic_{file.removeprefix(prefix)}"
                fix = f"give the panoptic json of the split, {name}"
        arrived = known[0] if known else "none that has"
        message = f'annotations must have "segments_info"; got {arrived}'
        self.add(Kind.STRUCTURE, message, fix)
        return True

    def _go_through(self, categories: list, images: list, annotations: list) -> None:
        if not (annotations and images):
            self.add(
                Kind.EMPTY,
                f"must hold at least one image and annotation; got {len(images)} and "
                f"{len(annotations)}",
                "give the json of a split that has both",
            )
        self.categories, self.is_thing = check_categories(self, categories)
        segments = SegmentsCheck(self._file, self.is_thing)
        segments.check_categories(categories, annotations)
        usable: dict[ImageId, dict[str, Any]] = {}
        ids, names = set(), {}
        for number, entry in enumerate(images):
            if self._is_usable(entry, f"images[{number}]", ids, names):
                usable[entry["id"]] = entry
            elif id_of(entry) not in usable:
                self._faulty_images.add(id_of(entry))
        self._check_annotations(annotations, usable, segments)
        self.problems += segments.problems
        self.incomplete = segments.incomplete

    def _is_usable(
        self, entry: Any, where: str, ids: set[ImageId], names: dict[str, ImageId]
    ) -> bool:
        """Whether an entry of "images" has no fault; ids and names gain its own."""
        fine = self.fields(entry, where, where, id=ImageId, height=int, width=int)
        if not isinstance(entry, dict) or not self.file_name(entry, where):
            return False
        image = entry["file_name"]
        self.image_names.add(image)
        if not fine:
            return False
        height, width = entry["height"], entry["width"]
        if min(height, width) < 1:
            rule = f'"height" and "width" must be above 0; got {height} and {width}'
            fix = "give the size in pixels"
            self.add(Kind.STRUCTURE, f"{where}: {rule}", fix, image)
            return False
        fix = "give one another id, and its annotation that image_id"
        if self.is_repeated(ids, entry["id"], "image id", fix, image):
            return False
        name = record_name(image)
        first = names.setdefault(name, entry["id"])
        if first != entry["id"]:
            self.add(
                Kind.DUPLICATE,
                f"image file names (less extension) must differ; images {first!r} and "
                f"{entry['id']!r} are both called {name!r}",
                "rename one; if both say the same, leave one out",
                image,
            )
        return first == entry["id"]

    def _check_annotations(
        self,
        annotations: list,
        images: dict[ImageId, dict[str, Any]],
        check: SegmentsCheck,
    ) -> None:
        masks: set[str] = set()
        for number, entry in enumerate(annotations):
            where = f"annotations[{number}]"
            fine = self.fields(entry, where, where, image_id=ImageId)
            named = isinstance(entry, dict) and self.file_name(entry, where)
            if named:
                self.mask_names.add(entry["file_name"])
            if not (fine and named):
                self._annotated.add(id_of(entry, "image_id"))
                continue
            image_id, mask = entry["image_id"], entry["file_name"]
            known = images.get(image_id)
            image = known["file_name"] if known else where
            if self._is_second(image_id, mask, image, masks):
                continue
            segments = check.of(entry, image)
            if known is None:
                self._add_without_entry(where, image_id)
                continue
            if entry.get("segments_info") == []:
                message = "the image has no segment, so all of it is void"
                self.add(
                    Kind.NO_SEGMENTS,
                    f"annotation of {mask}: {message}",
                    "training learns nothing from it; annotate it, or leave the image "
                    "out",
                    image,
                    note=True,
                )
            size = known["height"], known["width"]
            self.images.append(PanopticImage(image_id, image, mask, *size, segments))
        # Not where an annotation does not say of which image it is.
        if annotations and None not in self._annotated:
            self._check_all_annotated(images)

    def _is_second(
        self, image_id: ImageId, mask: str, image: str, masks: set[str]
    ) -> bool:
        """Whether an image or a mask has another annotation; reports both."""
        what, fix = "annotation of image id", 'correct one "image_id"'
        annotated = self.is_repeated(self._annotated, image_id, what, fix, image)
        fix = "rename one, in json and folder"
        return self.is_repeated(masks, mask, "mask file name", fix, image) or annotated

    def _add_without_entry(self, where: str, image_id: ImageId) -> None:
        """An annotation whose image is missing, not one that has a fault already."""
        if self.num_images and self._faulty_images.isdisjoint((image_id, None)):
            message = f'{where}: image_id {image_id!r} is not in "images"'
            fix = 'add the image to "images", or correct "image_id"'
            self.add(Kind.NO_ENTRY, message, fix, where)

    def _check_all_annotated(self, images: dict[ImageId, dict[str, Any]]) -> None:
        fix = 'add one; if there is none, leave the image out of "images"'
        for image_id, entry in images.items():
            if image_id not in self._annotated:
                image = entry["file_name"]
                message = f"image {image} has no annotation"
                self.add(Kind.NO_ANNOTATION, message, fix, image)
