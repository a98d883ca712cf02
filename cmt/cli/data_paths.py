"""The data set that the options of `cmt data validate` and `convert` name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmt.cli.options import things_named
from cmt.errors import InputError

if TYPE_CHECKING:
    from cmt.data.panoptic.registry import Paths
    from cmt.io.storage import Location


def named_paths(
    images: str | None,
    annotations: str | None,
    masks: str | None,
    dataset: str | None,
    root: str | None,
    split: str,
) -> Paths:
    """Returns the three paths, or those of --dataset, --root and --split.

    Raises:
      InputError: neither is given whole, or both are.
    """
    from cmt.data.panoptic.registry import Paths

    given = {"--images": images, "--annotations": annotations, "--masks": masks}
    missing = [option for option, path in given.items() if path is None]
    if dataset is not None and len(missing) < 3:
        raise InputError(
            "--dataset names images, annotations and masks itself; leave out those "
            "three, or --dataset"
        )
    if dataset is None and root is not None:
        raise InputError(f"--root {root} goes with --dataset; give both or neither")
    if dataset is not None:
        return find_paths(dataset, root, split)
    if missing:
        raise InputError(
            f"{missing[0]} is missing; give --images, --annotations and --masks, or "
            "--dataset"
        )
    return Paths(images, annotations, masks)


def with_reading(
    paths: Paths,
    exif: str | None,
    category_offset: int | None,
    things: str | None,
    strict: bool,
) -> Paths:
    """Returns the paths with what these options say of reading them, where given."""
    given: dict[str, Any] = {"exif": exif, "category_offset": category_offset}
    given["things"] = None if things is None else things_named(things)
    given = {name: value for name, value in given.items() if value is not None}
    return paths._replace(**given, strict=strict)


def find_paths(dataset: str, root: Location | None, split: str) -> Paths:
    """Returns the paths of a registered data set, or those a manifest was made from.

    Args:
      dataset: a name of `LAYOUTS`, or the path of a manifest.
      root: the folder of a registered data set.
      split: "train", "val", ..., which a manifest needs not.

    Raises:
      InputError: there is no such data set, or no root.
    """
    from cmt.data.panoptic.registry import LAYOUTS, Paths
    from cmt.data.records.manifest import MANIFEST_ENDING
    from cmt.io.storage import join

    if dataset.endswith(MANIFEST_ENDING):
        return _paths_of_manifest(dataset, root)
    if dataset not in LAYOUTS:
        raise InputError(
            f"--dataset must be one of {', '.join(sorted(LAYOUTS))} or a path ending "
            f"in {MANIFEST_ENDING}; got {dataset!r}"
        )
    if root is None:
        raise InputError(f"--dataset {dataset} needs --root, the folder it is in")
    layout = LAYOUTS[dataset]
    words = {"split": split, "long": layout.long_splits.get(split, split)}
    folders = (layout.images, layout.annotations, layout.masks)
    return Paths(
        *(join(root, place.format(**words)) for place in folders),
        dataset=dataset,
        category_offset=layout.category_offset,
        advice=f"check --root {root} and --split {split}",
    )


def _paths_of_manifest(path: str, root: Location | None) -> Paths:
    from cmt.data.panoptic.registry import Paths
    from cmt.data.records.manifest import Manifest

    if root is not None:
        raise InputError(
            f"--root {root}: a manifest names its own folders; leave --root out"
        )
    manifest = Manifest.read(path)
    origin = manifest.origin
    if not (origin.images and origin.annotations):
        raise InputError(
            f"{path}: an older manifest, which does not say where the images are; give "
            "--images, --annotations and --masks"
        )
    return Paths(
        images=origin.images,
        annotations=origin.annotations,
        masks=manifest.masks,
        dataset=origin.dataset,
        category_offset=origin.category_offset,
        exif=origin.exif,
        things=origin.things,
        advice="give --images, --annotations and --masks in place of the manifest",
    )
