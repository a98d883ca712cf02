"""What every test may use: quiet TensorFlow, the checkout, the shared material."""

from __future__ import annotations

import fcntl
import gc
import os
import pathlib
import signal
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("MPLBACKEND", "Agg")
# A program runs once or twice here: LLVM would optimise it for longer than that takes.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)
if "PYTEST_XDIST_WORKER" in os.environ:
    # Each process has a core of its own.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402

# Tracing makes objects by the hundred thousand, and few of them are garbage.
gc.set_threshold(50_000, 20, 20)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # In the background of a shell: the programs that tests interrupt would ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """What tests write need not outlive a crash; a busy disk takes 50 ms for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _plain_graphs():
    """Graphs run as they were traced: to optimise one takes longer than to run it."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    # What the libraries made at their import is never garbage.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _graphs_and_networks_go_with_their_module(request, _plain_graphs):
    """Lets go of what a module of tests has built, which the collector would walk.

    TensorFlow keeps the gradient of each `tf.custom_gradient` call, and so its graph.
    What the last module leaves goes with the process.
    """
    from tensorflow.python.framework import ops

    gc.collect()
    registry = ops.gradient_registry._registry
    known = set(registry)
    yield
    for name in set(registry) - known:
        del registry[name]
    for value in vars(request.module).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


@pytest.fixture(scope="session")
def checkout() -> pathlib.Path:
    """The folder of the checkout the tests run from."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of reference data: $CMT_SHARED, or `shared` beside the checkout.

    It is no part of the package. Tests that need it are skipped where it is missing,
    and the summary of the run says so.
    """
    folder = pathlib.Path(os.environ.get("CMT_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden" / "README.md").is_file():
        pytest.skip(
            f"NOT VERIFIED: no reference data at {folder} (golden/README.md is"
            " missing); set CMT_SHARED to its folder"
        )
    return folder.resolve()


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable[..., pathlib.Path]:
    """`once(name, make)`: a folder that `make(folder)` fills, once for all processes.

    Who comes second waits. Nobody changes what is in it.
    """

    def build(name: str, make: Callable[[pathlib.Path], object]) -> pathlib.Path:
        run = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            run = run.parent
        folder, done = run / name, run / f"{name}.done"
        with (run / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return build
