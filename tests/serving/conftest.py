from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from cmt.serving import export
from cmt.serving.predictor import PanopticPredictor
from tests import fakes


@pytest.fixture(scope="session")
def predictor() -> PanopticPredictor:
    return fakes.make_predictor()


@pytest.fixture(scope="session")
def samples() -> list[bytes]:
    """A JPEG and a PNG, of two sizes."""
    images = [fakes.make_image(*size) for size in ((50, 70), (90, 40))]
    return [fakes.encode(images[0], "JPEG"), fakes.encode(images[1])]


@pytest.fixture(scope="session")
def served(predictor, samples, once) -> Path:
    """DIR/panoptic/1, for what has nothing to do with the gate."""

    def make(folder: Path) -> None:
        saved = dict(samples=samples, step=1, config_name="fake", config_text="")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export, "check_parity", lambda *_: {})
            export.export_model(predictor, folder / "panoptic", **saved)

    return once("served", make) / "panoptic" / "1"


@pytest.fixture(scope="session")
def serving_api() -> None:
    """Skips where the messages of TensorFlow Serving are not installed."""
    pytest.importorskip(
        "tensorflow_serving",
        reason="NOT VERIFIED: tensorflow-serving-api is not installed (extra: test)",
    )


@pytest.fixture(scope="session")
def signatures(served):
    """The signatures of the model in `served`, by name."""
    model = tf.saved_model.load(str(served))
    yield model.signatures
    del model  # Without it the variables are gone.
