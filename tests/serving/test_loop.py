"""A thousand requests from two clients, some malformed, through the official stub."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from cmt.data.panoptic.masks import check_mask, color_ids, decode_mask
from cmt.io.decode import decode_image
from cmt.serving.saved_model import SIGNATURES
from tests import fakes

pytestmark = pytest.mark.slow
_CLIENTS, _REQUESTS, _MALFORMED = 2, 1000, 20


@pytest.fixture(scope="module")
def server(served, checkout, serving_api):
    """A process that serves, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.serving.loopback", served],
        cwd=checkout,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    yield process, int(process.stdout.readline())
    process.stdin.close()
    assert process.wait() == 0


def make_files() -> list[bytes]:
    """Photos and drawings from 1 x 1 to 640 x 480."""
    chance = random.Random(0)
    sizes = [(1, 1), (480, 640), (640, 480), (1, 300), fakes.CROP_SIZE]
    sizes += [(chance.randint(2, 400), chance.randint(2, 400)) for _ in range(15)]
    return [
        fakes.encode(fakes.make_image(*size, index), ("JPEG", "PNG")[index % 2])
        for index, size in enumerate(sizes)
    ]


class Client:
    """Sends requests one after the other and compares the answers."""

    def __init__(self, port: int, predictor, files: list[bytes], offline: list[dict]):
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        self._files, self._offline = files, offline
        options = [("grpc.max_receive_message_length", -1)]
        channel = grpc.insecure_channel(f"localhost:{port}", options=options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.answered = self.refused = 0

    def run(self, seed: int) -> None:
        chance = random.Random(seed)
        number = _REQUESTS // _CLIENTS
        malformed = set(chance.sample(range(number), _MALFORMED // _CLIENTS))
        for turn in range(number):
            chosen = chance.choices(range(len(self._files)), k=chance.randint(1, 4))
            if turn in malformed:
                self._send_malformed(chance, chosen)
                self.refused += 1
            else:
                self._compare(chance.choice(list(SIGNATURES)), chosen)
                self.answered += 1

    def _ask(self, signature: str, name: str, value: object) -> dict[str, np.ndarray]:
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.signature_name = signature
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        outputs = self._stub.Predict(request, timeout=120).outputs
        return {name: tf.make_ndarray(value) for name, value in outputs.items()}

    def _compare(self, signature: str, chosen: list[int]) -> None:
        if signature == "serving_default":
            chosen = chosen[:1] * len(chosen)
            image = decode_image(self._files[chosen[0]]).numpy()
            images = np.stack([image] * len(chosen))
            found = self._ask(signature, "images", images)
        else:
            files = [self._files[index] for index in chosen]
            found = self._ask(signature, "image_bytes", files)
        assert all(len(value) == len(chosen) for value in found.values())
        for place, index in enumerate(chosen):
            expected = self._offline[index]
            height, width = expected["sizes"]
            if signature == "png_bytes":
                png = found["panoptic_png"][place]
                panoptic = color_ids(decode_mask(png, check_mask(png)))
            else:
                panoptic = found["panoptic"][place, :height, :width]
                assert np.count_nonzero(panoptic) == np.count_nonzero(
                    found["panoptic"][place]
                )
            np.testing.assert_array_equal(panoptic, expected["panoptic"])
            for name in ("sizes", "segment_ids", "category_ids", "scores", "is_thing"):
                np.testing.assert_array_equal(found[name][place], expected[name])

    def _send_malformed(self, chance: random.Random, chosen: list[int]) -> None:
        import grpc

        files = [self._files[index] for index in chosen]
        place = chance.randrange(len(files))
        half = files[place][: len(files[place]) // 2]
        files[place] = chance.choice([b"", b"no image", half, b"GIF89a" + half])
        with pytest.raises(grpc.RpcError) as refused:
            self._ask(chance.choice(["image_bytes", "png_bytes"]), "image_bytes", files)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f"index] [{place}]" in refused.value.details()


def resident_bytes(process: subprocess.Popen) -> int:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * 4096


def test_a_thousand_requests(server, predictor):
    process, port = server
    files = make_files()
    offline = [
        {name: value.numpy()[0] for name, value in predictor.predict_bytes([f]).items()}
        for f in files
    ]
    clients = [Client(port, predictor, files, offline) for _ in range(_CLIENTS)]
    memory = []
    with futures.ThreadPoolExecutor(_CLIENTS) as pool:
        running = [pool.submit(c.run, seed) for seed, c in enumerate(clients)]
        while not all(one.done() for one in running):
            done = sum(client.answered + client.refused for client in clients)
            memory.append((done, resident_bytes(process)))
            time.sleep(0.02)
        for one in running:
            one.result()
    assert process.poll() is None
    assert sum(client.answered for client in clients) == _REQUESTS - _MALFORMED
    assert sum(client.refused for client in clients) == _MALFORMED
    first, last = (
        statistics.median(b for done, b in memory if low <= done < low + 200)
        for low in (200, 800)
    )
    print(f"resident: {first / 1e6:.0f} MB, then {last / 1e6:.0f} MB")
    assert last < 1.05 * first
