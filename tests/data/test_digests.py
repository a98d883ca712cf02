"""What a conversion remembers of what it was made from: `resume` depends on it."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil

import pytest
from PIL import Image

from cmt.data.convert import convert as convert_module
from cmt.data.records.manifest import Manifest
from cmt.errors import InputError
from cmt.evaluation.annotations import read_annotations
from tests.data.conversions import convert

_EXIF_ORIENTATION = 0x112


def listing(folder: pathlib.Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def edit(sources: dict, change) -> None:
    path = sources["annotations"]
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def keep_crowd(sources: dict, monkeypatch) -> dict:
    return {"keep_crowd": True}


def exif(sources: dict, monkeypatch) -> dict:
    return {"exif": "apply"}


def order_of_classes(sources: dict, monkeypatch) -> dict:
    edit(sources, lambda content: content["categories"].reverse())
    return {}


def category_of_a_segment(sources: dict, monkeypatch) -> dict:
    def change(content):
        things = [c["id"] for c in content["categories"] if c["isthing"]]
        for entry in content["annotations"]:
            for segment in entry["segments_info"]:
                if segment["category_id"] in things[:2]:
                    segment["category_id"] = things[2]
                    return

    edit(sources, change)
    return {}


def crowd_of_a_segment(sources: dict, monkeypatch) -> dict:
    def change(content):
        things = [c["id"] for c in content["categories"] if c["isthing"]]
        for entry in content["annotations"]:
            for segment in entry["segments_info"]:
                if segment["category_id"] in things and not segment["iscrowd"]:
                    segment["iscrowd"] = 1
                    return

    edit(sources, change)
    return {}


def _first(sources: dict, kind: str) -> pathlib.Path:
    return min(sources[kind].iterdir())


def _with_time(path: pathlib.Path, change, *, time: int | None = None) -> None:
    """Changes a file, which then is of the given time, or as old as before."""
    status = path.stat()
    change(path)
    os.utime(path, ns=(status.st_atime_ns, time or status.st_mtime_ns))


def size_of_an_image(sources: dict, monkeypatch) -> dict:
    _with_time(
        _first(sources, "images"), lambda p: p.write_bytes(p.read_bytes() + b"\0")
    )
    return {}


def time_of_an_image(sources: dict, monkeypatch) -> dict:
    def change(path):
        content = bytearray(path.read_bytes())
        content[-40] ^= 1  # some of the pixels
        path.write_bytes(content)

    _with_time(_first(sources, "images"), change, time=10**18)
    return {}


def size_of_a_mask(sources: dict, monkeypatch) -> dict:
    _with_time(
        _first(sources, "masks"), lambda p: Image.open(p).save(p, compress_level=1)
    )
    return {}


def version(sources: dict, monkeypatch) -> dict:
    monkeypatch.setattr(convert_module, "RECORD_VERSION", 99)
    return {}


OF_THE_RUN = (
    keep_crowd,
    exif,
    order_of_classes,
    category_of_a_segment,
    crowd_of_a_segment,
)
OF_THE_FILES = (size_of_an_image, time_of_an_image, size_of_a_mask, version)


@pytest.mark.parametrize("change", [*OF_THE_RUN, *OF_THE_FILES])
def test_after_a_change_no_shard_from_before_it_is_taken(
    broken, tmp_path, monkeypatch, change
):
    """Other files are converted again; another json or option asks for --overwrite."""
    path = broken["images"] / "000000000003.jpg"
    orientation = Image.Exif()
    orientation[_EXIF_ORIENTATION] = 3  # upside down, and as wide and high
    Image.open(path).save(path, exif=orientation)
    options = dict(**broken, split="val", shards=3, workers=1, exif="ignore")
    output = tmp_path / "output"
    convert(**options, output=output)
    before = listing(output)
    options |= change(broken, monkeypatch)
    if change in OF_THE_RUN:
        with pytest.raises(InputError, match="a complete split of another run"):
            convert(**options, output=output, resume=True)
        assert listing(output) == before
        convert(**options, output=output, overwrite=True)
    else:
        convert(**options, output=output, resume=True)
    convert(**options, output=tmp_path / "fresh")
    assert listing(output) == listing(tmp_path / "fresh")
    changed = {
        name for name, digest in listing(output).items() if before[name] != digest
    }
    assert "val.manifest.json" in changed
    assert change in (version, size_of_a_mask) or len(changed) > 1


def moved_folder(sources: dict) -> None:
    folder = sources["images"]
    shutil.move(folder, folder.with_name("elsewhere"))
    sources["images"] = folder.with_name("elsewhere")


def no_box(sources: dict) -> None:
    def change(content):
        content["annotations"][0]["segments_info"][0].pop("bbox")

    edit(sources, change)


@pytest.mark.parametrize("change", [moved_folder, no_box])
def test_what_changes_no_record_makes_no_shard_again(
    broken, tmp_path, monkeypatch, change
):
    sources = dict(broken)
    options = dict(output=tmp_path / "output", split="val", shards=3, workers=1)
    first = convert(**sources, **options)
    change(sources)

    def none(encoding, entries):
        raise AssertionError("converted again")

    monkeypatch.setattr(convert_module, "encode_image", none)
    assert convert(**sources, **options, resume=True).shards == first.shards


def hashes_by_hand(sources: dict, manifest: Manifest) -> list[str]:
    """Of each shard, from the files on the disk."""
    entries = iter(read_annotations(sources["annotations"]).images.values())
    found = []
    for shard in manifest.shards:
        digest = hashlib.sha256()
        for _ in range(shard.num_images):
            entry = next(entries)
            files = (sources["images"] / entry.file_name).read_bytes()
            files += (sources["masks"] / entry.mask_name).read_bytes()
            digest.update(hashlib.sha256(files).digest())
        found.append(digest.hexdigest())
    return found


def test_the_source_hash_is_that_of_images_and_masks(broken, tmp_path):
    """Of the files as they are, also where records hold others: a grey image."""
    path = _first(broken, "images")
    Image.open(path).convert("L").save(path, "JPEG", quality=95)
    seen = set()
    for change in (None, "images", "masks"):
        if change:
            last = max(broken[change].iterdir())
            last.write_bytes(last.read_bytes() + b"\0")
        manifest = convert(
            **broken, output=tmp_path / str(change), split="val", shards=3, workers=1
        )
        expected = hashes_by_hand(broken, manifest)
        assert [shard.source_sha256 for shard in manifest.shards] == expected
        whole = hashlib.sha256("".join(expected).encode()).hexdigest()
        assert manifest.origin.source_sha256 == whole
        seen.add(whole)
    assert len(seen) == 3
