"""Claim: what a PQ on a level of `cmt data scenes` has to be held against.

    python benchmarks/scene_baselines.py [--level all] [--size 193]

Scores predictions that no network made on the 200 validation scenes of seed 0:

- oracle, logits: each segment's signed distance to its border, at most 8 pixels, at
  stride 4 with corners aligned, resized bilinearly; the largest wins, as with the mask
  logits of a network. What masks of stride 4 can reach.
- oracle, labels: the ground truth's labels at stride 4, resized with the nearest
  neighbour. What is lost where masks of stride 4 are decided before they are resized.
- all stuff: the whole image is the stuff class with most pixels in the 4,000 training
  scenes.
- components: the true class of every pixel is known, and each component of a thing
  class is an instance, pixels at a corner joined. What knowing classes alone is worth.
- components, stride 4: the same of the class map at stride 4.

Crowd and void are void in all of them but "all stuff", as they are in training.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from scipy import ndimage

from cmt.data.panoptic.json import Segment
from cmt.data.scenes.canvas import CATEGORIES, Scene, SceneSegment, render_scene
from cmt.data.scenes.generate import scene_rng
from cmt.data.scenes.levels import LEVELS
from cmt.evaluation.overlap import PanopticMap, category_rows
from cmt.evaluation.panoptic_quality import count_image, quality
from cmt.io.parallel import parallel_map
from cmt.io.progress import track

TRAIN, VAL, SEED, CROWD_OR_VOID, STRIDE = 4000, 200, 0, 0.2, 4
LARGEST_LOGIT = 8  # pixels
EIGHT_NEIGHBOURS = np.ones([3, 3], int)  # with four, the tips of stars come apart
THING_IDS = [category.id for category in CATEGORIES if category.is_thing]
STUFF_IDS = [category.id for category in CATEGORIES if not category.is_thing]


class Scenes(NamedTuple):
    """Some scenes of a split."""

    level: str
    split: str
    size: int
    numbers: range

    def drawn(self) -> Iterator[Scene]:
        """Draws them."""
        for number in self.numbers:
            rng = scene_rng(SEED, self.split, number)
            yield render_scene(rng, self.size, CROWD_OR_VOID, LEVELS[self.level])


def count_stuff(scenes: Scenes) -> np.ndarray:
    """Counts the pixels of each class in `STUFF_IDS`."""
    pixels = np.zeros(len(STUFF_IDS), np.int64)
    for scene in scenes.drawn():
        classes = class_map(scene)
        pixels += [(classes == category).sum() for category in STUFF_IDS]
    return pixels


def class_map(scene: Scene) -> np.ndarray:
    """Returns [S, S] category ids, 0 where void or crowd."""
    classes = np.zeros(len(scene.segments) + 1, np.int32)
    for segment in scene.segments:
        classes[segment.value] = 0 if segment.is_crowd else segment.category_id
    return classes[scene.owners]


def at_stride(labels: np.ndarray, stride: int) -> np.ndarray:
    """Samples [S, S] with corners aligned, (S - 1) / stride + 1 pixels a side."""
    last = len(labels) - 1
    points = np.linspace(0, last, last // stride + 1).round().astype(int)
    return labels[np.ix_(points, points)]


def at_size(labels: np.ndarray, size: int) -> np.ndarray:
    """Resizes with the nearest neighbour, corners aligned."""
    points = np.linspace(0, len(labels) - 1, size).round().astype(int)
    return labels[np.ix_(points, points)]


def prediction(ids: np.ndarray, category_of: Callable[[int], int]) -> PanopticMap:
    """A prediction of a map of segment ids, 0 where void."""
    present = [int(number) for number in np.unique(ids) if number]
    segments = [Segment(i, category_of(i), None, False) for i in present]
    return PanopticMap("prediction", ids, segments)


def known(scene: Scene) -> np.ndarray:
    """Returns [S, S] numbers of segments, 0 where void or crowd."""
    return np.where(class_map(scene) > 0, scene.owners, 0)


def oracle_labels(scene: Scene) -> PanopticMap:
    """The ground truth's labels at stride 4."""
    ids = known(scene)
    return of_segments(scene, at_size(at_stride(ids, STRIDE), len(ids)))


def oracle_logits(scene: Scene) -> PanopticMap:
    """The ground truth's distances to borders at stride 4."""
    ids = known(scene)
    values = np.unique(ids)
    logits = []
    for value in values:
        mask = ids == value
        distance = ndimage.distance_transform_edt(mask)
        distance -= ndimage.distance_transform_edt(~mask)
        small = at_stride(np.clip(distance, -LARGEST_LOGIT, LARGEST_LOGIT), STRIDE)
        logits.append(ndimage.zoom(small, len(ids) / len(small), order=1))
    return of_segments(scene, values[np.argmax(logits, axis=0)])


