"""The kinds of optimizer, with what one of them needs."""

from __future__ import annotations

import importlib.util

import pytest

HAS_ADDONS = importlib.util.find_spec("tensorflow_addons") is not None

needs_addons = pytest.mark.skipif(
    not HAS_ADDONS,
    reason="NOT VERIFIED: RADAM_LOOKAHEAD and LAMB need tensorflow-addons, which "
    "exists for Python 3.10 and 3.11 only",
)
RADAM_LOOKAHEAD = pytest.param("RADAM_LOOKAHEAD", marks=needs_addons)
LAMB = pytest.param("LAMB", marks=needs_addons)
