"""`--resume` where what is there was made by a run that was told otherwise."""

from __future__ import annotations

import hashlib
import pathlib
import shutil

import pytest

from cmt.data.convert import convert as convert_module
from cmt.data.convert.shards import LOCK
from cmt.data.panoptic.registry import Paths
from cmt.data.scenes.generate import generate_scenes
from cmt.errors import InputError
from cmt.io import storage
from tests.data.conversions import convert, convert_paths


def listing(folder: pathlib.Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


@pytest.fixture
def interrupted(monkeypatch):
    """Makes conversions stop at an image, until it is called with None."""
    plain = convert_module.encode_image
    monkeypatch.setattr(convert_module, "_CHUNK_IMAGES", 1)

    def at(number: int | None) -> list[int]:
        seen = []

        def encode(encoding, entry):
            if entry.image_id == number:
                raise KeyboardInterrupt
            seen.append(entry.image_id)
            return plain(encoding, entry)

        monkeypatch.setattr(convert_module, "encode_image", encode)
        return seen

    return at


def other_json(sources: dict, tmp_path) -> dict:
    """As many images, in as many shards, with the same options."""
    generate_scenes(tmp_path / "more", train=1, val=6, size=65, seed=9, workers=1)
    folder = tmp_path / "more"
    return {
        "images": folder / "images" / "val",
        "annotations": folder / "annotations" / "panoptic_val.json",
        "masks": folder / "annotations" / "panoptic_val",
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"limit": 2}, "images: then 6, now 2; shards: then 3, now 2"),
        ({"shards": 2}, "shards: then 3, now 2"),
        ({"shards": 0}, "shards: then 3, now 1"),
        ({"keep_crowd": True}, "--keep-crowd: then False, now True"),
        ({"exif": "apply"}, "--exif: then auto, now apply"),
        (other_json, "another json"),
    ],
)
def test_a_complete_split_of_another_run_stays(broken, tmp_path, change, told):
    options = dict(**broken, output=tmp_path / "out", split="val", workers=1, shards=3)
    convert(**options)
    before = listing(tmp_path / "out")
    new = change(broken, tmp_path) if callable(change) else change
    if "limit" in new:
        new = {**new, "shards": 2}
    with pytest.raises(InputError) as caught:
        convert(**{**options, **new}, resume=True)
    message = str(caught.value)
    assert "val.manifest.json: a complete split of another run" in message
    assert told in message and "--overwrite" in message and "\n" not in message
    assert listing(tmp_path / "out") == before
    manifest = convert(**{**options, **new}, overwrite=True)
    assert manifest.num_images == new.get("limit", 6)


def test_raised_category_ids_are_another_run(broken, tmp_path):
    def run(offset: int, **options):
        return convert_paths(
            Paths(**broken, category_offset=offset),
            output=tmp_path / "out",
            split="val",
            workers=1,
            **options,
        )

    run(0)
    before = listing(tmp_path / "out")
    with pytest.raises(InputError, match="--category-offset: then 0, now 5"):
        run(5, resume=True)
    assert listing(tmp_path / "out") == before


def test_a_complete_split_of_the_same_run_stays(broken, tmp_path, monkeypatch):
    """A limit that holds all images is no other run, nor is the number of workers."""
    options = dict(**broken, output=tmp_path / "out", split="val", workers=1, shards=3)
    convert(**options)
    before = listing(tmp_path / "out")
    monkeypatch.setattr(convert_module, "encode_image", None)
    convert(**options | {"limit": 6, "workers": 2}, resume=True)
    assert listing(tmp_path / "out") == before


def test_a_file_that_comes_back_is_no_other_run(broken, tmp_path):
    path = broken["images"] / "000000000002.jpg"
    options = dict(**broken, output=tmp_path / "out", split="val", workers=1, shards=3)
    path.rename(tmp_path / "away")
    assert convert(**options, max_bad=1).num_images == 5
    (tmp_path / "away").rename(path)
    assert convert(**options, resume=True).num_images == 6


