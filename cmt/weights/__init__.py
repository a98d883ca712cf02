"""Weights from checkpoints, ours and DeepLab2's."""

from __future__ import annotations

from cmt.weights.load import LoadReport, load_initial_checkpoint

__all__ = ["LoadReport", "load_initial_checkpoint"]
