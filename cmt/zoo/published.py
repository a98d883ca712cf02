"""What is published, as data: the paper's tables by config, and its recipe.

The paper is Yu et al., CVPR 2022, its Tables 1 to 3. Each figure says where it is
published: the multiply-adds are not in the text of the paper. How a row was read where
its columns do not say so is in its note.
"""

from __future__ import annotations

from typing import NamedTuple

COST_SIZE = (800, 1200)
"""Height and width in pixels of the input of the published multiply-adds."""

NOT_IN_PAPER = "published figure, not in the CVPR text"
"""Source of what is published for a network elsewhere than in the paper."""


class Figure(NamedTuple):
    """A number, and where it stands."""

    value: float
    source: str


class Quality(NamedTuple):
    """Panoptic quality in percent."""

    all: float
    things: float
    stuff: float


class Published(NamedTuple):
    """What is published for a config. None: nothing.

    Attributes:
      source: of `val` and `test_dev`; empty where there are none.
      val: panoptic quality on COCO val2017, one scale.
      test_dev: on COCO test-dev, one scale.
      val_derived: a PQ that is printed nowhere but follows from what is; its source
        says how.
      parameters_millions: of the network.
      multiply_adds_billions: of the network, for an input of COST_SIZE.
      note: how the figures were read where the paper leaves it open.
    """

    source: str = ""
    val: Quality | None = None
    test_dev: Quality | None = None
    val_derived: Figure | None = None
    parameters_millions: Figure | None = None
    multiply_adds_billions: Figure | None = None
    note: str = ""


MAX_DEEPLAB_S = Published(
    "Table 1",
    Quality(48.4, 53.0, 41.5),
    Quality(49.0, 54.0, 41.6),
    parameters_millions=Figure(61.9, "Table 1"),
    note="Table 1 does not say the input size or the iterations of this row.",
)
"""A row of Table 1 that no config is sure to be."""

