from cmt.protos import options_pb2 as _options_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataConfig(_message.Message):
    __slots__ = ("train", "validation", "crop_height_pixels", "crop_width_pixels", "max_masks", "augmentation", "parallel_calls", "prefetch_batches", "cache_records", "snapshot_folder", "skip_damaged_records", "min_thing_pixels", "service", "test", "categories")
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    CROP_HEIGHT_PIXELS_FIELD_NUMBER: _ClassVar[int]
    CROP_WIDTH_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_MASKS_FIELD_NUMBER: _ClassVar[int]
    AUGMENTATION_FIELD_NUMBER: _ClassVar[int]
    PARALLEL_CALLS_FIELD_NUMBER: _ClassVar[int]
    PREFETCH_BATCHES_FIELD_NUMBER: _ClassVar[int]
    CACHE_RECORDS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FOLDER_FIELD_NUMBER: _ClassVar[int]
    SKIP_DAMAGED_RECORDS_FIELD_NUMBER: _ClassVar[int]
    MIN_THING_PIXELS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    TEST_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    train: DatasetConfig
    validation: DatasetConfig
    crop_height_pixels: int
    crop_width_pixels: int
    max_masks: int
    augmentation: AugmentationConfig
    parallel_calls: int
    prefetch_batches: int
    cache_records: bool
    snapshot_folder: str
    skip_damaged_records: bool
    min_thing_pixels: int
    service: str
    test: TestConfig
    categories: str
    def __init__(self, train: _Optional[_Union[DatasetConfig, _Mapping]] = ..., validation: _Optional[_Union[DatasetConfig, _Mapping]] = ..., crop_height_pixels: _Optional[int] = ..., crop_width_pixels: _Optional[int] = ..., max_masks: _Optional[int] = ..., augmentation: _Optional[_Union[AugmentationConfig, _Mapping]] = ..., parallel_calls: _Optional[int] = ..., prefetch_batches: _Optional[int] = ..., cache_records: bool = ..., snapshot_folder: _Optional[str] = ..., skip_damaged_records: bool = ..., min_thing_pixels: _Optional[int] = ..., service: _Optional[str] = ..., test: _Optional[_Union[TestConfig, _Mapping]] = ..., categories: _Optional[str] = ...) -> None: ...

class TestConfig(_message.Message):
    __slots__ = ("images", "list")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    images: str
    list: str
    def __init__(self, images: _Optional[str] = ..., list: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("min_scale", "max_scale", "scale_step", "flip_probability", "color_jitter", "policy", "copy_paste")
    MIN_SCALE_FIELD_NUMBER: _ClassVar[int]
    MAX_SCALE_FIELD_NUMBER: _ClassVar[int]
    SCALE_STEP_FIELD_NUMBER: _ClassVar[int]
    FLIP_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    COLOR_JITTER_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    COPY_PASTE_FIELD_NUMBER: _ClassVar[int]
    min_scale: float
    max_scale: float
    scale_step: float
    flip_probability: float
    color_jitter: ColorJitterConfig
    policy: PolicyConfig
    copy_paste: CopyPasteConfig
    def __init__(self, min_scale: _Optional[float] = ..., max_scale: _Optional[float] = ..., scale_step: _Optional[float] = ..., flip_probability: _Optional[float] = ..., color_jitter: _Optional[_Union[ColorJitterConfig, _Mapping]] = ..., policy: _Optional[_Union[PolicyConfig, _Mapping]] = ..., copy_paste: _Optional[_Union[CopyPasteConfig, _Mapping]] = ...) -> None: ...

class ColorJitterConfig(_message.Message):
    __slots__ = ("brightness", "contrast", "saturation", "hue")
    BRIGHTNESS_FIELD_NUMBER: _ClassVar[int]
    CONTRAST_FIELD_NUMBER: _ClassVar[int]
    SATURATION_FIELD_NUMBER: _ClassVar[int]
    HUE_FIELD_NUMBER: _ClassVar[int]
    brightness: float
    contrast: float
    saturation: float
    hue: float
    def __init__(self, brightness: _Optional[float] = ..., contrast: _Optional[float] = ..., saturation: _Optional[float] = ..., hue: _Optional[float] = ...) -> None: ...

class PolicyConfig(_message.Message):
    __slots__ = ("num_operations", "magnitude")
    NUM_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    MAGNITUDE_FIELD_NUMBER: _ClassVar[int]
    num_operations: int
    magnitude: float
    def __init__(self, num_operations: _Optional[int] = ..., magnitude: _Optional[float] = ...) -> None: ...

class CopyPasteConfig(_message.Message):
    __slots__ = ("probability", "min_scale", "max_scale", "thing_probability", "stuff_probability", "things", "stuff")
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    MIN_SCALE_FIELD_NUMBER: _ClassVar[int]
    MAX_SCALE_FIELD_NUMBER: _ClassVar[int]
    THING_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    STUFF_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    THINGS_FIELD_NUMBER: _ClassVar[int]
    STUFF_FIELD_NUMBER: _ClassVar[int]
    probability: float
    min_scale: float
    max_scale: float
    thing_probability: float
    stuff_probability: float
    things: str
    stuff: str
    def __init__(self, probability: _Optional[float] = ..., min_scale: _Optional[float] = ..., max_scale: _Optional[float] = ..., thing_probability: _Optional[float] = ..., stuff_probability: _Optional[float] = ..., things: _Optional[str] = ..., stuff: _Optional[str] = ...) -> None: ...
