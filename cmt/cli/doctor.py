"""`cmt doctor`: what is installed, what works, what to do."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

import cmt

_PACKAGE = "cmt-deeplab"
_OPTIONAL = {
    "tensorflow-addons": "only the optimizers RADAM_LOOKAHEAD and LAMB need it"
}
_OPTIONAL_CHECKS = ("optimizers",)
_REINSTALL = "run `pip install .` in the folder of its source, in a new environment"
_WITH_GPU = "run `pip install '.[gpu]'` in the folder of its source"
_DEVICE_FILES = Path("/dev")


class Finding(NamedTuple):
    """The result of a check.

    Attributes:
      kind: "version", "device" or "check".
      name: what was looked at.
      state: "ok"; "note" for what can be done without; "problem" for what cannot.
      found: a version, or what happened.
      fix: what to do; "" where nothing has to be done.
    """

    kind: str
    name: str
    state: str
    found: str
    fix: str = ""


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print json instead of lines.")
    ] = False,
) -> None:
    """Check the installation: versions, devices, what works and what to do.

    The exit code is 0 if all that is needed works, and 1 otherwise.

    \b
    Example:
      cmt doctor
    """
    findings = list(find())
    problems = [f for f in findings if f.state == "problem"]
    if as_json:
        result = {
            "ok": not problems,
            "cmt": cmt.__version__,
            "findings": [finding._asdict() for finding in findings],
        }
        print(json.dumps(result, indent=2))
    else:
        _print(findings, len(problems))
    if problems:
        raise typer.Exit(1)


def _print(findings: list[Finding], num_problems: int) -> None:
    width = max(len(finding.name) for finding in findings)
    print(f"cmt {cmt.__version__}")
    for finding in findings:
        print(f"{finding.state:7}  {finding.name:{width}}  {finding.found}")
        if finding.fix:
            print(f"{'':7}  {'':{width}}  -> {finding.fix}")
    if num_problems:
        print(f"problems: {num_problems}; an arrow says what to do")
    else:
        print("all that is needed works")


def find() -> Iterator[Finding]:
    """Looks at versions, then at devices, then tries what the commands need."""
    yield _python()
    yield from _packages()
    broken = _tensorflow_import()
    yield broken
    if broken.state != "problem":
        yield from _devices()
        for name, check, fix in _CHECKS:
            yield _try(name, check, fix)


def _python() -> Finding:
    supported = (3, 10) <= sys.version_info[:2] <= (3, 13)
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    fix = "" if supported else "use Python 3.10, 3.11, 3.12 or 3.13"
    return Finding("version", "Python", "ok" if supported else "problem", found, fix)


def _packages() -> Iterator[Finding]:
    """The packages that ours requires on this Python, and their versions."""
    from importlib import metadata

    try:
        required = metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        found = "not installed, so that nobody can say which versions it needs"
        yield Finding("version", _PACKAGE, "note", found, _REINSTALL)
        return
    try:
        from packaging.requirements import Requirement
    except ImportError:
        fix = "pip install packaging"
        yield Finding("version", "packaging", "problem", "not installed", fix)
        return
    for text in required:
        requirement = Requirement(text)
        name, marker = requirement.name, requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            yield _version(name, requirement)
        elif name in _OPTIONAL and "extra" not in str(marker):
            found = f"not for this Python ({marker}); {_OPTIONAL[name]}"
            yield Finding("version", name, "ok", found)


def _version(name: str, requirement: Any) -> Finding:
    from importlib import metadata

    wanted = f"pip install '{name}{requirement.specifier}'"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        if name in _OPTIONAL:
            found = f"not installed; {_OPTIONAL[name]}"
            return Finding("version", name, "note", found, wanted)
        return Finding("version", name, "problem", "not installed", wanted)
    if requirement.specifier.contains(version, prereleases=True):
        return Finding("version", name, "ok", version)
    found = f"{version}, must be {requirement.specifier}"
    state = "note" if name in _OPTIONAL else "problem"
    return Finding("version", name, state, found, wanted)


def _tensorflow_import() -> Finding:
    """Imports TensorFlow in a process of its own, which it may end."""
    import signal
    import subprocess

    name = "import tensorflow"
    done = subprocess.run(
        [sys.executable, "-c", "import tensorflow, tf_keras"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return Finding("check", name, "ok", "with tf_keras")
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if done.returncode > 0:
        return Finding("check", name, "problem", last, _REINSTALL)
    died = signal.Signals(-done.returncode).name
    lacks_avx = "TensorFlow's wheels need a processor with AVX; use another machine"
    fix = lacks_avx if died in ("SIGILL", "SIGABRT") else _REINSTALL
    return Finding("check", name, "problem", f"ended by {died}: {last}", fix)


def _devices() -> Iterator[Finding]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    yield Finding("device", "CPU", "ok", f"{os.cpu_count()} cores")
    for gpu in gpus:
        details = tf.config.experimental.get_device_details(gpu)
        yield Finding("device", "GPU", "ok", details.get("device_name", gpu.name))
    if gpus:
        return
    there = sorted(str(path) for path in _DEVICE_FILES.glob("nvidia[0-9]*"))
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not there:
        found, state, fix = "none; training and prediction run on the CPU", "ok", ""
    elif hidden in ("", "-1"):
        found, state = f"hidden by CUDA_VISIBLE_DEVICES={hidden}", "note"
        fix = "unset CUDA_VISIBLE_DEVICES"
    elif not tf.test.is_built_with_cuda():
        found, state = f"{there[0]} is there, but this TensorFlow has no CUDA", "note"
        fix = _WITH_GPU
    else:
        found, state = f"{there[0]} is there, but TensorFlow cannot use it", "note"
        fix = f"{_WITH_GPU}; `nvidia-smi` must list the GPU"
    yield Finding("device", "GPU", state, found, fix)


def _try(name: str, check: Callable[[], str], fix: str) -> Finding:
    try:
        return Finding("check", name, "ok", check())
    except Exception as error:  # Whatever is broken is what is to be told.
        first = next(iter(str(error).strip().splitlines()), "no message")
        found = f"{type(error).__name__}: {first}"
        state = "note" if name in _OPTIONAL_CHECKS else "problem"
        return Finding("check", name, state, found, fix)


def _check_graph() -> str:
    """Multiplies matrices on every device, in a graph."""
    import numpy as np
    import tensorflow as tf

    multiply = tf.function(lambda a: tf.linalg.matmul(a, a))
    matrix = np.array([[1, 2], [3, 4]], np.float32)
    devices = [d.name for kind in ("CPU", "GPU") for d in _logical(kind)]
    for device in devices:
        with tf.device(device):
            result = multiply(tf.constant(matrix)).numpy()
        if not np.allclose(result, [[7, 10], [15, 22]]):
            raise ValueError(f"{device} multiplies wrongly: {result.tolist()}")
    return f"right on {len(devices)} device{'s' if len(devices) > 1 else ''}"


def _logical(kind: str) -> list[Any]:
    import tensorflow as tf

    return tf.config.list_logical_devices(kind)


def _check_network() -> str:
    """Builds the smallest network of the package and segments an empty picture."""
    import numpy as np

    from cmt.factory import build_model

    network = build_model("scenes/tiny")
    logits = network(np.zeros((1, 33, 33, 3), np.float32), training=False).mask_logits
    if not np.isfinite(logits.numpy()).all():
        raise ValueError("the network computes what is not finite")
    return "scenes/tiny builds and runs"


def _check_images() -> str:
    """Writes a JPEG with Pillow, and reads it with TensorFlow."""
    import io

    import numpy as np
    import tensorflow as tf
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (16, 8), (200, 100, 50)).save(file, "JPEG", quality=95)
    image = tf.io.decode_jpeg(file.getvalue()).numpy()
    if image.shape != (8, 16, 3) or np.abs(image - np.array([200, 100, 50])).max() > 4:
        raise ValueError("TensorFlow and Pillow disagree about a JPEG")
    return "Pillow writes and TensorFlow reads a JPEG"


def _check_masks() -> str:
    """Encodes a mask for mask AP."""
    import numpy as np
    from pycocotools import mask

    area = int(mask.area(mask.encode(np.asfortranarray(np.eye(5, dtype=np.uint8)))))
    if area != 5:
        raise ValueError(f"the area of a mask must be 5; got {area}")
    return "pycocotools encodes a mask"


def _check_addons() -> str:
    from importlib.util import find_spec

    from cmt.trainer.optimizer import build_optimizer

    if find_spec("tensorflow_addons") is None:
        return "RADAM_LOOKAHEAD and LAMB are not available; ADAM and ADAMW are"
    build_optimizer("RADAM_LOOKAHEAD", variables=[], learning_rate=0.1)
    return "ADAM, ADAMW, RADAM_LOOKAHEAD and LAMB are available"


def _check_export() -> str:
    import cmt.serving.export  # noqa: F401

    return "orbax-export is there"


def _check_training() -> str:
    import cmt.trainer.train  # noqa: F401

    return "what `cmt train` and TensorBoard need is there"


_CHECKS: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("graph", _check_graph, "update the driver, or set CUDA_VISIBLE_DEVICES=-1"),
    ("network", _check_network, _REINSTALL),
    ("images", _check_images, "pip install --force-reinstall Pillow"),
    ("masks", _check_masks, "pip install --force-reinstall pycocotools"),
    ("training", _check_training, _REINSTALL),
    (
        "optimizers",
        _check_addons,
        "choose ADAM or ADAMW, or reinstall tensorflow-addons",
    ),
    ("export", _check_export, "pip install --force-reinstall 'orbax-export<0.1'"),
)
