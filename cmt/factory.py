"""Model, loss and post-processing from config messages: who else reads them?

Nobody in this package: layers take plain keywords.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Sequence

from cmt import config
from cmt.backbone import AxialSizes, Backbone
from cmt.decoder import Decoder, DualPath, Fuse
from cmt.errors import InputError
from cmt.heads import PanopticHead, SemanticBranch
from cmt.layers.base import policy_scope
from cmt.layers.blocks import AxialBlock, BottleneckBlock
from cmt.layers.conv import Style
from cmt.layers.dual_path import TransformerLayer, TransformerSizes
from cmt.losses import PanopticLoss
from cmt.model import CMTDeepLab, RecursiveCMTDeepLab
from cmt.passes import Pass
from cmt.protos import evaluation_pb2, losses_pb2, model_pb2


def build_model(
    model: str | model_pb2.ModelConfig, *, num_classes: int | None = None
) -> CMTDeepLab | RecursiveCMTDeepLab:
    """The network of a config, not yet built.

    Args:
      model: name or path of a config, such as "coco/cmt_deeplab_axial_r50_1281", or a
        ModelConfig message.
      num_classes: classes, void not counted; None takes those of the config.

    Returns:
      A model that creates its variables on its first call, or by
      `model.build((None, height, width, 3))`.

    Example:
      >>> model = build_model("scenes/tiny", num_classes=3)
      >>> model(tf.zeros([1, 97, 97, 3])).class_logits.shape
      TensorShape([1, 24, 4])

    Raises:
      InputError: the config is not found or not valid, or `num_classes` is not.
    """
    settings = config.read_model_config(model)
    classes = _checked_classes(num_classes, settings)
    with policy_scope(_policy(settings)):
        if not settings.rfn:
            return _network(settings, classes, name="cmt_deeplab")
        passes = [
            _network(settings, classes, name=name) for name in ("first", "second")
        ]
        return RecursiveCMTDeepLab(*passes, name="cmt_deeplab_rfn")


def _checked_classes(num_classes: int | None, settings: model_pb2.ModelConfig) -> int:
    if num_classes is None:
        return settings.num_classes
    if isinstance(num_classes, bool) or not isinstance(num_classes, numbers.Integral):
        raise InputError(f"num_classes must be a whole number; got {num_classes!r}")
    if num_classes < 1:
        raise InputError(
            f"num_classes must be at least 1, void not counted; got {num_classes}"
        )
    return int(num_classes)


def list_models() -> list[str]:
    """Names that `build_model` takes, without those of a path.

    Example:
      >>> "coco/cmt_deeplab_axial_r50_1281" in list_models()
      True
    """
    return config.available_configs()


def _policy(settings: model_pb2.ModelConfig) -> str | None:
    """Keras's name of the precision; None for what Keras is set to."""
    if settings.precision == model_pb2.KERAS_POLICY:
        return None
    return model_pb2.Precision.Name(settings.precision).lower()


def _network(settings: model_pb2.ModelConfig, classes: int, *, name: str) -> CMTDeepLab:
    style = _style(settings)
    rates = _drop_path_rates(settings)
    backbone = _backbone(settings, style, rates)
    decoder = _decoder(settings, style, rates)
    heads = settings.heads
    head = PanopticHead(
        classes,
        center_feature_channels=heads.center_feature_channels,
        pixel_hidden_channels=heads.pixel_hidden_channels,
        pixel_feature_channels=heads.pixel_feature_channels,
        style=style,
        recompute=settings.recompute.heads,
        name="head",
    )
    return CMTDeepLab(
        backbone,
        decoder,
        head,
        semantic_branch=_semantic_branch(settings, classes, style),
        num_centers=settings.num_centers,
        center_channels=settings.transformer.center_channels,
        num_points=_num_points(settings),
        name=name,
    )


def _style(settings: model_pb2.ModelConfig) -> Style:
    return Style(
        activation=model_pb2.Activation.Name(settings.activation).lower(),
        norm_momentum=settings.norm.momentum,
        norm_epsilon=settings.norm.epsilon,
        norm_synchronized=settings.norm.synchronized,
    )


def _num_points(settings: model_pb2.ModelConfig) -> int:
    return settings.location.num_points if settings.location.enabled else 0


