from cmt.protos import options_pb2 as _options_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataConfig(_message.Message):
    __slots__ = ("train", "validation", "crop_height_pixels", "crop_width_pixels", "max_masks", "augmentation", "shuffle_buffer_images", "parallel_calls", "prefetch_batches", "cache_records")
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    CROP_HEIGHT_PIXELS_FIELD_NUMBER: _ClassVar[int]
    CROP_WIDTH_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_MASKS_FIELD_NUMBER: _ClassVar[int]
    AUGMENTATION_FIELD_NUMBER: _ClassVar[int]
    SHUFFLE_BUFFER_IMAGES_FIELD_NUMBER: _ClassVar[int]
    PARALLEL_CALLS_FIELD_NUMBER: _ClassVar[int]
    PREFETCH_BATCHES_FIELD_NUMBER: _ClassVar[int]
    CACHE_RECORDS_FIELD_NUMBER: _ClassVar[int]
    train: DatasetConfig
    validation: DatasetConfig
    crop_height_pixels: int
    crop_width_pixels: int
    max_masks: int
    augmentation: AugmentationConfig
    shuffle_buffer_images: int
    parallel_calls: int
    prefetch_batches: int
    cache_records: bool
    def __init__(self, train: _Optional[_Union[DatasetConfig, _Mapping]] = ..., validation: _Optional[_Union[DatasetConfig, _Mapping]] = ..., crop_height_pixels: _Optional[int] = ..., crop_width_pixels: _Optional[int] = ..., max_masks: _Optional[int] = ..., augmentation: _Optional[_Union[AugmentationConfig, _Mapping]] = ..., shuffle_buffer_images: _Optional[int] = ..., parallel_calls: _Optional[int] = ..., prefetch_batches: _Optional[int] = ..., cache_records: bool = ...) -> None: ...

class DatasetConfig(_message.Message):
    __slots__ = ("tfrecords", "manifest", "annotations", "masks")
    TFRECORDS_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    tfrecords: str
    manifest: str
    annotations: str
    masks: str
    def __init__(self, tfrecords: _Optional[str] = ..., manifest: _Optional[str] = ..., annotations: _Optional[str] = ..., masks: _Optional[str] = ...) -> None: ...

class AugmentationConfig(_message.Message):
    __slots__ = ("min_scale", "max_scale", "scale_step", "flip_probability")
    MIN_SCALE_FIELD_NUMBER: _ClassVar[int]
    MAX_SCALE_FIELD_NUMBER: _ClassVar[int]
    SCALE_STEP_FIELD_NUMBER: _ClassVar[int]
    FLIP_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    min_scale: float
    max_scale: float
    scale_step: float
    flip_probability: float
    def __init__(self, min_scale: _Optional[float] = ..., max_scale: _Optional[float] = ..., scale_step: _Optional[float] = ..., flip_probability: _Optional[float] = ...) -> None: ...
