"""The report of an evaluation: one HTML file to look at, without a server or a network.

`templates/report.html.jinja` is filled; matplotlib draws the figures.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.json import ImageId
from cmt.data.panoptic.masks import segment_index
from cmt.evaluation.figures import draw_classes, draw_confusion, draw_groups
from cmt.evaluation.overlap import PanopticMap
from cmt.evaluation.pairs import Pair, Pairs
from cmt.evaluation.panoptic_quality import Matches, match_segments
from cmt.evaluation.per_image import ImageCounts
from cmt.evaluation.score import Measurement
from cmt.io.png import encode_png
from cmt.labels import CATEGORY_DIVISOR
from cmt.pictures.overlay import draw_overlay, segment_colors
from cmt.pictures.page import write_page

# Of each kind: best, worst, random.
_IMAGES = 8
_PICTURE_PIXELS = 640
_JPEG_QUALITY = 85
# The instance number of the first false positive of an image; matched ones have that of
# the ground truth, and so the same colour.
_FIRST_FALSE = CATEGORY_DIVISOR // 2


class Panel(NamedTuple):
    """A map of an image as the page shows it.

    Attributes:
      title: above the picture.
      picture: data URI of a JPEG.
      places: data URI of a PNG whose red + 256 green is the number of a pixel's segment
        in `segments`, counted from 1; 0 is void.
      segments: what to say of each.
    """

    title: str
    picture: str
    places: str
    segments: list[str]


class ShownImage(NamedTuple):
    """An image of the report.

    Attributes:
      kind: why it is there: "best", "worst" or "random".
      counts: of the image.
      photo: data URI of a JPEG.
      panels: ground truth and prediction.
    """

    kind: str
    counts: ImageCounts
    photo: str
    panels: tuple[Panel, Panel]

    @property
    def pq(self) -> float:
        """In percent, the mean over the classes that occur."""
        return _quality(self.counts)

    @property
    def numbers(self) -> list[int]:
        """True positives, false positives and false negatives."""
        return self.counts.counts[:, 1:].sum(axis=0).astype(int).tolist()


def write_report(
    path: Path,
    metrics: Mapping[str, Any],
    measurement: Measurement,
    pairs: Pairs,
    read_photos: Callable[[Sequence[ImageId]], Iterable[np.ndarray]],
) -> None:
    """Writes the page.

    Args:
      path: the HTML file.
      metrics: the content of metrics.json.
      measurement: of all images.
      pairs: the files it was made of.
      read_photos: ids -> [H, W, 3] uint8 of each image.
    """
    chosen = choose_images(measurement.images)
    photos = read_photos([counts.image_id for _, counts in chosen])
    shown = []
    for (kind, counts), photo in zip(chosen, photos, strict=True):
        pair = pairs.read(pairs.gt.images[counts.image_id])
        shown.append(_show(kind, counts, photo, pair, measurement.categories))
    write_page(
        path,
        "cmt.evaluation",
        "report.html.jinja",
        metrics=metrics,
        scores=metrics["panoptic"],
        figures=_figures(metrics["panoptic"], measurement),
        images=shown,
    )


def choose_images(images: Sequence[ImageCounts]) -> list[tuple[str, ImageCounts]]:
    """Chooses the best, the worst and random ones of the rest, each once.

    Images without any segment have no PQ and are not shown.
    """
    ranked = sorted((i for i in images if len(i.rows)), key=_quality, reverse=True)
    number = min(_IMAGES, -(-len(ranked) // 3))
    best, rest = ranked[:number], ranked[number:]
    worst = rest[::-1][:number]
    others = rest[: len(rest) - len(worst)]
    drawn = np.random.default_rng(0).permutation(len(others))[:number]
    kinds = {"best": best, "worst": worst, "random": [others[k] for k in drawn]}
    return [(kind, image) for kind, members in kinds.items() for image in members]


def _quality(counts: ImageCounts) -> float:
    return float(counts.qualities[:, 0].mean())


def _figures(
    scores: Mapping[str, Any], measurement: Measurement
) -> list[tuple[str, str, str]]:
    """Each figure's title, explanation and data URI of an SVG."""
    categories = measurement.categories
    colors = {str(category.id): category.color for category in categories}
    names = [*(category.name for category in categories), "void"]
    # Classes that are neither there nor predicted would be empty rows.
    confusion = measurement.confusion
    occurs = np.flatnonzero(confusion.any(0) | confusion.any(1))
    drawn = draw_confusion(
        confusion[np.ix_(occurs, occurs)], [names[row] for row in occurs]
    )
    sizes = draw_groups(scores["by_size"], "segments", "side in pixels")
    things = draw_groups(scores["by_things"], "images", "things in an image")
    level = (scores["intervals"] or {}).get("level")
    lines = f"Lines are {level}% intervals by bootstrap over images." if level else ""
    figures = [
        ("PQ by class", lines, draw_classes(scores, colors)),
        (
            "PQ by size of segments",
            "The side of a square of the segment's area. A false positive counts in "
            "its own size.",
            sizes,
        ),
        (
            "PQ by number of objects",
            "Things in the ground truth of an image, crowds apart.",
            things,
        ),
        (
            "Confusion of classes",
            "Where the pixels of each class of the ground truth go, in percent of the "
            "row.",
            drawn,
        ),
    ]
    return [
        (title, about, _data_uri("svg+xml", svg.encode("utf-8")))
        for title, about, svg in figures
    ]


