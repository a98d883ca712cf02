"""What the ablation measures of a network; and (slow) its commands, end to end."""

from __future__ import annotations

import json
import pathlib

import ablation
import numpy as np
import pytest
import tensorflow as tf
from ablation_measure import read_curve, write_result
from ablation_results import counts_of, read
from ablation_rows import ROWS
from ablation_text import write_document
from look_inside import Seen, location_by_layer

from cmt.evaluation.bootstrap import panoptic_quality
from cmt.outputs import LayerPredictions, Predictions, Targets

NUM_CENTERS, NUM_CLASSES, SIZE = 5, 3, 33


def scene(boxes: list[tuple[int, int, int, int]]) -> Targets:
    """An image whose boxes (top, left, bottom, right) are masks of class 1, 2, ..."""
    semantic = np.zeros([1, SIZE, SIZE], np.int32)
    mask_ids = np.full([1, SIZE, SIZE], -1, np.int32)
    for number, (top, left, bottom, right) in enumerate(boxes):
        semantic[0, top:bottom, left:right] = number + 1
        mask_ids[0, top:bottom, left:right] = number
    classes = np.zeros([1, 4], np.int32)
    classes[0, : len(boxes)] = np.arange(len(boxes)) + 1
    return Targets(*map(tf.constant, (semantic, mask_ids, classes)))


def perfect(targets: Targets, centers: list[int], points: list[list]) -> Predictions:
    """Predictions in which center `centers[k]` stands for mask k.

    `points` has, for each layer, the (h, w) that all points of these centers have.
    """
    owner = targets.mask_ids.numpy()[0, ::4, ::4]
    logits = np.zeros([1, *owner.shape, NUM_CENTERS], np.float32)
    class_logits = np.zeros([1, NUM_CENTERS, NUM_CLASSES + 1], np.float32)
    for mask, center in enumerate(centers):
        logits[0, owner == mask, center] = 20
        class_logits[0, center, mask] = 20
    layers = []
    for of_layer in points:
        reference = np.full([1, NUM_CENTERS, 8, 2], 0.9, np.float32)
        for center, point in zip(centers, of_layer, strict=True):
            # Their mean is the point.
            reference[0, center] = np.add(point, [[0.02, -0.01], [-0.02, 0.01]] * 4)
        layers.append(LayerPredictions(None, tf.constant(reference)))
    return Predictions(
        mask_logits=tf.constant(logits),
        class_logits=tf.constant(class_logits),
        pixel_features=tf.zeros([1, *owner.shape, 2]),
        semantic_logits=None,
        layers=tuple(layers),
    )


def test_location_is_measured_at_the_centers_of_masks():
    # On the grid of stride 4, rows 0..2 and 4..6 of 8 steps and so on.
    scenes = [scene([(0, 0, 12, 8), (16, 20, 28, 32)]), scene([(8, 4, 32, 12)])]
    centroids = [[(1 / 8, 0.5 / 8), (5 / 8, 6 / 8)], [(4.5 / 8, 1.5 / 8)]]
    middle = np.mean([point for image in centroids for point in image], axis=0)
    seen = [
        Seen.of(targets, perfect(targets, chosen, [right, [middle] * len(right)]))
        for targets, chosen, right in zip(scenes, ([3, 1], [4]), centroids, strict=True)
    ]
    assert [batch.matched.sum() for batch in seen] == [2, 1]
    assert seen[0].matched[0].tolist() == [False, True, False, True, False]
    # Centers in the order of their numbers: 1 stands for the second mask.
    np.testing.assert_allclose(seen[0].centroids(), centroids[0][::-1], atol=1e-6)
    first, second = location_by_layer(seen)
    assert (first["r2_h"], first["r2_w"]) == pytest.approx((1, 1), abs=1e-3)
    assert (second["r2_h"], second["r2_w"]) == pytest.approx((0, 0), abs=1e-3)
    assert 0 < first["mask_approximation"] < second["mask_approximation"]


