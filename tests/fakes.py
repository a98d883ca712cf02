"""A network that needs no training: centers have colours, pixels join the nearest."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
import tf_keras
from PIL import Image

from cmt.data.panoptic.categories import Category
from cmt.outputs import Predictions
from cmt.serving.predictor import PanopticPredictor

# Gaps in the ids, things and stuff mixed, as in COCO.
CATEGORIES = [
    Category(7, "ball", True, (220, 40, 40)),
    Category(3, "grass", False, (40, 160, 40)),
    Category(12, "cube", True, (40, 40, 220)),
    Category(90, "sky", False, (120, 180, 240)),
]
RED, PINK, GREEN, BLUE, SKY = (
    (230, 20, 20),
    (250, 120, 180),
    (20, 150, 20),
    (10, 10, 230),
    (120, 200, 250),
)
# Color of each center and its contiguous class; two centers are balls.
CENTERS = [(RED, 1), (PINK, 1), (GREEN, 2), (BLUE, 3), (SKY, 4)]
MERGE_OPTIONS = dict(
    merge="MASK_WISE",
    thing_confidence=0.7,
    stuff_confidence=0.5,
    pixel_confidence=0.4,
    free_share=0.8,
    class_power=1.0,
    mask_power=1.0,
    min_thing_area_pixels=4,
    min_stuff_area_pixels=4,
)
CROP_SIZE = (65, 81)


class RandomMasks(tf_keras.Model):
    """Masks from colours, and classes that no image changes: a network to train."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = tf_keras.layers.Conv2D(6, 1, strides=4)
        self.head = self.add_weight(name="head", shape=[6, classes + 1])

    def call(self, images: tf.Tensor, training: bool | None = None) -> Predictions:
        masks = self.backbone(tf.cast(images, tf.float32) / 255)
        classes = tf.repeat(self.head[tf.newaxis], tf.shape(images)[0], axis=0)
        return Predictions(masks, classes, masks, None, ())

    @property
    def backbone_variables(self) -> list[tf.Variable]:
        return self.backbone.trainable_variables

    @property
    def other_variables(self) -> list[tf.Variable]:
        return [self.head]


class FakeNetwork(tf_keras.Model):
    """Masks from colours, with variables that an export has to carry."""

    def __init__(self) -> None:
        super().__init__(name="fake")
        colors = np.array([color for color, _ in CENTERS], np.float32)
        logits = np.zeros([len(CENTERS), len(CATEGORIES) + 1], np.float32)
        for center, (_, number) in enumerate(CENTERS):
            logits[center, number - 1] = 5.0 + 0.1 * center
        self.colors = tf.Variable(colors, name="colors")
        self.class_logits = tf.Variable(logits, name="class_logits")

    def call(self, images: tf.Tensor, training: bool | None = None) -> Predictions:
        pixels = tf.cast(images, tf.float32)[:, ::4, ::4, tf.newaxis]
        distance = tf.reduce_mean(tf.square(pixels - self.colors), axis=-1)
        class_logits = tf.repeat(self.class_logits[tf.newaxis], tf.shape(images)[0], 0)
        return Predictions(-distance / 200, class_logits, pixels[..., 0, :], None, ())


def make_predictor() -> PanopticPredictor:
    """A predictor around a new fake network."""
    return PanopticPredictor(
        FakeNetwork(),
        crop_size=CROP_SIZE,
        categories=CATEGORIES,
        merge_options=MERGE_OPTIONS,
    )


def make_image(height: int, width: int, shift: int = 0) -> np.ndarray:
    """[height, width, 3] uint8: sky over grass, two balls and a cube in quarters."""
    image = np.empty([height, width, 3], np.uint8)
    image[: height // 2] = SKY
    image[height // 2 :] = GREEN
    h, w = max(height // 4, 1), max(width // 5, 1)
    for place, color in enumerate((RED, PINK, BLUE)):
        column = (place * width // 3 + shift) % width
        image[h : 3 * h, column : column + w] = color
    return image


def encode(image: np.ndarray, kind: str = "PNG") -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer, kind, **({"quality": 95} if kind == "JPEG" else {})
    )
    return buffer.getvalue()
