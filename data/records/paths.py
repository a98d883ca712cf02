"""The paths of a data set that is named: registered, or by a manifest."""

from __future__ import annotations

from cmt.data.panoptic.registry import LAYOUTS, Paths
from cmt.data.records.manifest import Manifest
from cmt.errors import InputError
from cmt.io.storage import Location, join

_MANIFEST_ENDING = ".manifest.json"


def find_paths(dataset: str, root: Location | None, split: str) -> Paths:
    """Returns the paths of a registered data set, or those a manifest was made from.

    Args:
      dataset: a name of LAYOUTS, or the path of a manifest.
      root: folder of a registered data set; None with a manifest.
      split: "train", "val", ...; not used with a manifest.

    Raises:
      InputError: there is no such data set, or no root.
    """
    if dataset.endswith(_MANIFEST_ENDING):
        if root is not None:
            raise InputError(
                f"--root {root}: a manifest names its own folders; leave --root out"
            )
        return _paths_of(Manifest.read(dataset), dataset)
    if dataset not in LAYOUTS:
        raise InputError(
            f"--dataset must be one of {', '.join(sorted(LAYOUTS))} or a path ending "
            f"in {_MANIFEST_ENDING}; got {dataset!r}"
        )
    if root is None:
        raise InputError(f"--dataset {dataset} needs --root, the folder it is in")
    layout = LAYOUTS[dataset]
    words = {"split": split, "long": layout.long_splits.get(split, split)}
    return Paths(
        images=join(root, layout.images.format(**words)),
        annotations=join(root, layout.annotations.format(**words)),
        masks=join(root, layout.masks.format(**words)),
        dataset=dataset,
        category_offset=layout.category_offset,
        advice=f"check --root {root} and --split {split}",
    )


def _paths_of(manifest: Manifest, path: str) -> Paths:
    origin = manifest.origin
    if not (origin.images and origin.annotations):
        raise InputError(
            f"{path}: an older manifest, which does not say where the images are; "
            "give --images, --annotations and --masks"
        )
    return Paths(
        images=origin.images,
        annotations=origin.annotations,
        masks=manifest.masks,
        dataset=origin.dataset,
        category_offset=origin.category_offset,
        exif=origin.exif,
        advice="give --images, --annotations and --masks in place of the manifest",
    )
