"""Where each numbered equation of the paper is in the code."""

from __future__ import annotations

EQUATIONS: dict[int, tuple[str, ...]] = {
    3: ("cmt.clustering.attention_weights", "cmt.clustering.retrieve"),
    4: ("cmt.clustering.assign",),
    5: ("cmt.clustering.pool_pixels",),
    6: ("cmt.clustering.update_affinity", "cmt.clustering.assign"),
    7: ("cmt.clustering.combine_updates", "cmt.clustering.update_centers"),
    8: ("cmt.clustering.spread_centers", "cmt.clustering.update_pixels"),
    9: ("cmt.clustering.update_reference_embedding",),
    10: ("cmt.clustering.reference_mask",),
    11: ("cmt.clustering.coordinate_convolution",),
    12: ("cmt.clustering.coordinate_convolution", "cmt.clustering.pixel_coordinates"),
    13: ("cmt.losses.mask_approximation.mask_approximation_loss",),
    14: ("cmt.losses.contrastive.pixel_contrastive_loss",),
}