def _axial(settings: model_pb2.ModelConfig) -> AxialSizes:
    return AxialSizes(
        settings.backbone.num_heads, settings.backbone.max_relative_positions
    )


def _num_dual_path_layers(settings: model_pb2.ModelConfig) -> int:
    decoder = settings.decoder
    if decoder.stronger:
        return decoder.stage5_layers + decoder.stage4_layers
    return settings.backbone.stage5_blocks + decoder.basic_layers


def _drop_path_rates(settings: model_pb2.ModelConfig) -> Iterator[float]:
    """Rates of all residual blocks in order, rising from 0 to the config's rate."""
    backbone, decoder = settings.backbone, settings.decoder
    count = backbone.stage2_blocks + backbone.stage3_blocks + backbone.stage4_blocks
    if decoder.stronger:
        count += backbone.stage5_blocks
    count += _num_dual_path_layers(settings)
    count += decoder.stride8_blocks + decoder.stride4_blocks
    return (backbone.drop_path_rate * (i + 1) / count for i in range(count))


def _backbone(settings, style: Style, rates: Iterator[float]) -> Backbone:
    b = settings.backbone
    num_blocks = [b.stage2_blocks, b.stage3_blocks, b.stage4_blocks]
    channels = [b.stage2_channels, b.stage3_channels, b.stage4_channels]
    if settings.decoder.stronger:
        num_blocks.append(b.stage5_blocks)
        channels.append(b.stage5_channels)
    return Backbone(
        [b.stem1_channels, b.stem2_channels, b.stem3_channels],
        num_blocks,
        channels,
        axial=_axial(settings),
        style=style,
        drop_path_rates=[next(rates) for _ in range(sum(num_blocks))],
        recompute=[kind.name for kind, on in settings.recompute.ListFields() if on],
        name="backbone",
    )


def _dual_path(
    settings, style: Style, rates: Iterator[float], name: str, layers: int, width: int
) -> DualPath:
    t = settings.transformer
    sizes = TransformerSizes(
        center_channels=t.center_channels,
        bottleneck_channels=t.bottleneck_channels,
        key_channels=t.key_channels,
        value_channels=t.value_channels,
        num_heads=t.num_heads,
        ffn_channels=t.ffn_channels,
    )
    blocks, transformers = [], []
    for index in range(1, layers + 1):
        rate = next(rates)
        blocks.append(
            AxialBlock(
                width,
                **_axial(settings)._asdict(),
                style=style,
                drop_path_rate=rate,
                recompute=settings.recompute.axial_blocks,
                name=f"{name}_block{index}",
            )
        )
        transformers.append(
            TransformerLayer(
                sizes,
                assignment=model_pb2.AssignmentRule.Name(t.assignment).lower(),
                num_points=_num_points(settings),
                mlp_channels=settings.location.mlp_channels,
                coordinate_convolution=settings.location.coordinate_convolution,
                style=style,
                drop_path_rate=rate,
                recompute=settings.recompute.transformer_layers,
                name=f"{name}_transformer{index}",
            )
        )
    return DualPath(blocks, transformers, name=name)


def _decoder(settings, style: Style, rates: Iterator[float]) -> Decoder:
    b, d = settings.backbone, settings.decoder
    if d.stronger:
        first = _dual_path(
            settings, style, rates, "dual_path", d.stage5_layers, b.stage5_channels
        )
        fuse16 = Fuse(4 * b.stage4_channels, style=style, name="fuse16")
        second = _dual_path(
            settings, style, rates, "dual_path2", d.stage4_layers, b.stage4_channels
        )
    else:
        layers = _num_dual_path_layers(settings)
        first = _dual_path(
            settings, style, rates, "dual_path", layers, b.stage5_channels
        )
        fuse16 = second = None
    upward = []
    for stride, blocks, width in (
        (8, d.stride8_blocks, b.stage3_channels),
        (4, d.stride4_blocks, b.stage2_channels),
    ):
        fuse = Fuse(4 * width, style=style, name=f"fuse{stride}")
        names = [f"stride{stride}_block{i + 1}" for i in range(blocks)]
        upward.append(
            (
                fuse,
                [
                    BottleneckBlock(
                        width,
                        style=style,
                        drop_path_rate=next(rates),
                        recompute=settings.recompute.bottleneck_blocks,
                        name=name,
                    )
                    for name in names
                ],
            )
        )
    return Decoder(
        first,
        fuse16=fuse16,
        second_dual_path=second,
        num_stage5_blocks=0 if d.stronger else b.stage5_blocks,
        upward=upward,
        style=style,
        name="decoder",
    )


