"""The whole MaX-DeepLab-S layout against a small reference checkpoint.

CMT-DeepLab without its three additions is MaX-DeepLab-S: here its variables are set
from the checkpoint of the public predecessor at width 1/8, and its outputs compared.
"""

from __future__ import annotations

import re

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from cmt.factory import build_model
from cmt.protos import model_pb2

SMALL_MAX_DEEPLAB_S = """
  activation: RELU
  clustering { enabled: false }
  location { enabled: false }
  backbone {
    stem1_channels: 8 stem2_channels: 8 stem3_channels: 16
    stage2_channels: 8 stage3_channels: 16 stage4_channels: 32 stage5_channels: 64
  }
  decoder { stronger: false }
  transformer {
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

# Applied in this order to a path of ours, such as "decoder/first/.../kernel".
RULES = [
    (r"^cluster_centers$", "encoder/memory_feature"),
    (r"^backbone/stem3/", "encoder/_stem/_conv3_bn/"),
    (r"^backbone/stem(\d)/", r"encoder/_stem/_conv\1_bn_act/"),
    (r"^backbone/(stage\d)_block(\d)/", r"encoder/_\1/_block\2/"),
    (r"^.*/dual_path_block([123])/", r"encoder/_stage5/_block\1/"),
    (r"^.*/dual_path_block4/", "encoder/_stage5_extra/_block1/"),
    (r"^.*/dual_path_transformer([123])/", r"encoder/_stage5/_block\1_transformer/"),
    (r"^.*/dual_path_transformer4/", "encoder/_stage5_extra/_block1_transformer/"),
    (
        r"^decoder/fuse8/conv/",
        "encoder/_decoder_stage1_extra_resized_fuse/_resized_conv_bn1/",
    ),
    (r"^decoder/stride8_block1/", "encoder/_decoder_stage1_extra/_block1/"),
    (
        r"^decoder/fuse4/conv/",
        "encoder/_decoder_stage2_extra_resized_fuse/_resized_conv_bn1/",
    ),
    (r"^decoder/stride4_block1/", "encoder/_decoder_stage2_extra/_block1/"),
    (r"^head/(class|mask)_feature/", r"encoder/_\1_feature_extra/"),
    (r"^head/mask_kernel/", "transformer_mask_head/"),
    (r"^head/class_head/", "transformer_class_head/_conv/"),
    (r"^head/pixel_feature_norm/", "pixel_space_feature_batch_norm/"),
    (r"^head/mask_logits_norm/", "pixel_space_mask_batch_norm/"),
    (r"^head/pixel/last/", "pixel_space_head/final_conv/"),
    (r"^head/pixel/", "pixel_space_head/conv_block/_conv1_bn_act/"),
    (r"^semantic_branch/head/last/", "semantic_last_layer/"),
    (r"^semantic_branch/head/", "semantic_head_without_last_layer/_conv1_bn_act/"),
    (r"^semantic_branch/aspp_1x1/", "semantic_decoder/_aspp/_conv_bn_act/"),
    (
        r"^semantic_branch/aspp_rate6/",
        "semantic_decoder/_aspp/_aspp_conv1/_conv_bn_act/",
    ),
    (
        r"^semantic_branch/aspp_rate12/",
        "semantic_decoder/_aspp/_aspp_conv2/_conv_bn_act/",
    ),
    (
        r"^semantic_branch/aspp_rate18/",
        "semantic_decoder/_aspp/_aspp_conv3/_conv_bn_act/",
    ),
    (r"^semantic_branch/aspp_pool/", "semantic_decoder/_aspp/_aspp_pool/_conv_bn_act/"),
    (r"^semantic_branch/aspp_output/", "semantic_decoder/_aspp/_proj_conv_bn_act/"),
    (r"^semantic_branch/stage3_projection/", "semantic_decoder/_low_level_conv1/"),
    (r"^semantic_branch/stage2_projection/", "semantic_decoder/_low_level_conv2/"),
    (r"^semantic_branch/stage3_", "semantic_decoder/_fusion_conv1/_conv1_bn_act/"),
    (r"^semantic_branch/stage2_", "semantic_decoder/_fusion_conv2/_conv1_bn_act/"),
    (r"/depthwise/conv/", "/_depthwise/_depthwise_conv/"),
    (r"/(depthwise|pointwise)/", r"/_\1/"),
    (r"/center_input/", "/_memory_conv1_bn_act/"),
    (r"/center_projection/", "/_memory_qkv_conv_bn/"),
    (r"/pixel_projection/", "/_pixel_qkv_conv_bn/"),
    (r"/pixel_input/", "/_pixel_conv1_bn_act/"),
    (r"/center_output/", "/_memory_conv3_bn/"),
    (r"/pixel_output/", "/_pixel_conv3_bn/"),
    (r"/ffn_hidden/", "/_memory_ffn_conv1_bn_act/"),
    (r"/ffn_output/", "/_memory_ffn_conv2_bn/"),
    (r"/center_similarity_norm/", "/_memory_attention/_batch_norm_similarity/"),
    (r"/center_retrieved_norm/", "/_memory_attention/_batch_norm_retrieved_value/"),
    (r"/pixel_similarity_norm/", "/_pixel_attention/_batch_norm_similarity/"),
    (r"/pixel_retrieved_norm/", "/_pixel_attention/_batch_norm_retrieved_value/"),
    (r"/attention/(height|width)_axis/", r"/_attention/_\1_axis/"),
    (r"/projection_norm/", "/_batch_norm_qkv/"),
    (r"/similarity_norm/", "/_batch_norm_similarity/"),
    (r"/retrieved_norm/", "/_batch_norm_retrieved_output/"),
    (r"/(query|key|value)_positions$", r"/_\1_rpe/embeddings"),
    (r"/(conv[12])/(conv|norm)/", r"/_\1_bn_act/\2/"),
    (r"/(conv3)/(conv|norm)/", r"/_\1_bn/\2/"),
    (r"/shortcut/", "/_shortcut/"),
    (r"/(conv|dense)/(kernel)$", r"/_conv/\2"),
    (r"/norm/", "/_batch_norm/"),
]


def reference_key(path: str) -> str:
    """The reference checkpoint's name of one of our variables."""
    path = path.removeprefix("cmt_deeplab/").removesuffix(":0")
    for pattern, replacement in RULES:
        path = re.sub(pattern, replacement, path)
    return path


