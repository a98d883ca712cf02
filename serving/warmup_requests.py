"""Warm-up requests for TensorFlow Serving, which runs them when it loads a model.

The file is a TFRecord of `tensorflow.serving.PredictionLog`. The classes of that
message come with tensorflow-serving-api, which is not installed with this package;
the few fields used are declared here instead. Fields that hold a TensorProto are
declared as bytes, which have the same encoding.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

# Where TensorFlow Serving looks, below the version folder. It reads at most 1000.
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"

_STRING, _BYTES, _MESSAGE = 9, 12, 11  # FieldDescriptorProto.Type


class Request(NamedTuple):
    """A request to a signature.

    Attributes:
      signature: its name.
      inputs: name of each input -> tensor.
    """

    signature: str
    inputs: Mapping[str, tf.Tensor]


def write_warmup(folder: Path, model_name: str, requests: Sequence[Request]) -> None:
    """Writes the warm-up file of a version, unless there are no requests.

    Args:
      folder: the version folder.
      model_name: the name that TensorFlow Serving gives the model.
      requests: the requests, in order.
    """
    if not requests:
        return
    path = folder / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            writer.write(_encode(request, model_name))


def _encode(request: Request, model_name: str) -> bytes:
    log = prediction_log_class()()
    message = log.predict_log.request
    message.model_spec.name = model_name
    message.model_spec.signature_name = request.signature
    for name, tensor in request.inputs.items():
        proto = tf.make_tensor_proto(tensor.numpy(), dtype=tensor.dtype)
        message.inputs[name] = proto.SerializeToString()
    return log.SerializeToString(deterministic=True)


@functools.cache
def prediction_log_class() -> type[Message]:
    """Declares the message PredictionLog: the fields used here, under their numbers."""
    file = descriptor_pb2.FileDescriptorProto(
        name="prediction_log.proto", package="tensorflow.serving", syntax="proto3"
    )
    model_spec = file.message_type.add(name="ModelSpec")
    model_spec.field.add(name="name", number=1, type=_STRING, label=1)
    model_spec.field.add(name="signature_name", number=3, type=_STRING, label=1)

    request = file.message_type.add(name="PredictRequest")
    _message_field(request, "model_spec", 1, "ModelSpec")
    entry = request.nested_type.add(name="InputsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_STRING, label=1)
    entry.field.add(name="value", number=2, type=_BYTES, label=1)
    _message_field(request, "inputs", 2, "PredictRequest.InputsEntry", repeated=True)

    predict_log = file.message_type.add(name="PredictLog")
    _message_field(predict_log, "request", 1, "PredictRequest")
    log = file.message_type.add(name="PredictionLog")
    _message_field(log, "predict_log", 6, "PredictLog")

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("tensorflow.serving.PredictionLog")
    )


def _message_field(
    message: descriptor_pb2.DescriptorProto,
    name: str,
    number: int,
    type_name: str,
    *,
    repeated: bool = False,
) -> None:
    message.field.add(
        name=name,
        number=number,
        type=_MESSAGE,
        label=3 if repeated else 1,
        type_name=f".tensorflow.serving.{type_name}",
    )
