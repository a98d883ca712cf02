"""Pictures of the clustering behind panoptic maps (the paper's Fig. 5 and Fig. 1).

Everything works on NumPy arrays; images are [H, W, 3] uint8 RGB.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy.special import softmax

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.predictions import panoptic_ids
from cmt.evaluation.attention import (
    center_weights,
    confident_centers,
    effective_pixels,
    final_masks,
    share_on_mask,
)
from cmt.labels import LABEL_DIVISOR
from cmt.pictures.heat import draw_assignment, draw_heat, outline, resample
from cmt.pictures.overlay import GOLDEN_RATIO, draw_overlay, enlargement
from cmt.pictures.sheet import contact_sheet

if TYPE_CHECKING:
    from cmt.outputs import Predictions

# Twice what a sheet shows: smooth after the sheet has made it smaller.
_DRAWN_PIXELS = 480


class Focus(NamedTuple):
    """One center of an image, and which pixels it gets its updates from.

    Attributes:
      mask: [H / 4, W / 4] float in [0, 1], the center's final mask.
      pixels: [h, w] bool, the pixels of the layers' grid that the mask owns.
      attention: for each layer [h, w] float, averaged over heads; empty in k-means.
      assignment: for each layer [h, w] float, Z of the center; empty without
        clustering.
    """

    mask: np.ndarray
    pixels: np.ndarray
    attention: Sequence[np.ndarray]
    assignment: Sequence[np.ndarray]


class SheetRow(NamedTuple):
    """What the sheets show of one image.

    Attributes:
      image: [H, W, 3] uint8.
      ground_truth: a picture [*, *, 3] uint8, from `draw_overlay`; None where it is not
        known.
      prediction: a picture [*, *, 3] uint8, from `draw_overlay`.
      affinity_logits: for each layer [h, w, N] float.
      reference_points: for each layer [K, M, 2] float, (h, w) in [0, 1], of the
        confident centers.
      centers: [K] int, which centers these are.
      focus: the confident center of the largest thing, or of the largest stuff where
        there is no thing; None where no center is confident.
      valid_share: (height, width) in (0, 1]: the coordinates of the last row and
        column that are image and not padding, in [0, 1] like the reference points.
      mask_logits: [H / 4, W / 4, N] float, of the final masks; None for sheets that do
        not show them.
    """

    image: np.ndarray
    ground_truth: np.ndarray | None
    prediction: np.ndarray
    affinity_logits: Sequence[np.ndarray]
    reference_points: Sequence[np.ndarray]
    centers: np.ndarray
    focus: Focus | None = None
    valid_share: tuple[float, float] = (1.0, 1.0)
    mask_logits: np.ndarray | None = None


def make_row(
    image: np.ndarray,
    *,
    ground_truth: np.ndarray | None,
    panoptic: np.ndarray,
    predictions: Predictions,
    categories: Sequence[Category],
    confidence: float,
    size: np.ndarray,
    crop_size: tuple[int, int],
) -> SheetRow:
    """Draws and collects what the sheets show of an image.

    Args:
      image: [H, W, 3] uint8.
      ground_truth: [H, W] int, category_id * 1000 + instance, 0 where void; None where
        it is not known.
      panoptic: [H, W] int, the same of the prediction.
      predictions: the network's output for the image in a crop, B = 1, of inference.
      categories: the classes.
      confidence: probability of its class from which on a center is confident.
      size: [2] int, height and width of the image inside the crop, in pixels.
      crop_size: height and width of the crop, in pixels.
    """
    centers = np.flatnonzero(confident_centers(predictions.class_logits, confidence)[0])
    last_row, last_column = np.maximum(size - 1, 1) / (np.array(crop_size) - 1)
    if ground_truth is not None:
        ground_truth = draw_overlay(image, ground_truth, categories)
    return SheetRow(
        image=image,
        ground_truth=ground_truth,
        prediction=draw_overlay(image, panoptic, categories),
        affinity_logits=[
            layer.affinity_logits[0].numpy()
            for layer in predictions.layers
            if layer.affinity_logits is not None
        ],
        reference_points=[
            layer.reference_points[0].numpy()[centers]
            for layer in predictions.layers
            if layer.reference_points is not None
        ],
        centers=centers,
        focus=_focus(predictions, centers, [item.is_thing for item in categories]),
        valid_share=(float(last_row), float(last_column)),
        mask_logits=predictions.mask_logits[0].numpy(),
    )


def rows_of(
    predictor: Any, split: Any, number: int, *, confidence: float
) -> list[SheetRow]:
    """Predicts the first images of a split and collects what the sheets show of them.

    Args:
      predictor: a `PanopticPredictor`, in whose room this may not be.
      split: a `Split`.
      number: how many images, at most.
      confidence: probability of its class from which on a center is confident.
    """
    rows = []
    for example in split.examples(range(min(number, split.num_images))):
        inputs = predictor.prepare(example.image[np.newaxis])
        outputs = predictor.restore(predictor.segment(inputs))
        labels = np.divmod(example.labels, LABEL_DIVISOR)
        rows.append(
            make_row(
                example.image,
                ground_truth=panoptic_ids(*labels, predictor.categories),
                panoptic=outputs["panoptic"][0].numpy(),
                categories=predictor.categories,
                predictions=predictor.network(inputs["crops"], training=False),
                confidence=confidence,
                size=inputs["resized_sizes"][0].numpy(),
                crop_size=predictor.crop_size,
            )
        )
    return rows


def _focus(
    predictions: Predictions, centers: np.ndarray, is_thing: Sequence[bool]
) -> Focus | None:
    if not centers.size:
        return None
    masks = softmax(predictions.mask_logits[0].numpy(), axis=-1)  # over centers
    classes = predictions.class_logits[0].numpy()[:, :-1].argmax(-1)
    areas = np.bincount(masks.argmax(-1).ravel(), minlength=masks.shape[-1])
    best = max(centers, key=lambda n: (is_thing[classes[n]] and areas[n] > 0, areas[n]))
    weights = [center_weights(layer) for layer in predictions.layers]
    return Focus(
        mask=masks[..., best],
        pixels=final_masks(predictions)[0, best],
        attention=[
            layer.mean_attention[0, best]
            for layer in weights
            if layer.attention is not None
        ],
        assignment=[
            layer.assignment[0, best]
            for layer in weights
            if layer.assignment is not None
        ],
    )


def center_colors(num_centers: int) -> np.ndarray:
    """Returns [num_centers, 3] uint8, colours that differ most between neighbours."""
    colors = [
        colorsys.hsv_to_rgb(
            index * GOLDEN_RATIO % 1.0,
            (0.85, 0.55, 1.0)[index % 3],
            (1.0, 0.8, 0.6)[index // 3 % 3],
        )
        for index in range(num_centers)
    ]
    return (np.array(colors).reshape(-1, 3) * 255).round().astype(np.uint8)


def clustering_sheet(rows: Sequence[SheetRow], *, num_centers: int) -> np.ndarray:
    """Shows how the clustering is refined from layer to layer (Fig. 5).

    A row shows image, ground truth, prediction, each layer's assignment and the
    reference points.

    A pixel of an assignment has the colour of its best center, the paler the less sure
    it is; the last column shows the last layer's reference points of the
    confident centers, in the same colours, with a ring at their mean. Columns that no
    row has are left out.

    Returns:
      [H, W, 3] uint8.
    """
    colors = center_colors(num_centers)
    num_layers = max((len(row.affinity_logits) for row in rows), default=0)
    titles = ["image", "ground truth", "prediction", *_layer_titles(num_layers)]
    if any(row.reference_points for row in rows):
        titles.append("reference points")
    return contact_sheet([_clustering_row(row, colors) for row in rows], titles)


def attention_sheet(rows: Sequence[SheetRow]) -> np.ndarray:
    """Shows from which pixels a center gets its updates, layer by layer (Fig. 1).

    Two rows for each image that has a focus: the attention of its center, averaged
    over heads, and below it the center's clustering, Z. Each map is as bright as its
    own largest weight; the line around is the center's final mask. Below a map stands
    its effective number of pixels and the share of its weights on the mask, see
    `cmt.evaluation.attention`.

    Returns:
      [H, W, 3] uint8; a white sheet where no image has a focus.
    """
    pictures, captions = [], []
    for row in rows:
        if row.focus is None:
            continue
        lines = _focus_lines(row)
        for (maps, texts), first in zip(lines, _focus_pictures(row), strict=False):
            pictures.append([first[0], *maps])
            captions.append([first[1], *texts])
    num_layers = max((len(line) - 1 for line in pictures), default=0)
    titles = ["image", *_layer_titles(num_layers)]
    return contact_sheet(pictures or [[]], titles, captions=captions)


def explanation_sheet(row: SheetRow) -> np.ndarray:
    """Shows how the network came to the prediction of an image (Fig. 5 and Fig. 1).

    The columns are the layers. Line 1: the assignment of all centers, each in its
    colour; before it the image and the prediction. Line 2: the attention of the center
    of the largest thing; before it the final masks in the colours of their centers with
    the last layer's reference points, and that center's mask. Line 3: that center's
    assignment. What the network has not, such as attention in k-means, is left out.

    Args:
      row: with `mask_logits`.

    Returns:
      [H, W, 3] uint8.
    """
    colors = center_colors(row.mask_logits.shape[-1])
    masks = softmax(_resample(row.mask_logits, row), axis=-1)  # over centers
    final = draw_assignment(row.image, masks, colors)
    final_caption = "final masks"
    if row.reference_points:
        final = _draw_points(row, row.reference_points[-1], colors, final)
        final_caption += ", reference points"
    blank = np.full([1, 1, 3], 255, np.uint8)
    assignments = _draw_assignments(row, colors)
    pictures = [[row.image, row.prediction, *assignments]]
    captions = [["image", "prediction", *["all centers"] * len(assignments)]]
    lines = [] if row.focus is None else _focus_lines(row)
    pictures.append([final])
    captions.append([final_caption])
    for number, (maps, texts) in enumerate(lines):
        if number:
            pictures.append([blank, blank, *maps])
            captions.append(["", "", *texts])
        else:
            center, caption = _focus_pictures(row)[0]
            pictures[-1] += [center, *maps]
            captions[-1] += [caption, *texts]
    titles = ["", "", *_layer_titles(max(len(line) - 2 for line in pictures))]
    return contact_sheet(pictures, titles, captions=captions, cell_pixels=300)


def _focus_lines(row: SheetRow) -> list[tuple[list[np.ndarray], list[str]]]:
    """Maps and captions, layer by layer, of a center's attention and assignment."""
    image, mask = _image_and_mask(row)
    lines = []
    for name in ("attention", "assignment"):
        layers = getattr(row.focus, name)
        if layers:
            maps = [draw_heat(image, _resample(layer, row), mask) for layer in layers]
            counts = [_count(layer, row.focus.pixels) for layer in layers]
            lines.append((maps, [f"{name} {count}" for count in counts]))
    return lines