def test_curves_are_thinned_and_keep_validations(tmp_path):
    lines = [{"step": s, "total": s / 7, "gradient_norm": 1} for s in range(1, 101)]
    lines[41] |= {"validation/pq": 12.345678, "validation/pq_class": 1.0}
    lines[42] |= {"layer2/mask_approximation": None, "layer2/mask_id": 3.0}
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = {point["step"]: point for point in read_curve(path)}
    assert len(found) <= 26 and {42, 100} <= set(found)
    assert found[42] == {"step": 42, "total": 6.0, "validation/pq": 12.35}
    assert found[100] == {"step": 100, "total": 14.29}
    lines = lines[40:43]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    last = read_curve(path)[-1]
    assert last == {"step": 43, "total": 6.143, "layer2/mask_approximation": None}


def test_results_are_written_with_a_line_an_image(tmp_path):
    result = {
        "row": "full",
        "curve": [{"step": 1}, {"step": 2}],
        "categories": [[7, "disk", True], [9, "sky", False]],
        "images": {"b": [[1, 0.75, 1, 2, 3]], "a": []},
    }
    path = tmp_path / "result.json"
    write_result(path, result)
    text = path.read_text()
    assert json.loads(text) == result
    assert '\n  "b": [[1, 0.75, 1, 2, 3]],\n' in text
    counts = counts_of(result)
    assert counts.shape == (2, 2, 4)
    assert counts[0].sum() == 0 and counts[1, 1].tolist() == [0.75, 1, 2, 3]


@pytest.mark.slow
def test_commands_from_scenes_to_the_document(tmp_path, capsys):
    """Stopped before anything, run, run again: the second time nothing is left."""
    results = tmp_path / "ablation" / "results"
    settings = ("trainer.steps=2", "trainer.learning_rate.warmup_steps=0")
    settings += ("trainer.log_every_steps=1", "trainer.evaluate_every_steps=1")
    settings += ("data.crop_height_pixels=33", "data.crop_width_pixels=33")
    words = ["run", "--rows", "full", "--seeds", "0", "--jobs", "1"]
    words += ["--train", "9", "--val", "3", "--results", str(results)]
    words += ["--work", str(tmp_path / "work")]
    words += [word for change in settings for word in ("--set", change)]
    assert ablation.main([*words, "--hours", "0"]) == 0
    assert "time is up; 1 are left" in capsys.readouterr().out
    assert ablation.main(words) == 0
    assert "1 of 1 after" in capsys.readouterr().out
    assert ablation.main(words) == 0
    assert "1 of 1 trainings are done" in capsys.readouterr().out
    stale = [*words[:-1], "trainer.global_batch_size=4"]
    assert ablation.main(["run", *stale[1:], "--hours", "0"]) == 0
    assert "trainer.global_batch_size was 8, is 4" in capsys.readouterr().out
    assert ablation.main([*words, "--val", "4"]) == 2
    assert "holds scenes of" in capsys.readouterr().err
    found = read(results, changes=settings)
    assert not found.left_out
    full, merged = (found.by_row[name][0] for name in ("full", "mask_wise"))
    for result in (full, merged):
        quality = panoptic_quality(counts_of(result).sum(axis=0))
        assert quality == pytest.approx(result["pq"]["all"], abs=0.01)
        assert len(result["images"]) == 3 and result["step"] == 2
        assert len(result["location"]) == len(result["attention_density"]) == 3
        for layer in result["attention_density"]:
            assert 1 <= layer["attention"] <= layer["pixels"] == 9
    assert full["settings"].keys() - merged["settings"].keys() == {"evaluation.merge"}
    write_document(results, changes=settings)
    text = (tmp_path / "ablation.md").read_text()
    assert f"| {ROWS['full'].title} | 1 | {full['pq']['all']:.1f} |" in text
    assert "(ablation/full.png)" in text
    pictures = pathlib.Path(results).parent
    assert {p.name for p in pictures.glob("full*")} == {
        "full.png",
        "full_attention.png",
    }
