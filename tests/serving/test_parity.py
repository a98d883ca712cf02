"""The gate of an export: what it asks, what it compares, what it reports."""

from __future__ import annotations

import collections
import json

import numpy as np
import pytest
import tensorflow as tf

from cmt.errors import WorkError
from cmt.serving import export, parity
from cmt.serving.saved_model import SIGNATURES
from tests import fakes

SAVED = dict(step=42, config_name="fake", config_text="name: 'fake'\n")


def run(predictor, requests) -> list[dict[str, np.ndarray]]:
    """What a SavedModel of the predictor answers."""
    methods = {
        "serving_default": predictor.predict,
        "image_bytes": predictor.predict_bytes,
        "png_bytes": predictor.predict_png,
    }
    answers = (methods[r.signature](*r.inputs.values()) for r in requests)
    return [{k: v.numpy() for k, v in answer.items()} for answer in answers]


def test_each_signature_is_asked_in_batches_of_1_2_and_5(samples):
    given = [*samples, *parity.made_up_images((97, 129))]
    asked = collections.defaultdict(list)
    contents = set()
    for request in parity.make_requests(given):
        (name,), (value,) = request.inputs.keys(), request.inputs.values()
        assert name == SIGNATURES[request.signature].input
        asked[request.signature].append(len(value))
        images = value.numpy()
        if name == "images":
            # No two of them are the same image.
            assert len({image.tobytes() for image in images}) == len(images)
        else:
            contents.update(images)
    assert asked == {name: [1, 2, 5] for name in SIGNATURES}
    assert contents == set(given)  # Real and made up, discs and noise.


def test_made_up_images():
    wide, high, noise = (
        tf.io.decode_image(i) for i in parity.made_up_images((97, 129))
    )
    assert wide.shape == (64, 160, 3) and high.shape == (114, 64, 3)
    assert noise.shape == (49, 65, 3) and 120 < noise.numpy().mean() < 135
    assert len(np.unique(wide.numpy().reshape(-1, 3), axis=0)) > 100


@pytest.mark.parametrize(
    ("signature", "name", "change", "reason"),
    [
        (
            "serving_default",
            "panoptic",
            lambda value: value + (np.arange(value.size) == 5).reshape(value.shape),
            "1 of ",
        ),
        ("image_bytes", "scores", lambda value: value + np.float32(2e-5), "tolerance"),
        ("image_bytes", "scores", lambda value: value * np.float32("nan"), "tolerance"),
        ("image_bytes", "is_thing", lambda value: ~value, "integers"),
        ("png_bytes", "sizes", lambda value: value.astype(np.int64), "expected int32"),
        ("png_bytes", "segment_ids", lambda value: None, "missing"),
        (
            "png_bytes",
            "panoptic_png",
            lambda value: np.array([*value[:-1], value[1]], object),
            "1 of 5 files",
        ),
    ],
)
def test_a_difference_leaves_nothing(
    tmp_path, predictor, samples, monkeypatch, signature, name, change, reason
):
    """As if the SavedModel were wrong in one output of one answer."""

    def answer(model_dir, requests):
        assert (model_dir / "saved_model.pb").is_file()
        answers = run(predictor, requests)
        last = max(i for i, r in enumerate(requests) if r.signature == signature)
        changed = change(answers[last].pop(name))
        if changed is not None:
            answers[last][name] = changed
        return answers, [0.0] * len(requests)

    monkeypatch.setattr(parity, "run_in_fresh_process", answer)
    told = f"output '{name}' of signature '{signature}': .*{reason}"
    with pytest.raises(WorkError, match=told):
        export.export_model(
            predictor, tmp_path / "models" / "m", samples=samples, **SAVED
        )
    assert not (tmp_path / "models" / "m").exists()


@pytest.mark.slow
def test_the_validation_report_lies_beside_the_model(tmp_path, predictor, samples):
    """In a process of its own, as an export runs it."""
    target = export.export_model(predictor, tmp_path / "m", samples=samples, **SAVED)
    reports = json.loads((target / "validation.json").read_text())
    assert reports.keys() == SIGNATURES.keys()
    for report in reports.values():
        assert report["status"] == "Pass"
        floats = report["outputs"]["FloatingPointDiffReport"]
        assert floats["max_diff"] <= 1e-5 == floats["all_close_absolute_tolerance"]
        assert floats["total"] == 8 * len(fakes.CENTERS)  # The scores of 8 images.
        others = report["outputs"]["NonFloatingPointDiffReport"]
        assert others["total_flattened_tensors"] == 3 * 5 and not others["mismatches"]
        assert report["latency"]["candidate"]["num_batches"] == 3
        assert report["latency"]["candidate"]["avg_in_ms"] > 0


def test_a_process_that_fails_is_reported(tmp_path, samples, monkeypatch):
    script = tmp_path / "script.py"
    monkeypatch.setattr(parity, "_SCRIPT", script)
    requests = parity.make_requests(samples)
    script.write_text("raise ValueError('no such op')")
    with pytest.raises(WorkError, match="ended with code 1: ValueError: no such op"):
        parity.run_in_fresh_process(tmp_path, requests)
    script.write_text(
        "import sys, numpy; numpy.savez(sys.argv[3], modules=numpy.array(['cmt']))"
    )
    with pytest.raises(WorkError, match="imported cmt"):
        parity.run_in_fresh_process(tmp_path, requests)
