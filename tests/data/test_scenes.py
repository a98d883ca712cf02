from __future__ import annotations

import hashlib
import json
import pathlib

import numpy as np
import pytest

from cmt.data.panoptic.masks import read_ids
from cmt.data.scenes.canvas import CATEGORIES, THINGS, render_scene
from cmt.data.scenes.generate import generate_scenes
from cmt.data.scenes.shapes import SHAPES
from cmt.errors import InputError


def digests(folder: pathlib.Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def drawn():
    """60 scenes of the default size and rate of crowd and void."""
    return [render_scene(np.random.default_rng([9, n]), 97, 0.2) for n in range(60)]


def test_files_depend_on_the_seed_and_not_on_the_workers(tmp_path):
    options = dict(train=27, val=2, size=33)
    generate_scenes(tmp_path / "one", **options, seed=1, workers=1)
    generate_scenes(tmp_path / "two", **options, seed=1, workers=2)
    generate_scenes(tmp_path / "other", **options, seed=2, workers=1)
    one = digests(tmp_path / "one")
    assert len(one) == 2 * 29 + 2
    assert one == digests(tmp_path / "two")
    other = digests(tmp_path / "other")
    assert all(one[name] != other[name] for name in one)
    # No scene is in both splits.
    images = [digest for name, digest in one.items() if name.startswith("images")]
    assert len(set(images)) == 29


def test_layout_is_cocos(scenes):
    content = json.loads((scenes / "annotations" / "panoptic_train.json").read_text())
    assert len(content["images"]) == len(content["annotations"]) == 24
    ids = [category["id"] for category in content["categories"]]
    assert ids == [1, 2, 3, 4, 5, 6, 11, 12, 13, 14]
    assert [entry["isthing"] for entry in content["categories"]] == [1] * 6 + [0] * 4
    for image, annotation in zip(
        content["images"], content["annotations"], strict=True
    ):
        assert annotation["image_id"] == image["id"]
        assert (scenes / "images" / "train" / image["file_name"]).is_file()
        mask = scenes / "annotations" / "panoptic_train" / annotation["file_name"]
        pixels = read_ids(mask)
        assert pixels.shape == (image["height"], image["width"]) == (65, 65)
        for info in annotation["segments_info"]:
            rows, columns = np.nonzero(pixels == info["id"])
            left, top, width, height = info["bbox"]
            assert info["area"] == len(rows)
            assert (top, left) == (rows.min(), columns.min())
            assert (top + height - 1, left + width - 1) == (rows.max(), columns.max())


def test_scenes_are_as_described(drawn):
    things = {category.id: category.is_thing for category in CATEGORIES}
    special = 0
    seen: set[int] = set()
    for scene in drawn:
        crowd = [segment for segment in scene.segments if segment.is_crowd]
        objects = [
            segment
            for segment in scene.segments
            if things[segment.category_id] and not segment.is_crowd
        ]
        stuff = [s.category_id for s in scene.segments if not things[s.category_id]]
        assert 2 <= len(objects) <= 10
        assert 1 <= len(stuff) == len(set(stuff)) <= 3
        assert len(crowd) <= 1
        special += bool(crowd) or bool((scene.owners == 0).any())
        # Nothing is hidden but for a sliver.
        for segment in (*objects, *crowd):
            assert (scene.owners == segment.value).sum() >= 0.005 * 97 * 97
        for segment in scene.segments:
            if not things[segment.category_id]:
                assert (scene.owners == segment.value).sum() >= 0.03 * 97 * 97
        values = {segment.value for segment in scene.segments}
        assert set(np.unique(scene.owners)) <= values | {0}
        seen |= {segment.category_id for segment in scene.segments}
    assert seen == set(things)
    # One in five; 60 draws are within 3.5 standard deviations.
    assert 3 <= special <= 22


def test_things_touch_and_hide_each_other(drawn):
    is_object = {c.id for c in CATEGORIES if c.is_thing}
    touching = 0
    for scene in drawn:
        values = [s.value for s in scene.segments if s.category_id in is_object]
        owners = np.where(np.isin(scene.owners, values), scene.owners, 0)
        left, right = owners[:, :-1], owners[:, 1:]
        touching += bool(np.any((left != right) & (left > 0) & (right > 0)))
    assert touching > 30


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (1.0, 20)])
def test_rate_of_crowd_and_void(rate, expected):
    special = 0
    for number in range(20):
        scene = render_scene(np.random.default_rng(number), 97, rate)
        crowd = any(segment.is_crowd for segment in scene.segments)
        special += crowd or bool((scene.owners == 0).any())
    assert abs(special - expected) <= 0.15 * expected


def test_shapes_differ_and_fit_their_circle():
    line = np.arange(-20, 21)
    u, v = line[None, :], line[:, None]
    masks = {name: SHAPES[name](u, v, 16.0) < 0 for name in THINGS}
    for name, mask in masks.items():
        assert np.hypot(u, v)[mask].max() <= 16.5, name
        assert np.hypot(u, v)[mask].max() >= 14.5, name
        for other in THINGS:
            if other != name:
                union = (mask | masks[other]).sum()
                assert (mask & masks[other]).sum() / union < 0.85, (name, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(train=0, val=0), "not both 0"),
        (dict(train=-1, val=2), "negative"),
        (dict(train=1, val=1, size=32), "at least 33"),
        (dict(train=1, val=1, crowd_or_void=1.5), "from 0 to 1"),
        (dict(train=1, val=1, seed=-1), "seed"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        generate_scenes(tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_untouched(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match="already exists"):
        generate_scenes(tmp_path, train=1, val=1, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_scenes_of_a_seed_stay_what_they_are(drawn):
    """Benchmarks and the demo's figures are of these scenes and of no others."""
    pixels = dict.fromkeys((category.id for category in CATEGORIES), 0)
    for scene in drawn:
        for segment in scene.segments:
            pixels[segment.category_id] += int((scene.owners == segment.value).sum())
    things = [30284, 19446, 18329, 31617, 26160, 12689]
    stuff = [100541, 109028, 113551, 101820]
    # A pixel on an edge may fall to either side where the processor rounds otherwise.
    np.testing.assert_allclose(list(pixels.values()), things + stuff, rtol=1e-3)
    colors = np.stack([scene.image for scene in drawn]).mean((0, 1, 2))
    np.testing.assert_allclose(colors, [108.2273, 122.6486, 105.3157], atol=0.02)
