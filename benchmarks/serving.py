"""What a server takes for images of different sizes; no ratio.

    python benchmarks/serving.py MODEL [--signatures image_bytes,png_bytes] [--rounds 5]

MODEL is a version folder of `cmt export`. For each signature and size of a JPEG, in a
process of its own with TensorFlow alone: seconds to load, of the first answer and of
one (median), CPU seconds of one, bytes of the answer as gRPC sends it, and the most
memory the process had. The last rows are batches of four.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

SIZES = ((193, 193, 1), (480, 640, 1), (960, 1280, 1), (3024, 4032, 1), (480, 640, 4))


def measure(
    model: str, signature: str, height: int, width: int, batch: int, rounds: int
) -> dict[str, float]:
    """Runs in the process of its own."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import numpy as np
    import tensorflow as tf

    blocks = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    image = blocks[::16, ::16].repeat(16, 0).repeat(16, 1)[:height, :width]
    file = tf.io.encode_jpeg(image.astype(np.uint8)).numpy()
    start = time.perf_counter()
    run = tf.saved_model.load(model).signatures[signature]
    load = time.perf_counter() - start
    seconds, used = [], []
    for _ in range(rounds + 1):
        start, cpu = time.perf_counter(), time.process_time()
        outputs = run(image_bytes=tf.constant([file] * batch))
        protos = [tf.make_tensor_proto(value.numpy()) for value in outputs.values()]
        seconds.append(time.perf_counter() - start)
        used.append(time.process_time() - cpu)
    return {
        "load": load,
        "first": seconds[0],
        "seconds": statistics.median(seconds[1:]),
        "cpu": statistics.median(used[1:]),
        "answer": sum(proto.ByteSize() for proto in protos),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


def main() -> None:
    """Prints a line for each signature and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--signatures", default="image_bytes,png_bytes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        signature, *sizes = given.worker
        figures = measure(given.model, signature, *map(int, sizes), given.rounds)
        print(json.dumps(figures))
        return
    for signature in given.signatures.split(","):
        for size in SIZES:
            done = subprocess.run(
                [sys.executable, __file__, given.model, "--rounds", str(given.rounds)]
                + ["--worker", signature, *map(str, size)],
                stdout=subprocess.PIPE,
                check=True,
            )
            found = json.loads(done.stdout)
            height, width, batch = size
            print(
                f"{signature}, {batch} of {width}x{height}: load {found['load']:.1f} s,"
                f" first {found['first']:.1f} s, then {found['seconds']:.3f} s (CPU "
                f"{found['cpu']:.3f} s), answer {found['answer']:,} bytes, memory "
                f"{found['memory']:.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
