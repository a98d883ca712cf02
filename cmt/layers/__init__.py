"""The network's layers, usable on their own."""

from cmt.layers.attention import AxialAttention1D, AxialAttention2D
from cmt.layers.blocks import AxialBlock, BottleneckBlock
from cmt.layers.conv import ConvNorm, DenseNorm, DepthwiseConvNorm, Style
from cmt.layers.dual_path import DualPathState, TransformerLayer

__all__ = [
    "AxialAttention1D",
    "AxialAttention2D",
    "AxialBlock",
    "BottleneckBlock",
    "ConvNorm",
    "DenseNorm",
    "DepthwiseConvNorm",
    "DualPathState",
    "Style",
    "TransformerLayer",
]
