"""Runs requests on a SavedModel with TensorFlow alone, as a server would.

`serving/export.py` runs the text of this file in a new Python process; nothing of
this package may be imported here.

Usage: MODEL_DIR REQUESTS.npz RESULTS.npz
  A key of the requests is INDEX/SIGNATURE/INPUT, of the results INDEX/OUTPUT. Encoded
  images are INDEX/SIGNATURE/INPUT/IMAGE, uint8 arrays of bytes. The results also hold
  "modules": the names of imported modules that belong to this package.
"""

from __future__ import annotations

import sys

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
    results = {}
    for (index, signature), inputs in requests.items():
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        for name, value in signatures[signature](**tensors).items():
            results[f"{index}/{name}"] = value.numpy()
    ours = [name for name in sys.modules if name.partition(".")[0] == "cmt"]
    np.savez(results_file, modules=np.array(ours, dtype=str), **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
