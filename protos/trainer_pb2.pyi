from cmt.protos import options_pb2 as _options_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Schedule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEDULE_UNSPECIFIED: _ClassVar[Schedule]
    POLYNOMIAL: _ClassVar[Schedule]
    COSINE: _ClassVar[Schedule]
    CONSTANT: _ClassVar[Schedule]

class Optimizer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPTIMIZER_UNSPECIFIED: _ClassVar[Optimizer]
    ADAM: _ClassVar[Optimizer]
    ADAMW: _ClassVar[Optimizer]
    RADAM_LOOKAHEAD: _ClassVar[Optimizer]
    LAMB: _ClassVar[Optimizer]

class Strategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STRATEGY_UNSPECIFIED: _ClassVar[Strategy]
    AUTO: _ClassVar[Strategy]
    ONE_DEVICE: _ClassVar[Strategy]
    MIRRORED: _ClassVar[Strategy]
    TPU: _ClassVar[Strategy]
    MULTI_WORKER_MIRRORED: _ClassVar[Strategy]
SCHEDULE_UNSPECIFIED: Schedule
POLYNOMIAL: Schedule
COSINE: Schedule
CONSTANT: Schedule
OPTIMIZER_UNSPECIFIED: Optimizer
ADAM: Optimizer
ADAMW: Optimizer
RADAM_LOOKAHEAD: Optimizer
LAMB: Optimizer
STRATEGY_UNSPECIFIED: Strategy
AUTO: Strategy
ONE_DEVICE: Strategy
MIRRORED: Strategy
TPU: Strategy
MULTI_WORKER_MIRRORED: Strategy

class TrainerConfig(_message.Message):
    __slots__ = ("steps", "global_batch_size", "seed", "learning_rate", "optimizer", "strategy", "log_every_steps", "checkpoint_every_steps", "keep_checkpoints", "evaluate_every_steps", "initial_checkpoint", "allow_partial_backbone", "go_on_unsaved", "accumulation_steps", "steps_per_execution", "stall_seconds")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    LOG_EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    KEEP_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PARTIAL_BACKBONE_FIELD_NUMBER: _ClassVar[int]
    GO_ON_UNSAVED_FIELD_NUMBER: _ClassVar[int]
    ACCUMULATION_STEPS_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_EXECUTION_FIELD_NUMBER: _ClassVar[int]
    STALL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    steps: int
    global_batch_size: int
    seed: int
    learning_rate: LearningRateConfig
    optimizer: OptimizerConfig
    strategy: StrategyConfig
    log_every_steps: int
    checkpoint_every_steps: int
    keep_checkpoints: int
    evaluate_every_steps: int
    initial_checkpoint: str
    allow_partial_backbone: bool
    go_on_unsaved: bool
    accumulation_steps: int
    steps_per_execution: int
    stall_seconds: int
    def __init__(self, steps: _Optional[int] = ..., global_batch_size: _Optional[int] = ..., seed: _Optional[int] = ..., learning_rate: _Optional[_Union[LearningRateConfig, _Mapping]] = ..., optimizer: _Optional[_Union[OptimizerConfig, _Mapping]] = ..., strategy: _Optional[_Union[StrategyConfig, _Mapping]] = ..., log_every_steps: _Optional[int] = ..., checkpoint_every_steps: _Optional[int] = ..., keep_checkpoints: _Optional[int] = ..., evaluate_every_steps: _Optional[int] = ..., initial_checkpoint: _Optional[str] = ..., allow_partial_backbone: bool = ..., go_on_unsaved: bool = ..., accumulation_steps: _Optional[int] = ..., steps_per_execution: _Optional[int] = ..., stall_seconds: _Optional[int] = ...) -> None: ...

class LearningRateConfig(_message.Message):
    __slots__ = ("base", "power", "warmup_steps", "backbone_multiplier", "kind")
    BASE_FIELD_NUMBER: _ClassVar[int]
    POWER_FIELD_NUMBER: _ClassVar[int]
    WARMUP_STEPS_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    base: float
    power: float
    warmup_steps: int
    backbone_multiplier: float
    kind: Schedule
    def __init__(self, base: _Optional[float] = ..., power: _Optional[float] = ..., warmup_steps: _Optional[int] = ..., backbone_multiplier: _Optional[float] = ..., kind: _Optional[_Union[Schedule, str]] = ...) -> None: ...

class OptimizerConfig(_message.Message):
    __slots__ = ("kind", "beta1", "beta2", "epsilon", "weight_decay", "clip_global_norm", "average_decay")
    KIND_FIELD_NUMBER: _ClassVar[int]
    BETA1_FIELD_NUMBER: _ClassVar[int]
    BETA2_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    CLIP_GLOBAL_NORM_FIELD_NUMBER: _ClassVar[int]
    AVERAGE_DECAY_FIELD_NUMBER: _ClassVar[int]
    kind: Optimizer
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    clip_global_norm: float
    average_decay: float
    def __init__(self, kind: _Optional[_Union[Optimizer, str]] = ..., beta1: _Optional[float] = ..., beta2: _Optional[float] = ..., epsilon: _Optional[float] = ..., weight_decay: _Optional[float] = ..., clip_global_norm: _Optional[float] = ..., average_decay: _Optional[float] = ...) -> None: ...

class StrategyConfig(_message.Message):
    __slots__ = ("kind", "tpu", "logical_cpus", "intra_op_threads", "deterministic_ops")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TPU_FIELD_NUMBER: _ClassVar[int]
    LOGICAL_CPUS_FIELD_NUMBER: _ClassVar[int]
    INTRA_OP_THREADS_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_OPS_FIELD_NUMBER: _ClassVar[int]
    kind: Strategy
    tpu: str
    logical_cpus: int
    intra_op_threads: int
    deterministic_ops: bool
    def __init__(self, kind: _Optional[_Union[Strategy, str]] = ..., tpu: _Optional[str] = ..., logical_cpus: _Optional[int] = ..., intra_op_threads: _Optional[int] = ..., deterministic_ops: bool = ...) -> None: ...
