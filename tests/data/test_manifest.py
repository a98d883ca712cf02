from __future__ import annotations

import dataclasses
import shutil

import pytest

from cmt.data.panoptic.categories import Category
from cmt.data.records.manifest import Contents, Manifest, Shard, Skipped
from cmt.errors import InputError


def test_a_manifest_survives_a_move_with_its_sources(tmp_path):
    (tmp_path / "a" / "records").mkdir(parents=True)
    manifest = Manifest(
        split="val",
        categories=[
            Category(7, "cat", True, (1, 2, 3)),
            Category(90, "sky", False, (4, 5, 6)),
        ],
        num_images=4,
        shards=[Shard("val-00000-of-00001.tfrecord", 4, "ab")],
        annotations=tmp_path / "a" / "json" / "val.json",
        masks=tmp_path / "a" / "json" / "val",
        crowd_kept=True,
        folder=tmp_path / "a" / "records",
    )
    manifest.write(tmp_path / "a" / "records" / "val.manifest.json")
    shutil.move(tmp_path / "a", tmp_path / "b")

    folder = tmp_path / "b" / "records"
    read = Manifest.read(folder / "val.manifest.json")
    assert read.annotations == (tmp_path / "b" / "json" / "val.json").resolve()
    assert read.masks == (tmp_path / "b" / "json" / "val").resolve()
    assert [category.is_thing for category in read.categories] == [True, False]
    same = dataclasses.replace(
        manifest, annotations=read.annotations, masks=read.masks, folder=folder
    )
    assert read == same


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such manifest"),
        ("{", "not a manifest"),
        ("[]", "not a manifest"),
        ('{"format": 99}', "format is 99"),
        ('{"format": 1}', "'split' is missing"),
    ],
)
def test_a_missing_or_damaged_manifest_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "val.manifest.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        Manifest.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_images_left_out_are_told_from_the_manifest_on(tmp_path):
    """And as they are named, though they be links."""
    for folder in ("a/records", "a/images", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "elsewhere" / "1.jpg").touch()
    (tmp_path / "a" / "images" / "1.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    files = [tmp_path / "a" / "images" / "1.jpg", "gs://bucket/2.jpg", ""]
    skipped = tuple(Skipped("x", "damaged file", "no; mend it", f) for f in files)
    path = tmp_path / "a" / "records" / "val.manifest.json"
    contents, folder = Contents(skipped=skipped), path.parent
    manifest = Manifest("val", [], 0, [], "", "", folder=folder, contents=contents)
    manifest.write(path)
    assert str(tmp_path) not in path.read_text()
    shutil.move(tmp_path / "a", tmp_path / "b")
    read = Manifest.read(tmp_path / "b" / "records" / "val.manifest.json")
    assert [image.line for image in read.contents.skipped] == [
        f"{tmp_path}/b/images/1.jpg: no; mend it",
        "gs://bucket/2.jpg: no; mend it",
        "no; mend it",
    ]