def _focus_pictures(row: SheetRow) -> list[tuple[np.ndarray, str]]:
    """What stands before the lines of a center, with captions."""
    center = outline(*_image_and_mask(row))
    return [(center, "a center's mask"), (row.prediction, "prediction")]


def _image_and_mask(row: SheetRow) -> tuple[np.ndarray, np.ndarray]:
    """The image and the mask of its center, in the size that is drawn."""
    image = np.asarray(Image.fromarray(row.image).resize(_drawn_size(row)[::-1]))
    return image, _resample(row.focus.mask, row) > 0.5


def _layer_titles(num_layers: int) -> list[str]:
    return [f"layer {number}" for number in range(1, num_layers + 1)]


def _count(weights: np.ndarray, mask: np.ndarray) -> str:
    on_mask = 100 * share_on_mask(weights, mask)
    count = f"{effective_pixels(weights):.0f} of {weights.size} px"
    return f"{count}, {on_mask:.0f}% on mask"


def _clustering_row(row: SheetRow, colors: np.ndarray) -> list[np.ndarray]:
    pictures = [row.image, row.ground_truth, row.prediction]
    pictures += _draw_assignments(row, colors)
    if row.reference_points:
        faded = row.image // 2 + 96
        pictures.append(_draw_points(row, row.reference_points[-1], colors, faded))
    return pictures


