"""Whether a TPU can run the training step: it is compiled as far as XLA's input, HLO.

No TPU is needed. What is refused: operations that call the host or that XLA does not
know, shapes that depend on values, and numbers of 64 bits in floating point.
What comes out is what the TPU compiler takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from cmt.data.panoptic.categories import Category
from cmt.errors import WorkError, tensorflow_reason
from cmt.outputs import Targets
from cmt.protos.experiment_pb2 import ExperimentConfig
from cmt.trainer import factory
from cmt.trainer.trainer import Trainer

_HOST = "calls the host"
_DYNAMIC = "has a shape that depends on values"
_DOUBLE = "is float64 or complex128"
_UNKNOWN = "is not known to XLA"
_NAMED_AT_MOST = 5

# TensorFlow's operations, by the beginning of their names.
_REFUSED_OPERATIONS = (
    (("PyFunc", "EagerPyFunc", "Print", "Assert", "HostConst", "XlaHost"), _HOST),
    (("Outfeed", "Infeed", "XlaSendToHost", "XlaRecvFromHost"), _HOST),
    (("Where", "Unique", "SetDiff", "ListDiff", "DynamicPartition"), _DYNAMIC),
    (("String", "AsString", "Substr", "ReadFile", "WriteFile", "Decode"), _UNKNOWN),
    (("Hash", "LookupTable", "RandomShuffle", "CropAndResize"), _UNKNOWN),
)
# XLA writes single constants in float64 and converts them when it compiles; whatever
# is computed in float64 has another instruction of that type.
_REFUSED_INSTRUCTIONS = (
    (re.compile(r"\[(?:[^\]]*,)?<=\d"), _DYNAMIC),
    (re.compile(r"= (?!f64\[\] constant)\(?(?:[^=]*, )?(?:f64|c128)\["), _DOUBLE),
    (re.compile(r" (?:outfeed|infeed|send|recv)(?:-done)?\("), _HOST),
)
_CUSTOM_CALL = re.compile(r'custom_call_target="([^"]+)"')
# XLA itself makes them, for any device.
_DEVICE_CALLS = ("TopK", "Sharding")


class Finding(NamedTuple):
    """One thing that a TPU cannot do.

    Attributes:
      operation: kind of TensorFlow operation it comes from, "?" where not known.
      name: of the operation, with the layers it is in.
      rule: what is wrong.
    """

    operation: str
    name: str
    rule: str

    def __str__(self) -> str:
        return f"{self.operation} {self.name} {self.rule}"


class Lowered(NamedTuple):
    """A training step as XLA gets it, before its optimisations.

    Attributes:
      text: of the HLO module, for people.
      module: the same, a serialised HloModuleProto.
    """

    text: str
    module: bytes


def lower_config(experiment: ExperimentConfig, *, batch: int) -> Lowered:
    """As `lower`, of the trainer that a config describes, on one device.

    Args:
      experiment: its global batch size is set to `batch`; the classes are made up.
      batch: images a device has.
    """
    experiment.trainer.global_batch_size = batch
    categories = [
        Category(i, f"c{i}", i % 2 == 0, (i, 0, 0))
        for i in range(1, experiment.model.num_classes + 1)
    ]
    network = factory.build_network(experiment)
    trainer = factory.build_trainer(experiment, network, categories)
    data = experiment.data
    size = [batch, data.crop_height_pixels, data.crop_width_pixels]
    pixels = tf.TensorSpec(size, tf.int32)
    masks = tf.TensorSpec([batch, data.max_masks], tf.int32)
    targets = Targets(pixels, pixels, masks, tf.TensorSpec([batch], tf.int32))
    return lower(trainer, tf.TensorSpec([*size, 3], tf.float32), targets)


def lower(trainer: Trainer, images: tf.TensorSpec, targets: Targets) -> Lowered:
    """Compiles the training step of a replica to HLO; refuses what TPUs cannot do.

    Args:
      trainer: whose step; built outside a strategy with several replicas.
      images: [B, H, W, 3], all numbers known.
      targets: of tf.TensorSpec, all numbers known; None where a batch has None.

    Raises:
      WorkError: an operation cannot be on a TPU; it names the first ones.
    """
    fields = [name for name in Targets._fields if getattr(targets, name) is not None]

    @tf.function(jit_compile=True, autograph=False)
    def step(images, *values):
        # Names, because a signature of tuples cannot be compiled by TensorFlow 2.15.
        batch = dict.fromkeys(Targets._fields) | dict(zip(fields, values, strict=True))
        return trainer.train_step((images, Targets(**batch)))

    specs = [images, *(getattr(targets, name) for name in fields)]
    for spec in specs:
        if not spec.shape.is_fully_defined():
            raise ValueError(f"shapes must be known; got {spec}")
    _refuse(find_in_graph(step.get_concrete_function(*specs).graph))
    try:
        ir = step.experimental_get_compiler_ir(*specs)
        lowered = Lowered(ir(stage="hlo"), ir(stage="hlo_serialized"))
    except (ValueError, tf.errors.OpError) as error:
        raise WorkError(
            "the training step cannot be compiled for a TPU: "
            f"{tensorflow_reason(error)}; replace that operation"
        ) from error
    _refuse(find_in_hlo(lowered.text))
    return lowered


def find_in_graph(graph: tf.Graph) -> list[Finding]:
    """What in a graph, or in functions that it calls, cannot be on a TPU."""
    definition = graph.as_graph_def()
    nodes = [*definition.node]
    for function in definition.library.function:
        nodes += function.node_def
    return [
        Finding(node.op, node.name, rule)
        for node in nodes
        for beginnings, rule in _REFUSED_OPERATIONS
        if node.op.startswith(beginnings)
    ]


def find_in_hlo(text: str) -> list[Finding]:
    """What in the text of an HLO module cannot be on a TPU."""
    return [
        Finding(_metadata(line, "op_type"), _metadata(line, "op_name"), rule)
        for line in text.splitlines()
        for rule in _rules_broken(line)
    ]


def _rules_broken(line: str) -> Iterator[str]:
    for pattern, rule in _REFUSED_INSTRUCTIONS:
        if pattern.search(line):
            yield rule
    call = _CUSTOM_CALL.search(line)
    if call and call.group(1) not in _DEVICE_CALLS:
        yield f"calls '{call.group(1)}', which is not XLA's own"


def _metadata(line: str, name: str) -> str:
    found = re.search(rf'{name}="([^"]*)"', line)
    return found.group(1) if found else "?"


def _refuse(findings: list[Finding]) -> None:
    if not findings:
        return
    different = list(dict.fromkeys(map(str, findings)))
    more = len(different) - _NAMED_AT_MOST
    raise WorkError(
        "the training step cannot be on a TPU: "
        + "; ".join(different[:_NAMED_AT_MOST])
        + (f"; and {more} more" if more > 0 else "")
    )
