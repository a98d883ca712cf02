from cmt.protos import data_pb2 as _data_pb2
from cmt.protos import evaluation_pb2 as _evaluation_pb2
from cmt.protos import export_pb2 as _export_pb2
from cmt.protos import losses_pb2 as _losses_pb2
from cmt.protos import model_pb2 as _model_pb2
from cmt.protos import trainer_pb2 as _trainer_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExperimentConfig(_message.Message):
    __slots__ = ("name", "model", "data", "loss", "trainer", "evaluation", "export")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    TRAINER_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    EXPORT_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: _model_pb2.ModelConfig
    data: _data_pb2.DataConfig
    loss: _losses_pb2.LossConfig
    trainer: _trainer_pb2.TrainerConfig
    evaluation: _evaluation_pb2.EvaluationConfig
    export: _export_pb2.ExportConfig
    def __init__(self, name: _Optional[str] = ..., model: _Optional[_Union[_model_pb2.ModelConfig, _Mapping]] = ..., data: _Optional[_Union[_data_pb2.DataConfig, _Mapping]] = ..., loss: _Optional[_Union[_losses_pb2.LossConfig, _Mapping]] = ..., trainer: _Optional[_Union[_trainer_pb2.TrainerConfig, _Mapping]] = ..., evaluation: _Optional[_Union[_evaluation_pb2.EvaluationConfig, _Mapping]] = ..., export: _Optional[_Union[_export_pb2.ExportConfig, _Mapping]] = ...) -> None: ...