def _draw_assignments(row: SheetRow, colors: np.ndarray) -> list[np.ndarray]:
    # Logits are interpolated, as the network does with those of its masks: between
    # two sure pixels is then a line and no wide strip that looks unsure.
    return [
        draw_assignment(row.image, softmax(_resample(logits, row), axis=-1), colors)
        for logits in row.affinity_logits
    ]


def _drawn_size(row: SheetRow) -> tuple[int, int]:
    height, width = row.image.shape[:2]
    scale = _DRAWN_PIXELS / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resample(values: np.ndarray, row: SheetRow) -> np.ndarray:
    return resample(values, _drawn_size(row), valid_share=row.valid_share)


def _draw_points(
    row: SheetRow, points: np.ndarray, colors: np.ndarray, picture: np.ndarray
) -> np.ndarray:
    """Draws the points [K, M, 2] of the confident centers over a picture."""
    factor = enlargement(row.image.shape[:2])
    height, width = (side * factor for side in row.image.shape[:2])
    drawn = Image.fromarray(picture).resize((width, height))
    draw = ImageDraw.Draw(drawn)
    size = np.array([height - 1, width - 1]) / np.array(row.valid_share)
    for center, center_points in zip(row.centers.tolist(), points, strict=True):
        color = tuple(colors[center].tolist())
        for y, x in (center_points * size).tolist():
            draw.ellipse((x - 7, y - 7, x + 7, y + 7), color, (0, 0, 0))
        y, x = (center_points.mean(0) * size).tolist()
        draw.ellipse((x - 14, y - 14, x + 14, y + 14), None, (0, 0, 0), 6)
        draw.ellipse((x - 13, y - 13, x + 13, y + 13), None, color, 4)
    return np.asarray(drawn)
