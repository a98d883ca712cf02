"""Networks of the size of the reference checkpoints: MaX-DeepLab-S at width 1/8."""

from __future__ import annotations

import tf_keras
from google.protobuf import text_format

from cmt.factory import build_model
from cmt.protos import model_pb2

SMALL_MAX_DEEPLAB_S = """
  activation: RELU
  location { enabled: false }
  backbone {
    stem1_channels: 8 stem2_channels: 8 stem3_channels: 16
    stage2_channels: 8 stage3_channels: 16 stage4_channels: 32 stage5_channels: 64
    drop_path_rate: 0
  }
  decoder { stronger: false }
  transformer {
    assignment: CROSS_ATTENTION
    center_channels: 64 bottleneck_channels: 64 key_channels: 32 value_channels: 64
    ffn_channels: 128
  }
  heads {
    center_feature_channels: 64 pixel_hidden_channels: 32 pixel_feature_channels: 16
  }
  auxiliary_semantic {
    channels: 32 stage3_projection_channels: 16 stage2_projection_channels: 8
  }
"""
SIZE = 129


def small_max_deeplab_s(*changes: str, size: int = SIZE) -> tf_keras.Model:
    """The network, built at a size, with text of a ModelConfig merged in."""
    settings = text_format.Parse(SMALL_MAX_DEEPLAB_S, model_pb2.ModelConfig())
    for change in changes:
        text_format.Merge(change, settings)
    model = build_model(settings)
    model.build((None, size, size, 3))
    return model
