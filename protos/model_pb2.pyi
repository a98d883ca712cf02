from cmt.protos import options_pb2 as _options_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Activation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVATION_UNSPECIFIED: _ClassVar[Activation]
    GELU: _ClassVar[Activation]
    RELU: _ClassVar[Activation]

class AssignmentRule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ASSIGNMENT_RULE_UNSPECIFIED: _ClassVar[AssignmentRule]
    CROSS_ATTENTION: _ClassVar[AssignmentRule]
    CLUSTERING: _ClassVar[AssignmentRule]
    KMEANS: _ClassVar[AssignmentRule]

class Precision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRECISION_UNSPECIFIED: _ClassVar[Precision]
    KERAS_POLICY: _ClassVar[Precision]
    FLOAT32: _ClassVar[Precision]
    MIXED_BFLOAT16: _ClassVar[Precision]
ACTIVATION_UNSPECIFIED: Activation
GELU: Activation
RELU: Activation
ASSIGNMENT_RULE_UNSPECIFIED: AssignmentRule
CROSS_ATTENTION: AssignmentRule
CLUSTERING: AssignmentRule
KMEANS: AssignmentRule
PRECISION_UNSPECIFIED: Precision
KERAS_POLICY: Precision
FLOAT32: Precision
MIXED_BFLOAT16: Precision

class ModelConfig(_message.Message):
    __slots__ = ("num_classes", "num_centers", "activation", "backbone", "decoder", "transformer", "location", "heads", "auxiliary_semantic", "norm", "rfn", "recompute", "precision")
    NUM_CLASSES_FIELD_NUMBER: _ClassVar[int]
    NUM_CENTERS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    TRANSFORMER_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    AUXILIARY_SEMANTIC_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    RFN_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    num_classes: int
    num_centers: int
    activation: Activation
    backbone: BackboneConfig
    decoder: DecoderConfig
    transformer: TransformerConfig
    location: LocationConfig
    heads: HeadsConfig
    auxiliary_semantic: AuxiliarySemanticConfig
    norm: NormConfig
    rfn: bool
    recompute: RecomputeConfig
    precision: Precision
    def __init__(self, num_classes: _Optional[int] = ..., num_centers: _Optional[int] = ..., activation: _Optional[_Union[Activation, str]] = ..., backbone: _Optional[_Union[BackboneConfig, _Mapping]] = ..., decoder: _Optional[_Union[DecoderConfig, _Mapping]] = ..., transformer: _Optional[_Union[TransformerConfig, _Mapping]] = ..., location: _Optional[_Union[LocationConfig, _Mapping]] = ..., heads: _Optional[_Union[HeadsConfig, _Mapping]] = ..., auxiliary_semantic: _Optional[_Union[AuxiliarySemanticConfig, _Mapping]] = ..., norm: _Optional[_Union[NormConfig, _Mapping]] = ..., rfn: bool = ..., recompute: _Optional[_Union[RecomputeConfig, _Mapping]] = ..., precision: _Optional[_Union[Precision, str]] = ...) -> None: ...

class RecomputeConfig(_message.Message):
    __slots__ = ("bottleneck_blocks", "axial_blocks", "transformer_layers", "stem", "heads")
    BOTTLENECK_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    AXIAL_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    TRANSFORMER_LAYERS_FIELD_NUMBER: _ClassVar[int]
    STEM_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    bottleneck_blocks: bool
    axial_blocks: bool
    transformer_layers: bool
    stem: bool
    heads: bool
    def __init__(self, bottleneck_blocks: bool = ..., axial_blocks: bool = ..., transformer_layers: bool = ..., stem: bool = ..., heads: bool = ...) -> None: ...

class BackboneConfig(_message.Message):
    __slots__ = ("stem1_channels", "stem2_channels", "stem3_channels", "stage2_blocks", "stage3_blocks", "stage4_blocks", "stage5_blocks", "stage2_channels", "stage3_channels", "stage4_channels", "stage5_channels", "num_heads", "max_relative_positions", "drop_path_rate")
    STEM1_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    STEM2_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    STEM3_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    STAGE2_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    STAGE3_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    STAGE4_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    STAGE5_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    STAGE2_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    STAGE3_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    STAGE4_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    STAGE5_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    MAX_RELATIVE_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    DROP_PATH_RATE_FIELD_NUMBER: _ClassVar[int]
    stem1_channels: int
    stem2_channels: int
    stem3_channels: int
    stage2_blocks: int
    stage3_blocks: int
    stage4_blocks: int
    stage5_blocks: int
    stage2_channels: int
    stage3_channels: int
    stage4_channels: int
    stage5_channels: int
    num_heads: int
    max_relative_positions: int
    drop_path_rate: float
    def __init__(self, stem1_channels: _Optional[int] = ..., stem2_channels: _Optional[int] = ..., stem3_channels: _Optional[int] = ..., stage2_blocks: _Optional[int] = ..., stage3_blocks: _Optional[int] = ..., stage4_blocks: _Optional[int] = ..., stage5_blocks: _Optional[int] = ..., stage2_channels: _Optional[int] = ..., stage3_channels: _Optional[int] = ..., stage4_channels: _Optional[int] = ..., stage5_channels: _Optional[int] = ..., num_heads: _Optional[int] = ..., max_relative_positions: _Optional[int] = ..., drop_path_rate: _Optional[float] = ...) -> None: ...

