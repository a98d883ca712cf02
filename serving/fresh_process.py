"""Runs requests on a SavedModel with TensorFlow alone, as a server would.

`serving/parity.py` runs the text of this file in a new Python process; nothing of
this package may be imported here.

Usage: MODEL_DIR REQUESTS.npz RESULTS.npz
  A key of the requests is INDEX/SIGNATURE/INPUT, of the results INDEX/OUTPUT. Files are
  INDEX/SIGNATURE/INPUT/IMAGE and INDEX/OUTPUT/IMAGE, uint8 arrays of their bytes. The
  results also hold "modules", the names of imported modules that belong to this
  package, and "seconds", how long each request took.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import tensorflow as tf


def main(model_dir: str, requests_file: str, results_file: str) -> None:
    signatures = tf.saved_model.load(model_dir).signatures
    requests: dict[tuple[str, str], dict] = {}
    with np.load(requests_file) as arrays:
        for key in arrays.files:
            index, signature, name, *image = key.split("/")
            inputs = requests.setdefault((index, signature), {})
            if image:
                inputs.setdefault(name, []).append(arrays[key].tobytes())
            else:
                inputs[name] = arrays[key]
    results, seconds = {}, []
    for (index, signature), inputs in requests.items():
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        start = time.perf_counter()
        outputs = signatures[signature](**tensors)
        outputs = {name: value.numpy() for name, value in outputs.items()}
        seconds.append(time.perf_counter() - start)
        for name, value in outputs.items():
            if value.dtype == object:
                for image, content in enumerate(value):
                    file = np.frombuffer(content, np.uint8)
                    results[f"{index}/{name}/{image:06d}"] = file
            else:
                results[f"{index}/{name}"] = value
    ours = [name for name in sys.modules if name.partition(".")[0] == "cmt"]
    modules = np.array(ours, dtype=str)
    np.savez(results_file, modules=modules, seconds=np.array(seconds), **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
