"""Evaluation through files: what is written, what is scored, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cmt.data.input.pipeline import EvaluationBatch
from cmt.data.input.preprocess import resize_and_pad
from cmt.data.panoptic.masks import read_ids, write_ids
from cmt.errors import InputError
from cmt.evaluation.evaluate import evaluate, read_ground_truth
from cmt.evaluation.score import score_files
from tests import fakes

SIZES = [(65, 81), (48, 96), (120, 60)]


@pytest.fixture
def images():
    return [fakes.make_image(*size, shift=5 * i) for i, size in enumerate(SIZES)]


@pytest.fixture
def files(tmp_path, images):
    """COCO files that say exactly what the pictures show."""
    masks = tmp_path / "masks"
    masks.mkdir()
    content = {"categories": [c.to_json() for c in fakes.CATEGORIES]}
    content |= {"images": [], "annotations": []}
    for index, image in enumerate(images):
        ids = np.zeros(image.shape[:2], np.int32)
        segments = []
        for number, (color, contiguous) in enumerate(fakes.CENTERS, start=1):
            inside = (image == np.array(color, np.uint8)).all(-1)
            ids[inside] = number
            category = fakes.CATEGORIES[contiguous - 1].id
            area = int(inside.sum())
            segments.append({"id": number, "category_id": category, "area": area})
        name = f"picture{index}"
        write_ids(masks / f"{name}.png", ids)
        size = {"height": image.shape[0], "width": image.shape[1]}
        content["images"].append(
            {"id": 100 + index, "file_name": f"{name}.jpg", **size}
        )
        content["annotations"].append(
            {
                "image_id": 100 + index,
                "file_name": f"{name}.png",
                "segments_info": [{**s, "iscrowd": 0} for s in segments],
            }
        )
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    return path, masks


@pytest.fixture
def ground_truth(files):
    return read_ground_truth(*files)


def make_batches(images, names, crop_size, batch_size):
    for start in range(0, len(images), batch_size):
        chosen = images[start : start + batch_size]
        crops, resized = zip(
            *(resize_and_pad(tf.constant(i), crop_size) for i in chosen), strict=True
        )
        yield EvaluationBatch(
            images=tf.stack(crops),
            names=tf.constant(names[start : start + batch_size]),
            original_sizes=tf.constant([image.shape[:2] for image in chosen]),
            resized_sizes=tf.stack(resized),
        )


NAMES = [f"picture{index}" for index in range(len(SIZES))]


def test_evaluation_of_files(tmp_path, predictor, images, files, ground_truth):
    output = tmp_path / "out"
    batches = make_batches(images, NAMES, fakes.CROP_SIZE, 2)
    metrics = evaluate(
        predictor, batches, ground_truth, output, step=7, config_name="fake"
    )
    assert json.loads((output / "metrics.json").read_text()) == metrics
    assert metrics["step"] == 7 and metrics["config"] == "fake"
    assert metrics["num_images"] == 3 and metrics["images_per_second"] > 0
    # Edges are blurred by the stride, so not 100.
    assert metrics["panoptic"]["all"]["pq"] > 75
    assert metrics["panoptic"]["all"]["n"] == 4
    folder = output / "predictions"
    again = score_files(*files, folder / "panoptic.json", folder / "panoptic")
    assert again == metrics["panoptic"]
    for name, image in zip(NAMES, images, strict=True):
        served = predictor.predict(image[None])["panoptic"][0]
        written = read_ids(folder / "panoptic" / f"{name}.png")
        np.testing.assert_array_equal(written, served)
    content = json.loads((folder / "panoptic.json").read_text())
    assert [entry["id"] for entry in content["images"]] == [100, 101, 102]
    assert {path.name for path in output.iterdir()} == {
        "metrics.json",
        "per_image.csv",
        "predictions",
    }
    # The network is sure of every segment, so mask AP is there and high.
    assert metrics["panoptic"]["mask_ap"]["ap50"] > 95
    assert metrics["panoptic"]["semantic"]["miou"] > 75
    for entry in content["annotations"]:
        assert all(0.5 < info["score"] <= 1 for info in entry["segments_info"])


def test_only_evaluated_images_count(tmp_path, predictor, images, ground_truth):
    batches = make_batches(images[:1], ["picture0.jpg"], fakes.CROP_SIZE, 1)
    metrics = evaluate(
        predictor, batches, ground_truth, tmp_path / "out", step=0, config_name="fake"
    )
    assert metrics["num_images"] == 1
    counts = metrics["panoptic"]["per_class"]["7"]
    assert counts["tp"] + counts["fn"] == 2


def test_an_image_without_annotation(tmp_path, predictor, images, ground_truth):
    output = tmp_path / "out"
    batches = make_batches(images[:1], ["another"], fakes.CROP_SIZE, 1)
    with pytest.raises(InputError, match="no annotation of the image 'another'"):
        evaluate(predictor, batches, ground_truth, output, step=0, config_name="fake")
    assert not (output / "metrics.json").exists()
    assert not output.exists()


def test_no_image(tmp_path, predictor, ground_truth):
    with pytest.raises(InputError, match="no image to evaluate"):
        evaluate(predictor, [], ground_truth, tmp_path, step=0, config_name="fake")


def test_two_images_of_one_name(files):
    path, masks = files
    content = json.loads(path.read_text())
    content["images"][1]["file_name"] = "picture0.png"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="100 and 101 are both called 'picture0'"):
        read_ground_truth(path, masks)


def test_an_image_without_a_name(files):
    path, masks = files
    content = json.loads(path.read_text())
    del content["images"][1]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match='image 101 has an annotation, but "images"'):
        read_ground_truth(path, masks)


def test_missing_ground_truth(tmp_path):
    with pytest.raises(InputError, match="no.json: no such annotation file"):
        read_ground_truth(tmp_path / "no.json", tmp_path)


def test_masks_are_pngs_of_the_right_size(tmp_path, predictor, images, ground_truth):
    Image.new("RGB", (3, 3)).save(ground_truth.masks / "picture1.png")
    batches = make_batches(images, NAMES, fakes.CROP_SIZE, 3)
    with pytest.raises(InputError, match="picture1.png"):
        evaluate(
            predictor, batches, ground_truth, tmp_path / "o", step=0, config_name="f"
        )
    assert not (tmp_path / "o" / "metrics.json").exists()
