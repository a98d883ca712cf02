"""Weights from checkpoints, ours and DeepLab2's."""

from __future__ import annotations

from cmt.weights.load import Report, load_initial_checkpoint

__all__ = ["Report", "load_initial_checkpoint"]
