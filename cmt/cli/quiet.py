"""Keeps the start-up messages of TensorFlow off the terminal, and its import short."""

from __future__ import annotations

import contextlib
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from types import ModuleType

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def quiet_tensorflow() -> None:
    """Prepares this process and those it starts for a TensorFlow that is not loaded.

    Does nothing where the user has set TF_CPP_MIN_LOG_LEVEL to 0: that asks for all.
    """
    if os.environ.setdefault(_LEVEL, "3") == "0" or "tensorflow" in sys.modules:
        return
    # TensorFlow from 2.18 on reads that variable only after its first messages.
    if not any(isinstance(finder, _QuietImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietImport())


class _QuietImport(importlib.abc.MetaPathFinder):
    """Finds `tensorflow` as others do; its import writes nothing and is quicker."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """The specification of the module; None for any other than `tensorflow`."""
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_quietly(module: ModuleType) -> None:
                with _stderr_withheld(), _garbage_kept(), _jax_hidden():
                    execute(module)

            spec.loader.exec_module = execute_quietly
        return spec


@contextlib.contextmanager
def _stderr_withheld() -> Iterator[None]:
    """Withholds what is written to standard error, also past Python.

    If the block raises, all of it is shown: it may tell why.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as withheld:
        os.dup2(withheld.fileno(), 2)
        try:
            yield
        except Exception:
            sys.stderr.flush()
            withheld.seek(0)
            os.write(terminal, withheld.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


@contextlib.contextmanager
def _garbage_kept() -> Iterator[None]:
    """Keeps the collector from looking at an import's objects, which all stay.

    It goes through all of them again and again, for a quarter of TensorFlow's import.
    """
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if is_on:
            gc.enable()


@contextlib.contextmanager
def _jax_hidden() -> Iterator[None]:
    """Hides JAX from an import.

    TensorFlow imports it where it is installed, in a sixth of its own time, for a
    converter of JAX's programs that is of no use here.
    """
    if "jax" in sys.modules:
        yield
        return
    sys.modules["jax"] = None
    try:
        yield
    finally:
        del sys.modules["jax"]
