"""Which mask is predicted by which cluster center."""

from __future__ import annotations

from cmt.matching.masks import (
    MATCHERS,
    Matching,
    Overlaps,
    assign,
    choose_matcher,
    class_similarity,
    largest_masks,
    mask_similarity,
    match_masks,
    take,
    void_ratio,
)

__all__ = [
    "MATCHERS",
    "Matching",
    "Overlaps",
    "assign",
    "choose_matcher",
    "class_similarity",
    "largest_masks",
    "mask_similarity",
    "match_masks",
    "take",
    "void_ratio",
]
