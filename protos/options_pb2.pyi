from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor
RULE_FIELD_NUMBER: _ClassVar[int]
rule: _descriptor.FieldDescriptor

class Rule(_message.Message):
    __slots__ = ("min", "max", "above_min", "multiple_of", "remainder")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    ABOVE_MIN_FIELD_NUMBER: _ClassVar[int]
    MULTIPLE_OF_FIELD_NUMBER: _ClassVar[int]
    REMAINDER_FIELD_NUMBER: _ClassVar[int]
    min: float
    max: float
    above_min: bool
    multiple_of: int
    remainder: int
    def __init__(self, min: _Optional[float] = ..., max: _Optional[float] = ..., above_min: bool = ..., multiple_of: _Optional[int] = ..., remainder: _Optional[int] = ...) -> None: ...
