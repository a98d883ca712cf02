"""The fake network of the tests around prediction."""

from __future__ import annotations

import importlib.util
import types

import pytest


@pytest.fixture(scope="session")
def fakes(checkout) -> types.ModuleType:
    """tests/fakes.py."""
    spec = importlib.util.spec_from_file_location(
        "fakes", checkout / "tests" / "fakes.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def predictor(fakes):
    """A predictor around the fake network; nobody changes it."""
    return fakes.make_predictor()