def test_resume_goes_on_with_an_overwrite_that_was_cut_off(
    broken, tmp_path, interrupted
):
    """Though the split that it replaces is of another run."""
    options = dict(**broken, split="val", workers=1, shards=3)
    output = tmp_path / "out"
    convert(**{**options, "shards": 2}, output=output, keep_crowd=True)
    old = listing(output)
    interrupted(3)
    with pytest.raises(KeyboardInterrupt):
        convert(**options, output=output, overwrite=True)
    seen = interrupted(5)
    with pytest.raises(KeyboardInterrupt):
        convert(**options, output=output, resume=True)
    assert seen == [3, 4]
    assert old.items() <= listing(output).items()
    seen = interrupted(None)
    convert(**options, output=output, resume=True)
    assert seen == [5, 6]
    convert(**options, output=tmp_path / "reference")
    assert listing(output) == listing(tmp_path / "reference")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shards": 2}, "shards: then 3, now 2"),
        ({"limit": 3}, "images: then 6, now 3"),
        ({"keep_crowd": True}, "--keep-crowd: then False, now True"),
    ],
)
def test_finished_shards_of_other_options_are_not_lost(
    broken, tmp_path, interrupted, change, told
):
    options = dict(**broken, output=tmp_path / "out", split="val", workers=1, shards=3)
    interrupted(5)
    with pytest.raises(KeyboardInterrupt):
        convert(**options)
    before = listing(tmp_path / "out")
    interrupted(None)
    with pytest.raises(InputError, match="shards of a run with other options") as found:
        convert(**{**options, **change}, resume=True)
    assert told in str(found.value)
    assert listing(tmp_path / "out") == before
    seen = interrupted(None)
    convert(**options, resume=True)
    assert seen == [5, 6]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, SystemExit, OSError])
def test_without_a_finished_shard_nothing_stays(broken, tmp_path, monkeypatch, fault):
    def encode(encoding, entry):
        raise fault

    monkeypatch.setattr(convert_module, "encode_image", encode)
    with pytest.raises(fault):
        convert(**broken, output=tmp_path / "a" / "b", split="val", workers=1)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("moved", [0, 1])
def test_cut_off_at_the_end_no_shard_that_stayed_is_made_again(
    broken, tmp_path, monkeypatch, moved
):
    """When the manifest that told of it has gone, and the new one is not there."""
    options = dict(**broken, output=tmp_path / "out", split="val", workers=1, shards=3)
    convert(**options)
    before = listing(tmp_path / "out")
    if moved:  # one shard and the manifest are put in place, or the manifest alone
        (tmp_path / "out" / "val-00001-of-00003.tfrecord").unlink()
    plain, calls = storage.move, []

    def move(source, target):
        if pathlib.Path(target).parent == tmp_path / "out":
            if len(calls) == moved:
                raise KeyboardInterrupt
            calls.append(target)
        plain(source, target)

    monkeypatch.setattr(storage, "move", move)
    with pytest.raises(KeyboardInterrupt):
        convert(**options, resume=True)
    assert not (tmp_path / "out" / "val.manifest.json").exists()
    monkeypatch.setattr(storage, "move", plain)
    monkeypatch.setattr(convert_module, "encode_image", None)
    convert(**options, resume=True)
    assert listing(tmp_path / "out") == before


def test_a_split_without_images_is_refused(broken, tmp_path):
    options = dict(**broken, output=tmp_path / "out", split="val", workers=1, shards=3)
    convert(**options)
    before = listing(tmp_path / "out")
    kept = tmp_path / "kept"
    shutil.copytree(broken["images"], kept)
    for path in broken["images"].iterdir():
        path.write_bytes(path.read_bytes()[:200])
    told = r"no image is left to convert, all 6 have faults; the first: .*0001\.jpg: "
    with pytest.raises(InputError, match=told):
        convert(**options, max_bad=6, overwrite=True)
    there = listing(tmp_path / "out")
    assert before.items() <= there.items()
    with pytest.raises(InputError, match=told):
        convert(**{**options, "output": tmp_path / "new"}, max_bad=6)
    assert not list((tmp_path / "new").glob("val*"))
    shutil.rmtree(broken["images"])
    kept.rename(broken["images"])
    convert(**{**options, "output": tmp_path / "new"}, resume=True)
    for name, digest in before.items():
        if name.endswith(".tfrecord"):
            assert listing(tmp_path / "new")[name] == digest
