"""The network's layers, usable on their own."""

from cmt.layers.attention import AxialAttention1D, AxialAttention2D
from cmt.layers.base import policy_scope
from cmt.layers.blocks import AxialBlock, BottleneckBlock
from cmt.layers.conv import (
    ConvNorm,
    DenseNorm,
    DepthwiseConvNorm,
    Dropout,
    DropPath,
    Style,
)
from cmt.layers.dual_path import (
    DualPathState,
    ReferenceMask,
    TransformerLayer,
    TransformerSizes,
)
from cmt.layers.norm import BatchNorm
from cmt.layers.recompute import recompute

__all__ = [
    "AxialAttention1D",
    "AxialAttention2D",
    "AxialBlock",
    "BatchNorm",
    "BottleneckBlock",
    "ConvNorm",
    "DenseNorm",
    "DepthwiseConvNorm",
    "DropPath",
    "Dropout",
    "DualPathState",
    "ReferenceMask",
    "Style",
    "TransformerLayer",
    "TransformerSizes",
    "policy_scope",
    "recompute",
]