def test_max_deeplab_s_equals_reference(shared):
    folder = shared / "golden/axial_backbone"
    settings = text_format.Parse(SMALL_MAX_DEEPLAB_S, model_pb2.ModelConfig())
    model = build_model(settings)
    model.build((None, 129, 129, 3))
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(folder / "full_ckpt"))
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    stored = {
        key.removesuffix(suffix)
        for key in reader.get_variable_to_shape_map()
        if key.endswith(suffix)
    } - {"global_step", "save_counter"}
    names = {
        variable.ref(): reference_key(variable.name) for variable in model.variables
    }
    assert set(names.values()) == stored
    assert len(names) == len(stored) == 907
    for variable in model.variables:
        value = reader.get_tensor(names[variable.ref()] + suffix)
        variable.assign(value.reshape(variable.shape))

    expected = np.load(folder / "full_io.npz")
    predictions = model(expected["image_uint8"], training=False)
    for output, name, tolerance in (
        (predictions.mask_logits, "pixel_space_mask_logits", 1e-3),
        (predictions.class_logits, "transformer_class_logits", 5e-4),
        (predictions.pixel_features, "pixel_space_normalized_feature", 5e-4),
        (predictions.semantic_logits, "semantic_logits", 5e-4),
    ):
        np.testing.assert_allclose(output, expected[name], rtol=0, atol=tolerance)
