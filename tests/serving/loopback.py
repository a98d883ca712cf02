"""`python -m tests.serving.loopback MODEL`: a model behind the official gRPC stub.

It has the messages of TensorFlow Serving, and is no TensorFlow Serving. It prints its
port, and ends with its standard input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from concurrent import futures

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class _Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, signatures: Mapping[str, Callable]):
        self._signatures = signatures

    def Predict(self, request, context):
        inputs = {
            name: tf.constant(tf.make_ndarray(value))
            for name, value in request.inputs.items()
        }
        signature = self._signatures[request.model_spec.signature_name]
        try:
            outputs = signature(**inputs)
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        answer = predict_pb2.PredictResponse()
        for name, value in outputs.items():
            proto = tf.make_tensor_proto(value.numpy(), value.dtype)
            answer.outputs[name].CopyFrom(proto)
        return answer


def start_server(
    signatures: Mapping[str, Callable], threads: int = 1
) -> tuple[grpc.Server, int]:
    """Starts a server; returns it and its port."""
    server = grpc.server(futures.ThreadPoolExecutor(threads))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _Servicer(signatures), server
    )
    port = server.add_insecure_port("localhost:0")
    server.start()
    return server, port


if __name__ == "__main__":
    model = tf.saved_model.load(sys.argv[1])
    server, port = start_server(model.signatures, threads=2)
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None)
