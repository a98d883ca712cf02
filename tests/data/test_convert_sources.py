"""What conversion makes of images, ids and faults of every kind."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import subprocess
import sys

import pytest
import tensorflow as tf

from cmt.data.checks.report import validate
from cmt.data.convert import convert as convert_module
from cmt.data.panoptic.registry import Paths
from cmt.data.records.manifest import Manifest
from cmt.data.records.reader import decode_example
from cmt.errors import InputError
from cmt.evaluation.annotations import read_annotations
from tests.data.conversions import convert
from tests.data.records import read_records


def edit(path: pathlib.Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def records(folder: pathlib.Path, manifest: Manifest) -> list[bytes]:
    return [
        record
        for shard in manifest.shards
        for record in read_records(folder / shard.name)
    ]


def damage(broken: dict) -> None:
    """Five images with faults: of the file, of the mask, of the entry, missing."""
    (broken["images"] / "000000000001.jpg").write_bytes(b"no")
    (broken["masks"] / "000000000002.png").unlink()

    def change(content):
        content["annotations"][3]["segments_info"][0]["iscrowd"] = 2
        content["annotations"][4]["segments_info"][0]["category_id"] = 99

    edit(broken["annotations"], change)


@pytest.mark.parametrize("workers", [1, 2])
def test_images_with_faults_are_left_out_up_to_a_number(broken, tmp_path, workers):
    damage(broken)
    options = dict(**broken, output=tmp_path / "out", split="val", workers=workers)
    with pytest.raises(InputError, match=r"\(3 images with faults before it\)"):
        convert(**options, max_bad=3)
    assert not (tmp_path / "out").exists()
    manifest = convert(**options, max_bad=4)
    assert manifest == Manifest.read(tmp_path / "out" / "val.manifest.json")
    assert manifest.num_images == 2
    names = [
        decode_example(tf.constant(record)).name.numpy().decode()
        for record in records(tmp_path / "out", manifest)
    ]
    assert names == ["000000000003", "000000000006"]
    skipped = {image.image: image.kind for image in manifest.contents.skipped}
    assert skipped == {
        "000000000001.jpg": "not an image",
        "000000000002.jpg": "missing file",
        "000000000004.jpg": "crowd",
        "000000000005.jpg": "category not in list",
    }
    assert all(image.message for image in manifest.contents.skipped)


def test_faults_count_again_when_a_run_goes_on(broken, tmp_path):
    damage(broken)
    options = dict(**broken, output=tmp_path / "out", split="val", shards=2, workers=1)
    first = convert(**options, max_bad=4)
    again = convert(**options, max_bad=4, resume=True)
    assert again.contents == first.contents
    assert again.shards == first.shards
    with pytest.raises(InputError, match="3 images with faults before it"):
        convert(**options, max_bad=3, resume=True)


def test_missing_files_are_counted_before_anything_is_converted(broken, tmp_path):
    for number in (2, 4, 5):
        (broken["masks"] / f"00000000000{number}.png").unlink()
    with pytest.raises(InputError, match="6 images .* of which 0 and 3 are not there"):
        convert(**broken, output=tmp_path / "out", split="val")


def test_what_is_said_of_missing_files_is_of_each_its_own(broken, tmp_path):
    """That there are more of them is for the error alone, which names one."""
    (broken["images"] / "000000000001.jpg").unlink()
    for number in (1, 4):
        (broken["masks"] / f"00000000000{number}.png").unlink()
    options = dict(**broken, output=tmp_path / "out", split="val", workers=1)
    with pytest.raises(InputError) as caught:
        convert(**options, max_bad=1)
    assert re.search(
        "^the json names 6 images and as many masks, of which 1 and 2 are not there, "
        r"such as [^ ]*000000000004\.png: no such mask.* \(1 image with faults before",
        str(caught.value),
    )
    skipped = convert(**options, max_bad=2).contents.skipped
    assert [image.line.split(",")[0] for image in skipped] == [
        f"{broken['images'] / '000000000001.jpg'}: no such image",
        f"{broken['masks'] / '000000000004.png'}: no such mask",
    ]
    written = json.loads((tmp_path / "out" / "val.manifest.json").read_text())
    first = written["contents"]["skipped"][0]
    assert first["file"] == "../scenes/images/val/000000000001.jpg"
    assert str(tmp_path) not in json.dumps(written)


def test_counts_hashes_and_version(scene_sources, shards):
    manifest = Manifest.read(shards / "train.manifest.json")
    contents, origin = manifest.contents, manifest.origin
    entries = [*read_annotations(scene_sources["annotations"]).images.values()]
    things = {c.id for c in manifest.categories if c.is_thing}
    segments = [segment for entry in entries for segment in entry.segments]
    crowd = sum(segment.is_crowd for segment in segments)
    assert crowd > 0
    assert contents.crowd == crowd
    assert contents.segments == len(segments)
    assert contents.stuff == sum(s.category_id not in things for s in segments)
    assert contents.things == len(segments) - crowd - contents.stuff
    most = max(sum(not s.is_crowd for s in entry.segments) for entry in entries)
    assert contents.max_masks == most
    sizes = [(shards / shard.name).stat().st_size for shard in manifest.shards]
    assert [shard.num_bytes for shard in manifest.shards] == sizes
    assert contents.num_bytes == sum(sizes)
    content = scene_sources["annotations"].read_bytes()
    assert origin.annotations_sha256 == hashlib.sha256(content).hexdigest()
    first = hashlib.sha256()
    for entry in entries[: manifest.shards[0].num_images]:
        files = hashlib.sha256((scene_sources["images"] / entry.file_name).read_bytes())
        files.update((scene_sources["masks"] / entry.mask_name).read_bytes())
        first.update(files.digest())
    assert manifest.shards[0].source_sha256 == first.hexdigest()
    assert origin.tool_version.count(".") >= 1
    assert origin.images == scene_sources["images"].resolve()
    written = json.loads((shards / "train.manifest.json").read_text())
    classes = {entry["id"]: entry["class"] for entry in written["categories"]}
    assert classes == {c.id: n + 1 for n, c in enumerate(manifest.categories)}


def test_shards_are_of_equal_bytes(scene_sources, tmp_path, monkeypatch):
    monkeypatch.setattr(convert_module, "_SHARD_BYTES", 20_000)
    manifest = convert(**scene_sources, output=tmp_path, split="train", workers=1)
    sizes = [shard.num_bytes for shard in manifest.shards]
    assert len(sizes) > 2
    assert max(sizes) < 25_000 and min(sizes) > 10_000
    assert manifest.num_images == 24


@pytest.mark.parametrize(
    ("sizes", "count", "bounds"),
    [
        ([1, 1, 1, 1], 2, [0, 2, 4]),
        ([9, 1, 1, 1], 2, [0, 1, 4]),
        ([1, 1, 1, 9], 3, [0, 2, 3, 4]),
        ([9, 9, 1, 1], 4, [0, 1, 2, 3, 4]),
        ([0, 0, 0], 2, [0, 2, 3]),
    ],
)
def test_bounds_by_hand(sizes, count, bounds):
    assert convert_module._bounds(sizes, count) == bounds


@pytest.mark.parametrize("scheme", ["file://", "ram://"])
def test_paths_with_a_scheme(scene_sources, tmp_path, scheme):
    local = convert(
        **scene_sources, output=tmp_path / "a", split="val", limit=5, shards=2
    )
    root = f"{scheme}{tmp_path}/remote"
    gfile = tf.io.gfile
    for name in ("images", "masks"):
        gfile.makedirs(f"{root}/{name}")
        for path in scene_sources[name].iterdir():
            with gfile.GFile(f"{root}/{name}/{path.name}", "wb") as file:
                file.write(path.read_bytes())
    with gfile.GFile(f"{root}/train.json", "wb") as file:
        file.write(scene_sources["annotations"].read_bytes())
    sources = dict(
        images=f"{root}/images", annotations=f"{root}/train.json", masks=f"{root}/masks"
    )
    assert validate(Paths(**sources), workers=1).problems == []
    options = dict(split="val", limit=5, shards=2, workers=1)
    for output in (f"{root}/out", tmp_path / "b"):
        remote = convert(**sources, output=output, **options)
        assert [s.sha256 for s in remote.shards] == [s.sha256 for s in local.shards]
        assert remote.origin.source_sha256 == local.origin.source_sha256
        folder = f"{output}"
        assert sorted(gfile.listdir(folder)) == [
            "val-00000-of-00002.tfrecord",
            "val-00001-of-00002.tfrecord",
            "val.manifest.json",
        ]
        manifest = Manifest.read(f"{folder}/val.manifest.json")
        assert manifest.annotations == sources["annotations"]
        convert(**sources, output=output, **options, resume=True)
    gfile.remove(f"{root}/images/000000000003.jpg")
    with pytest.raises(InputError, match=r"000000000003\.jpg: no such image"):
        convert(**sources, output=f"{root}/more", **options)


def test_worker_processes_load_no_tensorflow():
    code = (
        "import sys, cmt.data.convert.encode, cmt.data.checks.report;"
        "import cmt.data.convert.convert;"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
