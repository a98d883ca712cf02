"""The loss of the network: one function a term, and `PanopticLoss` over them all."""

from __future__ import annotations

from cmt.losses.contrastive import (
    instance_discrimination_loss,
    pixel_contrastive_loss,
    sample_pixels,
)
from cmt.losses.mask_approximation import (
    MaskExtents,
    mask_approximation_loss,
    mask_extents,
)
from cmt.losses.mask_id import mask_id_loss
from cmt.losses.pq_style import pq_class_loss, pq_mask_loss
from cmt.losses.semantic import semantic_loss
from cmt.losses.statistics import MaskStatistics, mask_statistics
from cmt.losses.targets import PixelTargets, pixel_targets
from cmt.losses.total import PanopticLoss

__all__ = [
    "MaskExtents",
    "MaskStatistics",
    "PanopticLoss",
    "PixelTargets",
    "instance_discrimination_loss",
    "mask_approximation_loss",
    "mask_extents",
    "mask_id_loss",
    "mask_statistics",
    "pixel_contrastive_loss",
    "pixel_targets",
    "pq_class_loss",
    "pq_mask_loss",
    "sample_pixels",
    "semantic_loss",
]