_MAX_S = {"parameters_millions": Figure(61.9, "Tables 1, 2c")}
_CLUSTERED = {"parameters_millions": Figure(61.9, "Table 2c")}
_LOCATED = {"parameters_millions": Figure(65.5, "Table 2c")}
_STRONGER = {"parameters_millions": Figure(91.0, "Table 2c")}
_R50 = {
    "parameters_millions": Figure(94.9, "Tables 1, 2c"),
    "multiply_adds_billions": Figure(396.0, NOT_IN_PAPER),
}
_R104 = {
    "parameters_millions": Figure(135.2, "Table 1"),
    "multiply_adds_billions": Figure(553.0, NOT_IN_PAPER),
}
_RFN = {
    "parameters_millions": Figure(270.3, "Table 1"),
    "multiply_adds_billions": Figure(1114.0, NOT_IN_PAPER),
}
_UNPLACED = (
    "Table 1 has a MaX-DeepLab-S with PQ 48.4, things 53.0, stuff 41.5, and does not"
    " say its input size or iterations."
)
_BASE = Quality(46.2, 50.0, 40.5)
_CLUSTERING = Quality(47.5, 51.1, 42.1)
_LOCATION = Quality(46.9, 50.6, 41.3)
_ALL = Quality(48.4, 52.1, 42.8)
_MARKS_C = (
    "The marks of Table 2c are garbled in the text of the paper; read from the"
    " parameters and from Tables 2a and 2b."
)
_CLUSTERING_MEANS = (
    " Clustering update is read as both rows of Table 2a, the pixel-wise contrastive"
    " loss too: the text gives it their 1.3% PQ."
)
_MARKS_D = (
    "The marks of Table 2d are garbled in the text of the paper; read as one addition a"
    " row, in the order of its columns."
)
_ABLATIONS = {
    "table2a_baseline": Published("Tables 2a, 2b, 2c", _BASE, **_MAX_S),
    "table2a_clustering": Published(
        "Table 2a", Quality(47.1, 51.0, 41.1), **_CLUSTERED
    ),
    "table2a_contrastive": Published("Tables 2a, 2c", _CLUSTERING, **_CLUSTERED),
    "table2b_baseline": Published("Tables 2a, 2b, 2c", _BASE, **_MAX_S),
    "table2b_reference_masks": Published("Table 2b", Quality(46.6, 50.3, 40.9)),
    "table2b_coordinate_convolution": Published("Tables 2b, 2c", _LOCATION, **_LOCATED),
    "table2c_baseline": Published("Tables 2a, 2b, 2c", _BASE, **_MAX_S),
    "table2c_clustering": Published(
        "Tables 2a, 2c", _CLUSTERING, **_CLUSTERED, note=_MARKS_C + _CLUSTERING_MEANS
    ),
    "table2c_location": Published(
        "Tables 2b, 2c", _LOCATION, **_LOCATED, note=_MARKS_C
    ),
    "table2c_decoder": Published(
        "Table 2c", Quality(47.1, 51.3, 40.9), **_STRONGER, note=_MARKS_C
    ),
    "table2c_clustering_decoder": Published(
        "Table 2c",
        Quality(48.1, 51.9, 42.2),
        **_STRONGER,
        note=_MARKS_C + _CLUSTERING_MEANS,
    ),
    "table2c_clustering_location_decoder": Published(
        "Tables 2c, 2d", _ALL, **_R50, note=_MARKS_C + _CLUSTERING_MEANS
    ),
    "table2d_baseline": Published("Tables 2c, 2d", _ALL, **_R50, note=_MARKS_D),
    "table2d_imagenet22k": Published(
        "Table 2d", Quality(49.3, 53.3, 43.4), **_R50, note=_MARKS_D
    ),
    "table2d_rfn": Published("Table 2d", Quality(50.1, 54.8, 43.0), note=_MARKS_D),
    "table2d_mask_wise": Published(
        "Table 2d", Quality(50.6, 54.8, 44.3), note=_MARKS_D
    ),
}
_RELU_641 = Published(
    val_derived=Figure(45.9, "46.2 - 0.3 = 45.9 follows from Sec. 4.2"), **_MAX_S
)
_UNPLACED_ROW = Published(**_MAX_S, note=_UNPLACED)
_MODELS = {
    "max_deeplab_s_relu_641": _RELU_641,
    "max_deeplab_s_relu_641_200k": _UNPLACED_ROW,
    "max_deeplab_s_relu_1025": _UNPLACED_ROW,
    "max_deeplab_s_relu_1025_200k": _UNPLACED_ROW,
    "max_deeplab_s_gelu_641": Published("Tables 2a, 2b, 2c", _BASE, **_MAX_S),
    "max_deeplab_s_gelu_641_200k": Published(**_MAX_S),
    "max_deeplab_s_gelu_1025": Published(**_MAX_S),
    "max_deeplab_s_gelu_1025_200k": Published(**_MAX_S),
    "cmt_deeplab_axial_r50_641": Published(
        "Table 3", Quality(50.1, 53.5, 44.9), **_R50
    ),
    "cmt_deeplab_axial_r50_641_200k": Published(
        "Table 3", Quality(50.6, 54.5, 44.8), **_R50
    ),
    "cmt_deeplab_axial_r50_1281": Published(
        "Tables 1, 3", Quality(53.0, 57.7, 45.9), Quality(53.4, 58.3, 46.0), **_R50
    ),
    "cmt_deeplab_axial_r50_1281_200k": Published(
        "Table 3", Quality(53.5, 58.5, 45.9), **_R50
    ),
    "cmt_deeplab_axial_r104_641": Published(
        "Table 3", Quality(51.7, 55.4, 46.4), **_R104
    ),
    "cmt_deeplab_axial_r104_641_200k": Published(
        "Table 3", Quality(52.2, 56.4, 46.0), **_R104
    ),
    "cmt_deeplab_axial_r104_1281": Published(
        "Tables 1, 3", Quality(54.1, 58.8, 47.1), Quality(54.5, 59.6, 46.9), **_R104
    ),
    "cmt_deeplab_axial_r104_1281_200k": Published(**_R104),
    "cmt_deeplab_axial_r104_rfn_1281": Published(
        "Tables 1, 3", Quality(55.1, 60.6, 46.8), Quality(55.4, 61.0, 47.0), **_RFN
    ),
    "cmt_deeplab_axial_r104_rfn_1281_200k": Published(
        "Table 1", Quality(55.3, 61.0, 46.6), Quality(55.7, 61.6, 46.8), **_RFN
    ),
}
PUBLISHED: dict[str, Published] = {
    **{f"coco/{name}": row for name, row in _MODELS.items()},
    **{f"coco/ablations/{name}": row for name, row in _ABLATIONS.items()},
}
"""By the name of the config."""


class Setting(NamedTuple):
    """A hyperparameter of the recipe.

    Attributes:
      name: what it is.
      published: what the paper says of it; empty where it says nothing.
      value: that in the syntax of a config; empty where it cannot be said there.
      field: of a config that holds it; empty where none does.
      reason: where ours comes from, or why it differs.
    """

    name: str
    published: str
    value: str
    field: str
    reason: str = ""