def _show(
    kind: str,
    counts: ImageCounts,
    photo: np.ndarray,
    pair: Pair,
    categories: Sequence[Category],
) -> ShownImage:
    """Draws an image, its ground truth and its prediction in colours that agree."""
    matches = match_segments(pair.overlap)
    names = {category.id: category.name for category in categories}
    true = [
        s.category_id * CATEGORY_DIVISOR + place
        for place, s in enumerate(pair.gt.segments, start=1)
    ]
    partners = dict(zip(matches.pred.tolist(), matches.gt.tolist(), strict=True))
    found = [
        true[partners[place]]
        if place in partners
        else s.category_id * CATEGORY_DIVISOR + _FIRST_FALSE + place
        for place, s in enumerate(pair.pred.segments)
    ]
    colors = segment_colors(np.array([*true, *found]), categories)
    panels = []
    for title, side, labels, said in (
        ("Ground truth", pair.gt, true, _said_of_truth(pair, matches, names)),
        ("Prediction", pair.pred, found, _said_of_prediction(pair, matches, names)),
    ):
        places = _places(side, pair.pixels, photo.shape[:2])
        panoptic = np.array([0, *labels])[places]
        picture = draw_overlay(photo, panoptic, categories, colors=colors)
        panels.append(Panel(title, _jpeg(picture), _png(places), said))
    return ShownImage(kind, counts, _jpeg(photo), tuple(panels))


def _said_of_truth(pair: Pair, matches: Matches, names: Mapping[int, str]) -> list[str]:
    iou = dict(zip(matches.gt.tolist(), matches.iou.tolist(), strict=True))
    said = []
    for place, segment in enumerate(pair.gt.segments):
        fate = "missed"
        if segment.is_crowd:
            fate = "crowd"
        elif place in iou:
            fate = f"found, IoU {iou[place]:.2f}"
        said.append(f"{names[segment.category_id]}: {fate}")
    return said


def _said_of_prediction(
    pair: Pair, matches: Matches, names: Mapping[int, str]
) -> list[str]:
    iou = dict(zip(matches.pred.tolist(), matches.iou.tolist(), strict=True))
    said = []
    for place, segment in enumerate(pair.pred.segments):
        fate = "false" if matches.is_false[place] else "not counted (void or crowd)"
        if place in iou:
            fate = f"right, IoU {iou[place]:.2f}"
        score = "no score" if segment.score is None else f"score {segment.score:.2f}"
        said.append(f"{names[segment.category_id]}, {score}: {fate}")
    return said


def _places(side: PanopticMap, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W], the number of each pixel's segment, counted from 1; 0 is void."""
    index = segment_index(side.ids, side.segments).astype(np.int64)
    return np.repeat(np.maximum(index - 1, 0), pixels).reshape(size)


def _jpeg(picture: np.ndarray) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((_PICTURE_PIXELS, _PICTURE_PIXELS))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY)
    return _data_uri("jpeg", file.getvalue())


def _png(places: np.ndarray) -> str:
    step = -(-max(places.shape) // _PICTURE_PIXELS)
    places = places[::step, ::step]
    planes = [places & 255, places >> 8, np.zeros_like(places)]
    return _data_uri("png", encode_png(np.stack(planes, -1).astype(np.uint8)))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
