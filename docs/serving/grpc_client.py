"""Segments image files through the gRPC API of TensorFlow Serving.

    pip install tensorflow-serving-api==2.15.1 pillow numpy
    python grpc_client.py photo.jpg other.png [--address localhost:8500] [--model NAME]

Each file's map comes back as a COCO panoptic PNG, some 20 kB, and is written beside it.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def segment(address: str, model: str, files: list[bytes]) -> dict[str, np.ndarray]:
    """Asks signature `png_bytes`; returns the outputs, with the batch in front."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "png_bytes"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files, tf.string))
    # Enough for png_bytes. The integers of image_bytes take 4 bytes a pixel: for maps
    # above 4 MiB give options=[("grpc.max_receive_message_length", -1)].
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            answer = stub.Predict(request, timeout=120)
        except grpc.RpcError as error:
            # Such as: an image must be a JPEG or PNG file; got another at index 1
            sys.exit(f"refused, {error.code().name}: {error.details()}")
    return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--address", default="localhost:8500")
    parser.add_argument("--model", default="panoptic")
    given = parser.parse_args()
    files = [path.read_bytes() for path in given.files]
    outputs = segment(given.address, given.model, files)
    for index, path in enumerate(given.files):
        content = outputs["panoptic_png"][index]
        target = path.with_name(f"{path.stem}_panoptic.png")
        target.write_bytes(content)
        colors = np.asarray(Image.open(io.BytesIO(content))).astype(np.int32)
        ids = colors @ [1, 256, 65536]
        print(f"{path}: {ids.shape[1]} x {ids.shape[0]}, map in {target}")
        for number, score in zip(
            outputs["segment_ids"][index], outputs["scores"][index], strict=True
        ):
            if number:  # Segments are in front, then come zeros.
                area = np.count_nonzero(ids == number)
                print(f"  category {number // 1000}: {area} pixels, score {score:.2f}")


if __name__ == "__main__":
    main()
