"""How DeepLab2 names and stores our variables in its checkpoints.

Its keys are paths of Python attributes in the object graph, those of the Axial-ResNet
and the MaX-DeepLab layout: "encoder/_stage4/_block2/_conv1_bn_act/_conv/kernel".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NORM = ("/gamma", "/beta", "/moving_mean", "/moving_variance")
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
# What a name of ours begins with, whatever the network around it is called.
_PARTS = (
    "backbone",
    "decoder",
    "head",
    "semantic_branch",
    "cluster_centers",
    "reference_embedding",
)
_ENCODER = re.compile(r"^(?P<prefix>(?:[^/]+/)*)encoder/_(?:stem|stage\d)/")
_NOT_WEIGHTS = re.compile(
    r"(^|/)(\.OPTIMIZER_SLOT|\w*optimizer\w*|keras_api|save_counter|global_step|step"
    r"|_?(ema|moving_average|average)\w*|_training_state|_CHECKPOINTABLE_OBJECT_GRAPH)"
    r"(/|$)"
)
_STAGE5 = re.compile(r"^decoder/stage5/\w+_(?:block|transformer)(\d+)/")
_FIRST = re.compile(r"^decoder/first/dual_path_(block|transformer)(\d+)/")

# The place of a layer in the network; the first that fits is taken.
_PLACES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^cluster_centers$", "encoder/memory_feature"),
        (r"^backbone/stem3/", "encoder/_stem/_conv3_bn/"),
        (r"^backbone/stem(\d)/", r"encoder/_stem/_conv\1_bn_act/"),
        (r"^backbone/(stage\d)_block(\d+)/", r"encoder/_\1/_block\2/"),
        (r"^decoder/stage5/dual_path_block(\d+)/", r"encoder/_stage5/_block\1/"),
        (
            r"^decoder/stage5/dual_path_transformer(\d+)/",
            r"encoder/_stage5/_block\1_transformer/",
        ),
        (
            r"^decoder/fuse8/conv/",
            "encoder/_decoder_stage1_extra_resized_fuse/_resized_conv_bn1/",
        ),
        (
            r"^decoder/stride8_block(\d+)/",
            r"encoder/_decoder_stage1_extra/_block\1/",
        ),
        (
            r"^decoder/fuse4/conv/",
            "encoder/_decoder_stage2_extra_resized_fuse/_resized_conv_bn1/",
        ),
        (
            r"^decoder/stride4_block(\d+)/",
            r"encoder/_decoder_stage2_extra/_block\1/",
        ),
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
        (
            r"^semantic_branch/aspp_pool/",
            "semantic_decoder/_aspp/_aspp_pool/_conv_bn_act/",
        ),
        (
            r"^semantic_branch/aspp_output/",
            "semantic_decoder/_aspp/_proj_conv_bn_act/",
        ),
        (r"^semantic_branch/stage3_projection/", "semantic_decoder/_low_level_conv1/"),
        (r"^semantic_branch/stage2_projection/", "semantic_decoder/_low_level_conv2/"),
        (r"^semantic_branch/stage3_", "semantic_decoder/_fusion_conv1/_conv1_bn_act/"),
        (r"^semantic_branch/stage2_", "semantic_decoder/_fusion_conv2/_conv1_bn_act/"),
    )
]
# The rest of the path, inside a block or a layer; all are applied, in this order.
_INSIDE = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
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
        (r"/center_(similarity)_norm/", r"/_memory_attention/_batch_norm_\1/"),
        (r"/center_(retrieved)_norm/", r"/_memory_attention/_batch_norm_\1_value/"),
        (r"/pixel_(similarity)_norm/", r"/_pixel_attention/_batch_norm_\1/"),
        (r"/pixel_(retrieved)_norm/", r"/_pixel_attention/_batch_norm_\1_value/"),
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
    )
]


def local_name(variable_name: str) -> str:
    """Returns the name of a variable without what the network around it is called.

    Keras puts the names of outer networks in front, or not, by how they were built.
    """
    parts = variable_name.split(":")[0].split("/")
    places = [i for i, part in enumerate(parts) if part in _PARTS]
    return "/".join(parts[places[0] :] if places else parts)


def common_names(variable_names: Iterable[str]) -> list[str | None]:
    """Returns names that are the same with and without the stronger decoder.

    Stage 5 is always the backbone's, and the blocks behind it count from 1.

    Returns:
      As many; None for a variable of no part of a network of ours.
    """
    names = [local_name(name) for name in variable_names]
    blocks = num_stage5_blocks(names)
    found: list[str | None] = []
    for name in names:
        extra = _FIRST.match(name)
        if extra:
            layer = f"{extra[1]}{int(extra[2]) - blocks}"
            name = f"decoder/first/dual_path_{layer}/{name[extra.end() :]}"
        name = re.sub(r"^decoder/stage5/\w+_block(?=\d)", "backbone/stage5_block", name)
        found.append(name if name.split("/")[0] in _PARTS else None)
    return found


def num_stage5_blocks(names: Iterable[str]) -> int:
    """Returns how many blocks of stage 5 the decoder holds, by its local names."""
    found = (_STAGE5.match(name) for name in names)
    return max((int(match[1]) for match in found if match), default=0)


def deeplab2_key(name: str, *, stage5_blocks: int) -> str | None:
    """Returns the key that DeepLab2 has for a variable, without prefix and suffix.

    Args:
      name: its local name.
      stage5_blocks: as `num_stage5_blocks` returns them. Blocks behind them in the
        same dual path are DeepLab2's extra ones of stage 5.

    Returns:
      None where MaX-DeepLab has nothing of the kind.
    """
    extra = _FIRST.match(name)
    if extra:
        number = int(extra[2]) - stage5_blocks
        layer = "" if extra[1] == "block" else "_transformer"
        place = f"encoder/_stage5_extra/_block{number}{layer}/"
        return _inside(place + name[extra.end() :])
    for pattern, replacement in _PLACES:
        key, found = pattern.subn(replacement, name)
        if found:
            return _inside(key)
    return None


def is_deeplab2_layout(name: str, stored: list[int], shape: list[int]) -> bool:
    """Returns whether DeepLab2 stores the numbers of a variable in the same order.

    Its dense layers are convolutions, [1, in, out] or [1, 1, in, out], its centers
    [1, N, D]; its norms over more than one axis keep axes of size 1, and norms of
    attended values have heads and channels apart, [1, heads, 1, d].

    Args:
      name: local name of the variable.
      stored: shape in the checkpoint.
      shape: shape of the variable.
    """
    if "_retrieved_norm/" in name and len(stored) == 4 and len(shape) == 1:
        return stored[0] == stored[2] == 1 and shape == [stored[1] * stored[3]]
    if name.endswith(_NORM):
        return [d for d in stored if d > 1] == [d for d in shape if d > 1]
    if name == "cluster_centers":
        return stored == [1, *shape]
    is_dense = name.endswith("/kernel") and len(shape) == 2
    return is_dense and stored in ([1, *shape], [1, 1, *shape])


def deeplab2_prefix(keys: Iterable[str]) -> str | None:
    """Returns what the keys of DeepLab2's network begin with, "" or "model/".

    Averaged copies of the weights do not count.

    Returns:
      None for keys of anything else than DeepLab2.
    """
    found = (_ENCODER.match(key) for key in keys if is_weight(key))
    prefixes = {match["prefix"] for match in found if match}
    return min(prefixes, key=lambda prefix: (len(prefix), prefix), default=None)


def is_weight(key: str) -> bool:
    """False for counters, the object graph, and state and averages of optimizers."""
    return not _NOT_WEIGHTS.search(key)


def _inside(key: str) -> str:
    for pattern, replacement in _INSIDE:
        key = pattern.sub(replacement, key)
    return key
