"""The fake network of the tests around prediction."""

from __future__ import annotations

import pytest

from tests import fakes


@pytest.fixture(scope="session")
def predictor():
    """A predictor around the fake network; nobody changes it."""
    return fakes.make_predictor()
