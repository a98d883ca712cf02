"""Pictures of the clustering behind panoptic maps.

Everything works on NumPy arrays; images are [H, W, 3] uint8 RGB.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw

from cmt.data.panoptic.categories import Category
from cmt.outputs import Predictions
from cmt.pictures.overlay import GOLDEN_RATIO, draw_overlay, enlargement
from cmt.pictures.sheet import contact_sheet


class SheetRow(NamedTuple):
    """The pictures of one image on a sheet about the clustering.

    Attributes:
      image: [H, W, 3] uint8.
      ground_truth: a picture [*, *, 3] uint8, from `draw_overlay`.
      prediction: a picture [*, *, 3] uint8, from `draw_overlay`.
      assignments: for each layer [h, w] int, the center of each pixel.
      reference_points: for each layer [K, M, 2] float, (h, w) in [0, 1], of the
        confident centers.
      centers: [K] int, which centers these are.
      valid_share: (height, width) in (0, 1]: the coordinates of the last row and
        column that are image and not padding, in [0, 1] like the reference points.
    """

    image: np.ndarray
    ground_truth: np.ndarray
    prediction: np.ndarray
    assignments: Sequence[np.ndarray]
    reference_points: Sequence[np.ndarray]
    centers: np.ndarray
    valid_share: tuple[float, float] = (1.0, 1.0)


def make_row(
    image: np.ndarray,
    *,
    ground_truth: np.ndarray,
    panoptic: np.ndarray,
    predictions: Predictions,
    categories: Sequence[Category],
    confidence: float,
    size: np.ndarray,
    crop_size: tuple[int, int],
) -> SheetRow:
    """Draws what a sheet shows of an image.

    Args:
      image: [H, W, 3] uint8.
      ground_truth: [H, W] int, category_id * 1000 + instance, 0 where void.
      panoptic: [H, W] int, the same of the prediction.
      predictions: the network's output for the image in a crop, B = 1.
      categories: the classes.
      confidence: probability of its class from which on a center is confident.
      size: [2] int, height and width of the image inside the crop, in pixels.
      crop_size: height and width of the crop, in pixels.
    """
    class_probs = tf.nn.softmax(predictions.class_logits[0], axis=-1)[:, :-1]
    centers = np.flatnonzero(class_probs.numpy().max(-1) >= confidence)
    last_row, last_column = np.maximum(size - 1, 1) / (np.array(crop_size) - 1)
    return SheetRow(
        image=image,
        ground_truth=draw_overlay(image, ground_truth, categories),
        prediction=draw_overlay(image, panoptic, categories),
        assignments=[
            layer.affinity_logits[0].numpy().argmax(-1)
            for layer in predictions.layers
            if layer.affinity_logits is not None
        ],
        reference_points=[
            layer.reference_points[0].numpy()[centers]
            for layer in predictions.layers
            if layer.reference_points is not None
        ],
        centers=centers,
        valid_share=(float(last_row), float(last_column)),
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
    """Puts images, their segments and their clustering on a sheet, a row for each.

    A row shows image, ground truth, prediction, each layer's assignment and the
    reference points.

    A pixel of an assignment has the colour of its center; the last column shows the
    last layer's reference points of the confident centers, in the same colours, with
    a ring at their mean. Columns that no row has are left out.

    Returns:
      [H, W, 3] uint8.
    """
    colors = center_colors(num_centers)
    num_layers = max((len(row.assignments) for row in rows), default=0)
    titles = ["image", "ground truth", "prediction"]
    titles += [f"layer {index + 1}" for index in range(num_layers)]
    if any(row.reference_points for row in rows):
        titles.append("reference points")
    return contact_sheet([_sheet_row(row, colors) for row in rows], titles)


def _sheet_row(row: SheetRow, colors: np.ndarray) -> list[np.ndarray]:
    pictures = [row.image, row.ground_truth, row.prediction]
    height, width = row.image.shape[:2]
    for assignment in row.assignments:
        last = (np.array(assignment.shape) - 1) * row.valid_share
        rows = np.rint(np.linspace(0, last[0], height)).astype(int)
        columns = np.rint(np.linspace(0, last[1], width)).astype(int)
        pictures.append(colors[assignment[rows][:, columns]])
    if row.reference_points:
        pictures.append(_draw_points(row, row.reference_points[-1], colors))
    return pictures


def _draw_points(row: SheetRow, points: np.ndarray, colors: np.ndarray) -> np.ndarray:
    factor = enlargement(row.image.shape[:2])
    height, width = (side * factor for side in row.image.shape[:2])
    faded = Image.fromarray(row.image // 2 + 96).resize((width, height))
    draw = ImageDraw.Draw(faded)
    size = np.array([height - 1, width - 1]) / np.array(row.valid_share)
    for center, center_points in zip(row.centers.tolist(), points, strict=True):
        color = tuple(colors[center].tolist())
        for y, x in (center_points * size).tolist():
            draw.ellipse((x - 7, y - 7, x + 7, y + 7), color, (0, 0, 0))
        y, x = (center_points.mean(0) * size).tolist()
        draw.ellipse((x - 13, y - 13, x + 13, y + 13), None, color, 4)
    return np.asarray(faded)
