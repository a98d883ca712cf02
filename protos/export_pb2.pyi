from cmt.protos import options_pb2 as _options_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ExportConfig(_message.Message):
    __slots__ = ("version", "warmup_requests", "score_tolerance")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WARMUP_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    SCORE_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    version: int
    warmup_requests: int
    score_tolerance: float
    def __init__(self, version: _Optional[int] = ..., warmup_requests: _Optional[int] = ..., score_tolerance: _Optional[float] = ...) -> None: ...
