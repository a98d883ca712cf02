from cmt.protos import options_pb2 as _options_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PixelLoss(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PIXEL_LOSS_UNSPECIFIED: _ClassVar[PixelLoss]
    PIXEL_CONTRASTIVE: _ClassVar[PixelLoss]
    INSTANCE_DISCRIMINATION: _ClassVar[PixelLoss]
PIXEL_LOSS_UNSPECIFIED: PixelLoss
PIXEL_CONTRASTIVE: PixelLoss
INSTANCE_DISCRIMINATION: PixelLoss

class LossConfig(_message.Message):
    __slots__ = ("pq_class_weight", "pq_mask_weight", "mask_id_weight", "pixel_loss", "pixel_loss_weight", "pixel_loss_temperature", "contrastive_pixels", "contrastive_sampling_power", "mask_approximation_weight", "semantic_weight", "layer_weight", "matcher")
    class Matcher(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MATCHER_UNSPECIFIED: _ClassVar[LossConfig.Matcher]
        AUTO: _ClassVar[LossConfig.Matcher]
        IN_GRAPH: _ClassVar[LossConfig.Matcher]
        HOST: _ClassVar[LossConfig.Matcher]
    MATCHER_UNSPECIFIED: LossConfig.Matcher
    AUTO: LossConfig.Matcher
    IN_GRAPH: LossConfig.Matcher
    HOST: LossConfig.Matcher
    PQ_CLASS_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    PQ_MASK_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MASK_ID_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    PIXEL_LOSS_FIELD_NUMBER: _ClassVar[int]
    PIXEL_LOSS_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    PIXEL_LOSS_TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    CONTRASTIVE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    CONTRASTIVE_SAMPLING_POWER_FIELD_NUMBER: _ClassVar[int]
    MASK_APPROXIMATION_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SEMANTIC_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    LAYER_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MATCHER_FIELD_NUMBER: _ClassVar[int]
    pq_class_weight: float
    pq_mask_weight: float
    mask_id_weight: float
    pixel_loss: PixelLoss
    pixel_loss_weight: float
    pixel_loss_temperature: float
    contrastive_pixels: int
    contrastive_sampling_power: float
    mask_approximation_weight: float
    semantic_weight: float
    layer_weight: float
    matcher: LossConfig.Matcher
    def __init__(self, pq_class_weight: _Optional[float] = ..., pq_mask_weight: _Optional[float] = ..., mask_id_weight: _Optional[float] = ..., pixel_loss: _Optional[_Union[PixelLoss, str]] = ..., pixel_loss_weight: _Optional[float] = ..., pixel_loss_temperature: _Optional[float] = ..., contrastive_pixels: _Optional[int] = ..., contrastive_sampling_power: _Optional[float] = ..., mask_approximation_weight: _Optional[float] = ..., semantic_weight: _Optional[float] = ..., layer_weight: _Optional[float] = ..., matcher: _Optional[_Union[LossConfig.Matcher, str]] = ...) -> None: ...
