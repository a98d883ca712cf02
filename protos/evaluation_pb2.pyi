from cmt.protos import options_pb2 as _options_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Merge(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MERGE_UNSPECIFIED: _ClassVar[Merge]
    MASK_WISE: _ClassVar[Merge]
    PIXEL_WISE: _ClassVar[Merge]
MERGE_UNSPECIFIED: Merge
MASK_WISE: Merge
PIXEL_WISE: Merge

class EvaluationConfig(_message.Message):
    __slots__ = ("merge", "batch_size", "thing_confidence", "stuff_confidence", "pixel_confidence", "free_share", "class_power", "mask_power", "min_thing_area_pixels", "min_stuff_area_pixels", "max_images", "flip", "min_scale", "max_scale", "scale_step")
    MERGE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    THING_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    STUFF_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    PIXEL_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    FREE_SHARE_FIELD_NUMBER: _ClassVar[int]
    CLASS_POWER_FIELD_NUMBER: _ClassVar[int]
    MASK_POWER_FIELD_NUMBER: _ClassVar[int]
    MIN_THING_AREA_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MIN_STUFF_AREA_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGES_FIELD_NUMBER: _ClassVar[int]
    FLIP_FIELD_NUMBER: _ClassVar[int]
    MIN_SCALE_FIELD_NUMBER: _ClassVar[int]
    MAX_SCALE_FIELD_NUMBER: _ClassVar[int]
    SCALE_STEP_FIELD_NUMBER: _ClassVar[int]
    merge: Merge
    batch_size: int
    thing_confidence: float
    stuff_confidence: float
    pixel_confidence: float
    free_share: float
    class_power: float
    mask_power: float
    min_thing_area_pixels: int
    min_stuff_area_pixels: int
    max_images: int
    flip: bool
    min_scale: float
    max_scale: float
    scale_step: float
    def __init__(self, merge: _Optional[_Union[Merge, str]] = ..., batch_size: _Optional[int] = ..., thing_confidence: _Optional[float] = ..., stuff_confidence: _Optional[float] = ..., pixel_confidence: _Optional[float] = ..., free_share: _Optional[float] = ..., class_power: _Optional[float] = ..., mask_power: _Optional[float] = ..., min_thing_area_pixels: _Optional[int] = ..., min_stuff_area_pixels: _Optional[int] = ..., max_images: _Optional[int] = ..., flip: bool = ..., min_scale: _Optional[float] = ..., max_scale: _Optional[float] = ..., scale_step: _Optional[float] = ...) -> None: ...
