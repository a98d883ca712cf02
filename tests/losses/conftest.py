"""Reference cases of the losses, in this package's labels and class order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from cmt.losses import PanopticLoss
from cmt.outputs import LayerPredictions, Predictions, Targets


@pytest.fixture(scope="session")
def make_loss():
    """Makes a `PanopticLoss`: all weights 1, original pixel loss, unless said."""

    def make(num_classes: int, **changes) -> PanopticLoss:
        options = dict(
            num_classes=num_classes,
            num_layers=0,
            pq_class_weight=1.0,
            pq_mask_weight=1.0,
            mask_id_weight=1.0,
            pixel_loss="PIXEL_CONTRASTIVE",
            pixel_loss_weight=1.0,
            pixel_loss_temperature=0.3,
            contrastive_pixels=4096,
            contrastive_sampling_power=1.5,
            mask_approximation_weight=1.0,
            semantic_weight=1.0,
            layer_weight=1.0,
        )
        return PanopticLoss(**(options | changes))

    return make


@dataclasses.dataclass
class GoldenCase:
    """One file of reference losses.

    Attributes:
      data: the file's arrays.
      targets: its labels, classes 1..C in the order of the data set's ids, 0 void; the
        masks are the file's, thing ids first, then stuff classes.
      predictions: its predictions, in our order of classes.
      class_order: index in the file's class logits of our classes 1..C and void.
      is_thing: of classes 1..C.
      first_channel: of the semantic logits that the file has too.
    """

    data: dict[str, np.ndarray]
    targets: Targets
    predictions: Predictions
    class_order: np.ndarray
    is_thing: tuple[bool, ...]
    first_channel: int

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.is_thing)

    def aux(self, name: str) -> tf.Tensor:
        """An auxiliary prediction of the file, in our order of classes."""
        value = self.data[f"aux_pred/{name}"]
        if name == "transformer_class_logits":
            value = value[..., self.class_order]
        return tf.constant(value)


def read_golden(path, *, ignore: int) -> GoldenCase:
    """Reads a file of reference losses; `ignore` is its label of void."""
    with np.load(path) as file:
        data = dict(file)
    shift = 1 if ignore else 0
    ids = data["match/thing_then_stuff_class_ids"]
    num_masks = data["match/gt_mask_is_real"].shape[1]
    thing_ids = data["gt/thing_id_mask_gt"]
    thing_classes = data["gt/thing_id_class_gt"]
    num_thing_masks = thing_classes.shape[1]
    num_things = len(ids) - (num_masks - num_thing_masks)
    semantic = data["gt/semantic_gt"]

    mask_ids = thing_ids.copy()
    for index, stuff in enumerate(ids[num_things:]):
        mask_ids[(thing_ids < 0) & (semantic == stuff)] = num_thing_masks + index
    stuff_classes = np.tile(ids[num_things:] + shift, [len(semantic), 1])
    things = np.where(thing_classes < 0, 0, thing_classes + shift)
    targets = Targets(
        semantic=tf.constant(np.where(semantic == ignore, 0, semantic + shift)),
        mask_ids=tf.constant(mask_ids),
        mask_classes=tf.constant(np.concatenate([things, stuff_classes], axis=1)),
    )

    order = np.append(np.argsort(ids), len(ids))
    semantic_logits = data["pred/semantic_logits"]
    if shift:
        # The file has no channel for void: one that takes no probability.
        semantic_logits = np.pad(
            semantic_logits, [(0, 0)] * 3 + [(1, 0)], constant_values=-1e4
        )
    predictions = Predictions(
        mask_logits=tf.constant(data["pred/pixel_space_mask_logits"]),
        class_logits=tf.constant(data["pred/transformer_class_logits"][..., order]),
        pixel_features=tf.constant(data["pred/pixel_space_normalized_feature"]),
        semantic_logits=tf.constant(semantic_logits),
        layers=(),
    )
    is_thing = tuple(bool(i in ids[:num_things]) for i in np.sort(ids))
    return GoldenCase(data, targets, predictions, order, is_thing, shift)


@pytest.fixture(
    params=[
        "tiny_n8_more_slots_than_masks",
        "tiny_n8_ignore255_cityscapes_like",
        "coco_n128",
    ]
)
def golden(request, checkout) -> GoldenCase:
    """Each file of reference losses with enough centers for its masks."""
    path = checkout / "tests" / "golden" / f"{request.param}.npz"
    if request.param == "coco_n128":
        folder = request.getfixturevalue("shared") / "golden" / "losses"
        path = folder / f"{request.param}.npz"
    return read_golden(path, ignore=255 if "ignore255" in request.param else 0)


@pytest.fixture
def golden_aux(checkout) -> GoldenCase:
    """The file that has an auxiliary output."""
    path = checkout / "tests" / "golden" / "tiny_n8_more_slots_than_masks.npz"
    return read_golden(path, ignore=0)


@dataclasses.dataclass
class RandomCase:
    """A batch of another prime on every axis, with void, a crowd and a padded mask."""

    batch: int = 2
    height: int = 5
    width: int = 7
    masks: int = 3
    centers: int = 11
    channels: int = 13
    classes: int = 17
    points: int = 19
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        pixels = [self.batch, self.height, self.width]
        classes = rng.integers(1, self.classes + 1, [self.batch, self.masks])
        classes[0, -1] = 0
        ids = rng.integers(-1, self.masks, pixels)
        ids[0][ids[0] == self.masks - 1] = -1
        semantic = np.take_along_axis(
            classes, np.maximum(ids, 0).reshape(self.batch, -1), axis=1
        ).reshape(pixels)
        crowd = np.where(rng.random(pixels) < 0.5, rng.integers(1, self.classes), 0)
        semantic = np.where(ids < 0, crowd, semantic)
        self.targets = Targets(
            *(tf.constant(x, tf.int32) for x in (semantic, ids, classes))
        )

        def normal(*shape: int) -> np.ndarray:
            return rng.normal(size=[self.batch, *shape]).astype(np.float32)

        self.predictions = Predictions(
            mask_logits=tf.constant(3.0 * normal(*pixels[1:], self.centers)),
            class_logits=tf.constant(normal(self.centers, self.classes + 1)),
            pixel_features=tf.math.l2_normalize(
                normal(*pixels[1:], self.channels), axis=-1
            ),
            semantic_logits=tf.constant(normal(*pixels[1:], self.classes + 1)),
            layers=tuple(
                LayerPredictions(
                    affinity_logits=tf.constant(normal(3, 4, self.centers)),
                    reference_points=tf.sigmoid(normal(self.centers, self.points, 2)),
                )
                for _ in range(2)
            ),
        )


@pytest.fixture(scope="session")
def random_case() -> RandomCase:
    """A batch of random labels and predictions; layers at half the resolution.

    Nobody changes it.
    """
    return RandomCase()
