"""Segments image files through the REST API of TensorFlow Serving.

    python rest_client.py photo.jpg [--url http://localhost:8501] [--model NAME]

It needs Python alone. Files travel as base64, and maps come back as lists of integers:
for large images use gRPC and `png_bytes`, see grpc_client.py.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


def segment(url: str, model: str, files: list[bytes]) -> dict[str, list]:
    """Asks signature `image_bytes`; returns the outputs, with the batch in front."""
    encoded = [{"b64": base64.b64encode(file).decode("ascii")} for file in files]
    body = {"signature_name": "image_bytes", "inputs": {"image_bytes": encoded}}
    request = urllib.request.Request(
        f"{url}/v1/models/{model}:predict",
        data=json.dumps(body).encode("utf-8"),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["outputs"]
    except urllib.error.HTTPError as error:
        # Such as: an image must be a JPEG or PNG file; got another at index 1
        sys.exit(f"refused: {error.read().decode('utf-8', 'replace')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--url", default="http://localhost:8501")
    parser.add_argument("--model", default="panoptic")
    given = parser.parse_args()
    files = [path.read_bytes() for path in given.files]
    outputs = segment(given.url, given.model, files)
    for index, path in enumerate(given.files):
        height, width = outputs["sizes"][index]
        # Smaller images are padded to the largest of the request.
        panoptic = [row[:width] for row in outputs["panoptic"][index][:height]]
        print(f"{path}: {width} x {height}")
        for number, score in zip(
            outputs["segment_ids"][index], outputs["scores"][index], strict=True
        ):
            if number:  # Segments are in front, then come zeros.
                area = sum(row.count(number) for row in panoptic)
                print(f"  category {number // 1000}: {area} pixels, score {score:.2f}")


if __name__ == "__main__":
    main()
