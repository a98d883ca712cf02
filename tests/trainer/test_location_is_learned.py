"""A training that is long enough to tell whether points find their masks."""

from __future__ import annotations

import pytest
from look_inside import look_inside

from cmt.config import load_experiment
from cmt.data.input.open import Data
from cmt.data.scenes.generate import generate_scenes
from cmt.serving.factory import load_predictor
from cmt.trainer.train import train
from tests.data.conversions import convert

SIZE, STEPS = 97, 1200


@pytest.mark.slow
def test_points_find_their_masks(tmp_path):
    """Of scenes never seen, in scenes/tiny as it is but for size and length."""
    generate_scenes(tmp_path, train=800, val=64, size=SIZE, seed=0)
    for split in ("train", "val"):
        convert(
            images=tmp_path / "images" / split,
            annotations=tmp_path / "annotations" / f"panoptic_{split}.json",
            masks=tmp_path / "annotations" / f"panoptic_{split}",
            output=tmp_path / "tfrecords",
            split=split,
        )
    experiment = load_experiment(
        "scenes/tiny",
        [
            f'data.train.tfrecords="{tmp_path}/tfrecords/train-*.tfrecord"',
            f'data.validation.tfrecords="{tmp_path}/tfrecords/val-*.tfrecord"',
            f"data.crop_height_pixels={SIZE}",
            f"data.crop_width_pixels={SIZE}",
            f"trainer.steps={STEPS}",
        ],
    )
    train(experiment, tmp_path / "run")
    data = Data(experiment.data)
    predictor, _ = load_predictor(experiment, data, tmp_path / "run")
    *_, last = look_inside(predictor.network, data, 8)["location"]
    # Points that know nothing of the image: R2 of 0, a loss of 0.38.
    assert last["r2_h"] > 0.4
    assert last["r2_w"] > 0.4
    assert last["mask_approximation"] < 0.27