def of_segments(scene: Scene, ids: np.ndarray) -> PanopticMap:
    """A prediction of a map of numbers of the scene's own segments."""
    category = {segment.value: segment.category_id for segment in scene.segments}
    return prediction(ids, category.__getitem__)


def components(scene: Scene, stride: int = 1) -> PanopticMap:
    """Each component of a thing class is an instance, each stuff class a segment."""
    classes = at_stride(class_map(scene), stride)
    ids = np.where(np.isin(classes, STUFF_IDS), classes * 1000, 0)
    for category in THING_IDS:
        numbers, _ = ndimage.label(classes == category, EIGHT_NEIGHBOURS)
        ids = np.where(numbers > 0, category * 1000 + numbers, ids)
    return prediction(at_size(ids, len(scene.owners)), lambda i: i // 1000)


def things(scene: Scene) -> list[SceneSegment]:
    """The things of a scene, without crowd."""
    return [
        segment
        for segment in scene.segments
        if segment.category_id in THING_IDS and not segment.is_crowd
    ]


def touching(scene: Scene) -> int:
    """Counts the things that share an edge of a pixel with one of their class."""
    classes = {segment.value: segment.category_id for segment in things(scene)}
    found: set[int] = set()
    for first, second in (
        (scene.owners[:, :-1], scene.owners[:, 1:]),
        (scene.owners[:-1], scene.owners[1:]),
    ):
        border = first != second
        for pair in set(zip(first[border], second[border], strict=True)):
            if classes.get(pair[0], 0) == classes.get(pair[1], -1):
                found.update(pair)
    return len(found)


def measure(level: str, size: int) -> tuple[dict[str, Any], list[str]]:
    """Scores the baselines of a level.

    Returns:
      the scores of each baseline; number, area and touching of things, as text.
    """
    step = 100
    tasks = [
        Scenes(level, "train", size, range(first, first + step))
        for first in range(0, TRAIN, step)
    ]
    counted = track(
        parallel_map(count_stuff, tasks, workers=0), description=level, total=len(tasks)
    )
    commonest = STUFF_IDS[int(np.argmax(sum(counted)))]
    baselines: dict[str, Callable[[Scene], PanopticMap]] = {
        "oracle, logits": oracle_logits,
        "oracle, labels": oracle_labels,
        "all stuff": lambda scene: prediction(
            np.ones_like(scene.owners), lambda _: commonest
        ),
        "components": components,
        "components, stride 4": lambda scene: components(scene, STRIDE),
    }
    rows = category_rows(CATEGORIES)
    counts = {name: np.zeros([len(rows), 4]) for name in baselines}
    areas, number_touching, most = [], 0, 0
    for scene in Scenes(level, "val", size, range(VAL)).drawn():
        truth = PanopticMap(
            "ground truth",
            scene.owners,
            [Segment(s.value, s.category_id, None, s.is_crowd) for s in scene.segments],
        )
        for name, predict in baselines.items():
            counts[name] += count_image(truth, predict(scene), rows)
        areas += [(scene.owners == thing.value).mean() for thing in things(scene)]
        number_touching += touching(scene)
        most = max(most, len(scene.segments))
    statistics = [
        f"{len(areas) / VAL:.1f}",
        f"{100 * np.mean(areas):.2f}%",
        f"{100 * number_touching / len(areas):.0f}%",
        str(most),
    ]
    return {name: quality(CATEGORIES, counts[name]) for name in baselines}, statistics


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--level", choices=[*LEVELS, "all"], default="all")
    parser.add_argument("--size", type=int, default=193, help="Side in pixels.")
    options = parser.parse_args()

    scores = Table("level", "baseline", *_right("PQ", "things", "stuff"))
    contents = Table("level", *_right("things", "area", "touching", "most segments"))
    contents.caption = (
        "things an image, their mean visible area as a share of it, those that touch "
        "one of their class, most segments of an image"
    )
    for level in LEVELS if options.level == "all" else [options.level]:
        of_level, statistics = measure(level, options.size)
        for name, result in of_level.items():
            groups = (result[group]["pq"] for group in ("all", "things", "stuff"))
            scores.add_row(level, name, *(f"{pq:.1f}" for pq in groups))
        contents.add_row(level, *statistics)
    console = Console()
    console.print(f"{VAL} validation scenes of {options.size} pixels, seed {SEED}")
    console.print(scores)
    console.print(contents)


def _right(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]


if __name__ == "__main__":
    main()