def _semantic_branch(settings, num_classes: int, style: Style) -> SemanticBranch | None:
    s = settings.auxiliary_semantic
    if not s.enabled:
        return None
    return SemanticBranch(
        num_classes,
        s.channels,
        projection_channels=(
            s.stage3_projection_channels,
            s.stage2_projection_channels,
        ),
        dropout_rate=s.dropout_rate,
        style=style,
        recompute=settings.recompute.heads,
        name="semantic_branch",
    )


def build_loss(
    model: str | model_pb2.ModelConfig,
    loss: losses_pb2.LossConfig | None = None,
    *,
    num_classes: int | None = None,
    is_thing: Sequence[bool] | None = None,
) -> PanopticLoss:
    """The loss of a config, for the network that `build_model` makes of it.

    Args:
      model: name or path of a config, or the ModelConfig of the network that is scored.
      loss: terms and weights; None takes those of the config, and the paper's for a
        ModelConfig.
      num_classes: classes, void not counted; None takes those of the config.
      is_thing: for classes 1..C; read by INSTANCE_DISCRIMINATION.

    Raises:
      InputError: the config is not found or not valid, or `num_classes` is not.

    Example:
      >>> build_loss("scenes/tiny", num_classes=3).weights["semantic"] > 0
      True
    """
    if loss is None:
        is_message = isinstance(model, model_pb2.ModelConfig)
        loss = (
            losses_pb2.LossConfig()
            if is_message
            else config.load_experiment(model).loss
        )
    settings = config.read_model_config(model)
    return PanopticLoss(
        num_classes=_checked_classes(num_classes, settings),
        num_layers=_num_dual_path_layers(settings),
        is_thing=is_thing,
        pq_class_weight=loss.pq_class_weight,
        pq_mask_weight=loss.pq_mask_weight,
        mask_id_weight=loss.mask_id_weight,
        pixel_loss=losses_pb2.PixelLoss.Name(loss.pixel_loss),
        pixel_loss_weight=loss.pixel_loss_weight,
        pixel_loss_temperature=loss.pixel_loss_temperature,
        contrastive_pixels=loss.contrastive_pixels,
        contrastive_sampling_power=loss.contrastive_sampling_power,
        mask_approximation_weight=loss.mask_approximation_weight,
        semantic_weight=loss.semantic_weight,
        layer_weight=loss.layer_weight,
        matcher=losses_pb2.LossConfig.Matcher.Name(loss.matcher),
    )


def merge_options(evaluation: evaluation_pb2.EvaluationConfig) -> dict:
    """Keywords of `cmt.postprocess.merge_masks`.

    Example:
      >>> merge_options(evaluation_pb2.EvaluationConfig())["merge"]
      'MASK_WISE'
    """
    return dict(
        merge=evaluation_pb2.Merge.Name(evaluation.merge),
        thing_confidence=evaluation.thing_confidence,
        stuff_confidence=evaluation.stuff_confidence,
        pixel_confidence=evaluation.pixel_confidence,
        free_share=evaluation.free_share,
        class_power=evaluation.class_power,
        mask_power=evaluation.mask_power,
        min_thing_area_pixels=evaluation.min_thing_area_pixels,
        min_stuff_area_pixels=evaluation.min_stuff_area_pixels,
    )


def list_passes(evaluation: evaluation_pb2.EvaluationConfig) -> list[Pass]:
    """The passes over an image beside the plain one.

    Example:
      >>> config = evaluation_pb2.EvaluationConfig(flip=True, min_scale=0.75)
      >>> [(way.scale, way.is_flipped) for way in list_passes(config)]
      [(1.0, True), (0.75, False), (0.75, True)]
    """
    step = evaluation.scale_step
    scales = [1.0]
    for side, sign in ((1 - evaluation.min_scale, -1), (evaluation.max_scale - 1, 1)):
        # Fields are of 32 bits: 0.7 is 0.69999999.
        number = int(side / step + 1e-4)
        scales += [1 + sign * step * (index + 1) for index in range(number)]
    ways = (False, True) if evaluation.flip else (False,)
    return [Pass(scale, way) for scale in scales for way in ways][1:]
