"""Checks of a COCO panoptic json by itself, without the files it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cmt.data.checks.categories import CategoriesCheck
from cmt.data.checks.entries import STRUCTURE, EntryCheck, id_of
from cmt.data.checks.problems import Problem
from cmt.data.checks.segments import SegmentsCheck
from cmt.data.checks.syntax import other_format
from cmt.data.panoptic.annotations import ImageId, PanopticImage, record_name
from cmt.data.panoptic.categories import Category


class JsonCheck(EntryCheck):
    """Goes once through a json, collecting what is wrong and what can be used.

    Predictions need neither "images" nor "categories" nor areas; what they have of
    these is checked.

    Attributes:
      problems: all faults found; those of one image name it.
      notes: what is no fault but good to know.
      categories: those without a fault, in order.
      images: the annotated images whose files can be looked at; those of predictions
        have no file name and size.
      is_thing: of every category that has an id; None where it does not say.
      num_images: entries of "images".
      num_annotations: entries of "annotations".
      image_names: file names of all images, those with faults too.
      mask_names: of all annotations, likewise.
      causes: of the problems that many entries may have for one reason.
      incomplete: images of which not all segments have an id that can be read, so
        that other ids in the PNG are no fault.
    """

    def __init__(
        self, path: Path | str, content: dict[str, Any], *, is_prediction: bool = False
    ):
        super().__init__(str(path))
        self.categories: list[Category] = []
        self.images: list[PanopticImage] = []
        self.num_images = self.num_annotations = 0
        self.image_names: set[str] = set()
        self.mask_names: set[str] = set()
        self.incomplete: set[str] = set()
        self.is_thing: dict[int, bool | None] = {}
        self._is_prediction = is_prediction
        # Ids; None for an entry without one, which may be that of any.
        self._faulty_images: set[ImageId | None] = set()
        self._annotated: set[ImageId | None] = set()
        self._segments = SegmentsCheck(
            self._path, self.is_thing, is_prediction=is_prediction
        )
        self._go_through(content)

    def _go_through(self, content: dict[str, Any]) -> None:
        categories = self._list(content, "categories")
        images = self._list(content, "images")
        annotations = self._list(content, "annotations")
        if None in (categories, images, annotations):
            return
        self.num_images, self.num_annotations = len(images), len(annotations)
        other = other_format(self._path, annotations)
        if other is not None:
            self.problems.append(other)
            return
        if not (self._is_prediction or (annotations and images)):
            self._add(
                "empty data set",
                f"must hold at least one image and annotation; got {len(images)} and "
                f"{len(annotations)}",
                "give the json of a split that has both",
            )
        if categories or not self._is_prediction:
            check = CategoriesCheck(self._path, categories)
            self.problems += check.problems
            self.notes += check.notes
            self.categories = check.categories
            self.is_thing.update(check.is_thing)
        self._segments.check_categories(categories, annotations)
        usable = self._check_images(images)
        self._check_annotations(annotations, usable)
        if annotations and not self._is_prediction:
            self._check_all_annotated(usable)
        self.problems += self._segments.problems
        self.causes |= self._segments.causes
        self.incomplete = self._segments.incomplete

    def _list(self, content: dict[str, Any], key: str) -> list | None:
        value = content.get(key)
        if isinstance(value, list):
            return value
        if value is None and self._is_prediction and key != "annotations":
            return []
        arrived = "nothing" if value is None else type(value).__name__
        self._add(
            STRUCTURE,
            f'"{key}" must be a list; got {arrived}',
            "give COCO panoptic annotations (not the instance or caption json)",
        )
        return None

    def _check_images(self, images: list) -> dict[ImageId, dict[str, Any]]:
        """The usable entries by id."""
        usable, ids, names = {}, set(), {}
        for number, entry in enumerate(images):
            where = f"images[{number}]"
            if self._is_usable(entry, where, ids, names):
                usable[entry["id"]] = entry
            elif id_of(entry) not in usable:
                self._faulty_images.add(id_of(entry))
        return usable

    def _is_usable(
        self, entry: Any, where: str, ids: set[ImageId], names: dict[str, ImageId]
    ) -> bool:
        """Whether an entry of "images" has no fault; ids and names gain its own."""
        fine = self._fields(entry, where, where, id=ImageId, height=int, width=int)
        if not isinstance(entry, dict) or not self._file_name(entry, where):
            return False
        image = entry["file_name"]
        self.image_names.add(image)
        if not fine:
            return False
        if min(entry["height"], entry["width"]) < 1:
            self._add(
                STRUCTURE,
                f'{where}: "height" and "width" must be above 0; got '
                f"{entry['height']} and {entry['width']}",
                "give the size in pixels",
                image,
            )
            return False
        fix = "give one another id, and its annotation that image_id"
        if self._duplicate(ids, entry["id"], "image id", image, fix):
            return False
        name = record_name(image)
        if name in names:
            self._add(
                "duplicate",
                "image file names (less extension) must differ; images "
                f"{names[name]!r} and {entry['id']!r} are both called {name!r}",
                "rename one; if both say the same, leave one out",
                image,
            )
            return False
        names[name] = entry["id"]
        return True

    def _check_annotations(
        self, annotations: list, images: dict[ImageId, dict[str, Any]]
    ) -> None:
        names: set[str] = set()
        for number, entry in enumerate(annotations):
            where = f"annotations[{number}]"
            fine = self._fields(entry, where, where, image_id=ImageId)
            named = isinstance(entry, dict) and self._file_name(entry, where)
            if named:
                self.mask_names.add(entry["file_name"])
            if not (fine and named):
                self._annotated.add(id_of(entry, "image_id"))
                continue
            image_id = entry["image_id"]
            known = images.get(image_id)
            if known is None and self._is_prediction:
                known = {"file_name": "", "height": 0, "width": 0}
            image = where if known is None else known["file_name"] or where
            if self._is_repeated(entry, image, names):
                continue
            segments = list(self._segments.of(entry, image))
            self._segments.check_instances(entry, segments, image)
            if known is None:
                self._add_without_entry(where, image_id)
                continue
            if entry.get("segments_info") == [] and not self._is_prediction:
                self._note_empty(entry["file_name"], image)
            self.images.append(
                PanopticImage(
                    image_id=image_id,
                    file_name=known["file_name"],
                    mask_name=entry["file_name"],
                    height=known["height"],
                    width=known["width"],
                    segments=segments,
                )
            )

    def _is_repeated(self, entry: dict[str, Any], image: str, names: set[str]) -> bool:
        """Whether its image or its mask has another annotation."""
        what, fix = "annotation of image id", 'correct one "image_id"'
        annotated = self._duplicate(
            self._annotated, entry["image_id"], what, image, fix
        )
        name, fix = entry["file_name"], "rename one, in json and folder"
        return self._duplicate(names, name, "mask file name", image, fix) or annotated

    def _add_without_entry(self, where: str, image_id: ImageId) -> None:
        """An annotation whose image is missing, not one that has a fault already."""
        if self.num_images and self._faulty_images.isdisjoint((image_id, None)):
            self._add(
                "image without entry",
                f'{where}: image_id {image_id!r} is not in "images"',
                'add the image to "images", or correct "image_id"',
                where,
            )

    def _note_empty(self, mask: str, image: str) -> None:
        self.notes.append(
            Problem(
                "annotation without segments",
                self._path,
                None,
                f"annotation of {mask}: the image has no segment, so all of it is void",
                "training learns nothing from it; annotate it, or leave the image out",
                image,
            )
        )

    def _check_all_annotated(self, images: dict[ImageId, dict[str, Any]]) -> None:
        if None in self._annotated:
            return  # An annotation that does not say of which image it is.
        for image_id, image in images.items():
            if image_id not in self._annotated:
                self._add(
                    "image without annotation",
                    f"image {image['file_name']} has no annotation",
                    'add one; if there is none, leave the image out of "images"',
                    image["file_name"],
                )
