from __future__ import annotations

import hashlib
import json
import pathlib

import numpy as np
import pytest

from cmt.data.panoptic.masks import read_ids
from cmt.data.scenes.canvas import CATEGORIES, THINGS, Scene, render_scene
from cmt.data.scenes.generate import generate_scenes
from cmt.data.scenes.levels import LEVELS
from cmt.data.scenes.shapes import SHAPES
from cmt.errors import InputError


def digests(folder: pathlib.Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def draw(number: int, level: str, size: int = 97) -> Scene:
    rng = np.random.default_rng([9, number])
    return render_scene(rng, size, 0.2, LEVELS[level])


@pytest.fixture(scope="module")
def scenes_of() -> dict[str, list[Scene]]:
    """60 scenes of each level, of the default size and rate of crowd and void."""
    return {level: [draw(n, level) for n in range(60)] for level in LEVELS}


@pytest.fixture(scope="module")
def drawn(scenes_of):
    """60 scenes drawn with all defaults."""
    scenes = [render_scene(np.random.default_rng([9, n]), 97, 0.2) for n in range(60)]
    for scene, middle in zip(scenes, scenes_of["middle"], strict=True):
        np.testing.assert_array_equal(scene.image, middle.image)
    return scenes


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


# Pixels of each class in the 60 scenes, and their mean colour.
PIXELS = {
    "easy": (
        [22034, 17036, 9451, 19106, 19867, 10626, 112171, 115071, 122402, 114972],
        [111.4060, 127.2466, 109.9842],
    ),
    "middle": (
        [30284, 19446, 18329, 31617, 26160, 12689, 100541, 109028, 113551, 101820],
        [108.2273, 122.6486, 105.3157],
    ),
    "hard": (
        [11116, 11488, 8281, 17851, 13757, 6940, 119689, 124018, 131630, 117663],
        [111.0331, 127.3675, 108.2330],
    ),
}


@pytest.mark.parametrize("level", LEVELS)
def test_scenes_of_a_seed_stay_what_they_are(scenes_of, level):
    """Benchmarks and the demo's figures are of these scenes and of no others."""
    pixels = dict.fromkeys((category.id for category in CATEGORIES), 0)
    for scene in scenes_of[level]:
        for segment in scene.segments:
            pixels[segment.category_id] += int((scene.owners == segment.value).sum())
    expected, expected_color = PIXELS[level]
    # A pixel on an edge may fall to either side where the processor rounds otherwise.
    np.testing.assert_allclose(list(pixels.values()), expected, rtol=1e-3)
    colors = np.stack([scene.image for scene in scenes_of[level]]).mean((0, 1, 2))
    np.testing.assert_allclose(colors, expected_color, atol=0.02)


def things(scene: Scene) -> dict[int, int]:
    """The class of each thing, crowd left out, by its number in `owners`."""
    is_thing = {category.id for category in CATEGORIES if category.is_thing}
    return {
        segment.value: segment.category_id
        for segment in scene.segments
        if segment.category_id in is_thing and not segment.is_crowd
    }


def alike_neighbours(scene: Scene) -> int:
    """Counts things that share an edge of a pixel with a thing of their class."""
    classes = things(scene)
    found: set[int] = set()
    for owners in (scene.owners, scene.owners.T):
        for one, two in set(zip(owners[:-1].ravel(), owners[1:].ravel(), strict=True)):
            if one != two and one in classes and classes[one] == classes.get(two):
                found |= {one, two}
    return len(found)


def test_levels_are_ever_harder(scenes_of):
    counts, areas, classes, alike = [], [], [], []
    for scenes in scenes_of.values():
        found = [things(scene) for scene in scenes]
        counts.append(np.mean([len(of_scene) for of_scene in found]))
        pixels = [
            (scene.owners == value).sum()
            for scene, of_scene in zip(scenes, found, strict=True)
            for value in of_scene
        ]
        areas.append(np.mean(pixels))
        # A scene with few things has few classes by chance alone.
        classes.append(np.mean([len(set(o.values())) / min(len(o), 6) for o in found]))
        alike.append(sum(map(alike_neighbours, scenes)) / len(pixels))
    assert list(LEVELS) == ["easy", "middle", "hard"]
    assert counts[0] + 1.5 < counts[1] < counts[2] - 4
    assert areas[0] > 1.1 * areas[1] > 3 * areas[2]
    assert classes[0] > classes[1] + 0.1 and classes[1] > classes[2] + 0.1
    assert alike[0] == 0 and 0.3 < alike[1] < 0.65 and alike[2] > 0.7


@pytest.mark.parametrize(
    ("level", "most"), [("easy", 10), ("middle", 14), ("hard", 22)]
)
def test_segments_are_few_enough_and_have_pixels(scenes_of, level, most):
    recipe = LEVELS[level]
    # Stuff and crowd are at most four.
    assert recipe.objects[1] + 4 == most
    for scene in scenes_of[level]:
        assert recipe.objects[0] <= len(things(scene)) <= recipe.objects[1]
        assert len(scene.segments) <= most
        assert len(set(things(scene).values())) <= recipe.classes[1]
        for value in things(scene):
            area = (scene.owners == value).sum()
            assert area >= int(recipe.min_area * 97 * 97), value
        for segment in scene.segments:
            assert (scene.owners == segment.value).any(), segment


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [33, 193])
def test_levels_have_their_things_at_any_size(level, size):
    scenes = [draw(number, level, size) for number in range(4)]
    for number, scene in enumerate(scenes):
        assert len(things(scene)) >= LEVELS[level].objects[0]
        again = draw(number, level, size)
        np.testing.assert_array_equal(scene.image, again.image)
        np.testing.assert_array_equal(scene.owners, again.owners)
        assert scene.segments == again.segments