_PREDECESSOR = "not said; the authors' published code for MaX-DeepLab"
_AS_PREDECESSOR = '"the same setting as" MaX-DeepLab'
_OF_ADAM = "not said; of Adam's paper"
_OURS = "not said; our choice"
RECIPE: tuple[Setting, ...] = (
    Setting("hardware", "64 TPU cores", "", "", "whatever trainer.strategy finds"),
    Setting(
        "pretraining of the backbone",
        "ImageNet-22K, in ablations ImageNet-1K",
        "",
        "trainer.initial_checkpoint",
        "the authors' ImageNet-22K weights are not published: random unless set",
    ),
    Setting("images in a step", "64", "64", "trainer.global_batch_size"),
    Setting("iterations", "100k (200k in ..._200k)", "100000", "trainer.steps"),
    Setting("warm-up", "5k", "5000", "trainer.learning_rate.warmup_steps"),
    Setting("optimizer", "Adam", "ADAM", "trainer.optimizer.kind"),
    Setting("learning rate", "1e-3, poly", "0.001", "trainer.learning_rate.base"),
    Setting("power of poly", "", "", "trainer.learning_rate.power", _PREDECESSOR),
    Setting(
        "learning rate of the backbone",
        "x 0.1",
        "0.1",
        "trainer.learning_rate.backbone_multiplier",
    ),
    Setting("weight decay", "0", "0.0", "trainer.optimizer.weight_decay"),
    Setting("Adam's beta 1", "", "", "trainer.optimizer.beta1", _OF_ADAM),
    Setting("Adam's beta 2", "", "", "trainer.optimizer.beta2", _OF_ADAM),
    Setting(
        "Adam's epsilon",
        "",
        "",
        "trainer.optimizer.epsilon",
        "not said; Keras's default",
    ),
    Setting(
        "gradient clipping",
        "",
        "",
        "trainer.optimizer.clip_global_norm",
        "not said; none",
    ),
    Setting(
        "moving averages of the weights",
        "",
        "",
        "trainer.optimizer.average_decay",
        "not said; none",
    ),
    Setting("momentum of batch norms", "", "", "model.norm.momentum", _PREDECESSOR),
    Setting("epsilon of batch norms", "", "", "model.norm.epsilon", _PREDECESSOR),
    Setting(
        "batch norms over all cores",
        "",
        "",
        "model.norm.synchronized",
        _OURS + ": a small network learned little from statistics of one image"
        " (training.md)",
    ),
    Setting("drop path", "0.2", "0.2", "model.backbone.drop_path_rate"),
    Setting(
        "input", "1281 x 1281, resized and padded", "1281", "data.crop_height_pixels"
    ),
    Setting("smallest scale", "", "", "data.augmentation.min_scale", _PREDECESSOR),
    Setting("largest scale", "", "", "data.augmentation.max_scale", _PREDECESSOR),
    Setting("step of scales", "", "", "data.augmentation.scale_step", _PREDECESSOR),
    Setting(
        "left-right flips", "", "", "data.augmentation.flip_probability", _PREDECESSOR
    ),
    Setting("activation", "GeLU", "GELU", "model.activation"),
    Setting("blocks of stage 2", "3", "3", "model.backbone.stage2_blocks"),
    Setting("blocks of stage 3", "4", "4", "model.backbone.stage3_blocks"),
    Setting(
        "blocks of stage 4", "6 (24 in Axial-R104)", "6", "model.backbone.stage4_blocks"
    ),
    Setting("blocks of stage 5", "3", "3", "model.backbone.stage5_blocks"),
    Setting("dual-path layers, 2048 channels", "3", "3", "model.decoder.stage5_layers"),
    Setting("dual-path layers, 1024 channels", "3", "3", "model.decoder.stage4_layers"),
    Setting("cluster centers", "", "", "model.num_centers", _PREDECESSOR),
    Setting("points of a reference mask", "8", "8", "model.location.num_points"),
    Setting(
        "PQ-style loss, classes",
        _AS_PREDECESSOR,
        "",
        "loss.pq_class_weight",
        "the authors' published COCO config",
    ),
    Setting(
        "PQ-style loss, masks",
        _AS_PREDECESSOR,
        "",
        "loss.pq_mask_weight",
        "the authors' published COCO config",
    ),
    Setting(
        "mask-ID cross entropy",
        _AS_PREDECESSOR,
        "",
        "loss.mask_id_weight",
        "the authors' published COCO config",
    ),
    Setting(
        "contrastive loss",
        _AS_PREDECESSOR,
        "",
        "loss.pixel_loss_weight",
        "the authors' published COCO config",
    ),
    Setting(
        "semantic loss",
        _AS_PREDECESSOR,
        "",
        "loss.semantic_weight",
        "the authors' published COCO config",
    ),
    Setting("temperature", "", "", "loss.pixel_loss_temperature", _PREDECESSOR),
    Setting(
        "loss on pixel features",
        "pixel-wise contrastive",
        "PIXEL_CONTRASTIVE",
        "loss.pixel_loss",
    ),
    Setting("sampled pixels", "4096", "4096", "loss.contrastive_pixels"),
    Setting(
        "bias to small masks",
        '"we add bias"',
        "",
        "loss.contrastive_sampling_power",
        "no number said; the authors' later COCO setting",
    ),
    Setting("mask approximation loss", "1.0", "1.0", "loss.mask_approximation_weight"),
    Setting(
        "losses of the layers",
        "supervised",
        "",
        "loss.layer_weight",
        "no weight said; our choice",
    ),
    Setting("merging", "mask-wise", "MASK_WISE", "evaluation.merge"),
    Setting(
        "least class probability, things",
        "",
        "",
        "evaluation.thing_confidence",
        _PREDECESSOR,
    ),
    Setting(
        "least class probability, stuff",
        "",
        "",
        "evaluation.stuff_confidence",
        _PREDECESSOR,
    ),
    Setting(
        "least mask probability", "", "", "evaluation.pixel_confidence", _PREDECESSOR
    ),
    Setting("precision", "", "", "model.precision", _OURS),
)
"""Sec. 4 and 3.4, for Axial-R50 at 1281 x 1281."""
