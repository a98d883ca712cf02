from __future__ import annotations

import pytest

from cmt.serving.predictor import PanopticPredictor
from tests import fakes


@pytest.fixture(scope="module")
def predictor() -> PanopticPredictor:
    return fakes.make_predictor()


@pytest.fixture(scope="module")
def samples() -> list[bytes]:
    """A JPEG and a PNG, of two sizes."""
    images = [fakes.make_image(*size) for size in ((50, 70), (90, 40))]
    return [fakes.encode(images[0], "JPEG"), fakes.encode(images[1])]