class DecoderConfig(_message.Message):
    __slots__ = ("stronger", "stage5_layers", "stage4_layers", "basic_layers", "stride8_blocks", "stride4_blocks")
    STRONGER_FIELD_NUMBER: _ClassVar[int]
    STAGE5_LAYERS_FIELD_NUMBER: _ClassVar[int]
    STAGE4_LAYERS_FIELD_NUMBER: _ClassVar[int]
    BASIC_LAYERS_FIELD_NUMBER: _ClassVar[int]
    STRIDE8_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    STRIDE4_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    stronger: bool
    stage5_layers: int
    stage4_layers: int
    basic_layers: int
    stride8_blocks: int
    stride4_blocks: int
    def __init__(self, stronger: bool = ..., stage5_layers: _Optional[int] = ..., stage4_layers: _Optional[int] = ..., basic_layers: _Optional[int] = ..., stride8_blocks: _Optional[int] = ..., stride4_blocks: _Optional[int] = ...) -> None: ...

class TransformerConfig(_message.Message):
    __slots__ = ("center_channels", "bottleneck_channels", "key_channels", "value_channels", "num_heads", "ffn_channels", "assignment")
    CENTER_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    BOTTLENECK_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    KEY_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    VALUE_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    FFN_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    center_channels: int
    bottleneck_channels: int
    key_channels: int
    value_channels: int
    num_heads: int
    ffn_channels: int
    assignment: AssignmentRule
    def __init__(self, center_channels: _Optional[int] = ..., bottleneck_channels: _Optional[int] = ..., key_channels: _Optional[int] = ..., value_channels: _Optional[int] = ..., num_heads: _Optional[int] = ..., ffn_channels: _Optional[int] = ..., assignment: _Optional[_Union[AssignmentRule, str]] = ...) -> None: ...

class LocationConfig(_message.Message):
    __slots__ = ("enabled", "num_points", "mlp_channels", "coordinate_convolution")
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    NUM_POINTS_FIELD_NUMBER: _ClassVar[int]
    MLP_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    COORDINATE_CONVOLUTION_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    num_points: int
    mlp_channels: int
    coordinate_convolution: bool
    def __init__(self, enabled: bool = ..., num_points: _Optional[int] = ..., mlp_channels: _Optional[int] = ..., coordinate_convolution: bool = ...) -> None: ...

class HeadsConfig(_message.Message):
    __slots__ = ("center_feature_channels", "pixel_hidden_channels", "pixel_feature_channels")
    CENTER_FEATURE_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    PIXEL_HIDDEN_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    PIXEL_FEATURE_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    center_feature_channels: int
    pixel_hidden_channels: int
    pixel_feature_channels: int
    def __init__(self, center_feature_channels: _Optional[int] = ..., pixel_hidden_channels: _Optional[int] = ..., pixel_feature_channels: _Optional[int] = ...) -> None: ...

class AuxiliarySemanticConfig(_message.Message):
    __slots__ = ("enabled", "channels", "stage3_projection_channels", "stage2_projection_channels", "dropout_rate")
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    STAGE3_PROJECTION_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    STAGE2_PROJECTION_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_RATE_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    channels: int
    stage3_projection_channels: int
    stage2_projection_channels: int
    dropout_rate: float
    def __init__(self, enabled: bool = ..., channels: _Optional[int] = ..., stage3_projection_channels: _Optional[int] = ..., stage2_projection_channels: _Optional[int] = ..., dropout_rate: _Optional[float] = ...) -> None: ...

class NormConfig(_message.Message):
    __slots__ = ("momentum", "epsilon", "synchronized")
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    SYNCHRONIZED_FIELD_NUMBER: _ClassVar[int]
    momentum: float
    epsilon: float
    synchronized: bool
    def __init__(self, momentum: _Optional[float] = ..., epsilon: _Optional[float] = ..., synchronized: bool = ...) -> None: ...
