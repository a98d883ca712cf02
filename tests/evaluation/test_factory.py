"""From a config, a checkpoint and TFRecords to scores, maps and a sheet."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from PIL import Image

from cmt.config import load_experiment, to_text
from cmt.data.panoptic.json import read_ids
from cmt.data.records.manifest import Manifest
from cmt.data.scenes.generate import generate_scenes
from cmt.errors import InputError
from cmt.evaluation import factory
from cmt.factory import build_model
from cmt.serving.predictor import write_categories
from tests.data.conversions import convert

_CHANGES = (
    "model.backbone.stage2_blocks=1",
    "model.backbone.stage3_blocks=1",
    "model.backbone.stage4_blocks=1",
    "model.decoder.stage5_layers=1",
    "model.decoder.stage4_layers=1",
    "evaluation.batch_size=2",
    "evaluation.thing_confidence=0",
    "evaluation.stuff_confidence=0",
    "evaluation.pixel_confidence=0.03",
    "evaluation.free_share=0",
    "evaluation.min_thing_area_pixels=0",
    "evaluation.min_stuff_area_pixels=0",
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Three generated images as TFRecords."""
    folder = tmp_path_factory.mktemp("scenes")
    generate_scenes(folder, train=0, val=3, size=65, seed=4, workers=1)
    convert(
        images=folder / "images" / "val",
        annotations=folder / "annotations" / "panoptic_val.json",
        masks=folder / "annotations" / "panoptic_val",
        output=folder / "tfrecords",
        split="val",
        workers=1,
    )
    return folder


@pytest.fixture(scope="module")
def experiment(scenes):
    pattern = scenes / "tfrecords" / "val-*.tfrecord"
    return load_experiment(
        "scenes/tiny", [*_CHANGES, f'data.validation.tfrecords="{pattern}"']
    )


@pytest.fixture(scope="module")
def run_dir(experiment, scenes, tmp_path_factory):
    """As training leaves it; the weights are those it starts from."""
    run_dir = tmp_path_factory.mktemp("run")
    tf_keras.utils.set_random_seed(0)
    network = build_model(experiment.model)
    network.build((None, *factory.crop_size(experiment), 3))
    step = tf.Variable(12, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=network, step=step)
    tf.train.CheckpointManager(checkpoint, run_dir / "checkpoints", 1).save()
    (run_dir / "config.textproto").write_text(to_text(experiment))
    manifest = Manifest.read(scenes / "tfrecords" / "val.manifest.json")
    write_categories(run_dir / factory.CATEGORIES_FILE, manifest.categories)
    return run_dir


@pytest.fixture(scope="module")
def segmenter(run_dir):
    """What `cmt predict` makes of the run directory."""
    return factory.open_model(run_dir)


@pytest.fixture(scope="module")
def loaded(segmenter):
    """Its predictor."""
    return segmenter.owner


def test_the_semantic_branch_is_left_out(experiment, loaded):
    assert experiment.model.auxiliary_semantic.enabled
    assert loaded.network.semantic_branch is None
    names = [variable.name for variable in loaded.network.variables]
    assert names and not [name for name in names if "semantic" in name]


def test_evaluation_and_prediction_agree(experiment, segmenter, scenes, tmp_path):
    loaded = segmenter.owner
    metrics = factory.evaluate_predictor(experiment, loaded, tmp_path, step=12)
    assert metrics["num_images"] == 3 and metrics["config"] == "tiny"
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert segmenter.categories == loaded.categories
    files = sorted((scenes / "images" / "val").iterdir())
    assert len(files) == 3
    for file in files:
        outputs = segmenter.run(tf.constant([file.read_bytes()]))
        written = read_ids(tmp_path / "predictions" / "panoptic" / f"{file.stem}.png")
        np.testing.assert_array_equal(outputs["panoptic"][0], written)


def test_images_and_ground_truth(experiment, scenes):
    images = factory.validation_images(experiment, 2)
    assert len(images) == 2
    annotations = json.loads((scenes / "annotations" / "panoptic_val.json").read_text())
    for (image, panoptic), entry in zip(
        images, annotations["annotations"], strict=False
    ):
        assert image.shape == (65, 65, 3) and image.dtype == np.uint8
        ids = read_ids(scenes / "annotations" / "panoptic_val" / entry["file_name"])
        for segment in entry["segments_info"]:
            found = np.unique(panoptic[ids == segment["id"]])
            expected = 0 if segment["iscrowd"] else segment["category_id"]
            assert found.size == 1 and found[0] // 1000 == expected


def test_sheet(experiment, loaded, tmp_path):
    factory.draw_clustering(experiment, loaded, tmp_path / "s.png", num_images=2)
    picture = Image.open(tmp_path / "s.png")
    # Image, ground truth, prediction, two layers, reference points; two rows.
    assert picture.size == (6 + 6 * 246, 24 + 6 + 2 * 246)


def test_categories_come_from_the_run_or_the_manifest(experiment, run_dir, tmp_path):
    prefix = tmp_path / "deep" / "runs" / "step-1"
    prefix.parent.mkdir(parents=True)
    prefix.with_name("step-1.index").touch()
    # Too far above the checkpoint to belong to it.
    (tmp_path / factory.CATEGORIES_FILE).write_text("[]")
    names = [category.name for category in factory.find_categories(experiment, prefix)]
    assert len(names) == 10
    checkpoints = run_dir / "checkpoints"
    for checkpoint in (run_dir, checkpoints, checkpoints / "ckpt-1"):
        found = factory.find_categories(load_experiment("scenes/tiny"), checkpoint)
        assert [category.name for category in found] == names
    bare = load_experiment(
        "scenes/tiny", ['data.validation.tfrecords=""', 'data.train.tfrecords=""']
    )
    with pytest.raises(InputError, match="no list of categories"):
        factory.find_categories(bare, prefix)


def test_a_missing_checkpoint_is_said_first(tmp_path):
    bare = load_experiment(
        "scenes/tiny", ['data.validation.tfrecords=""', 'data.train.tfrecords=""']
    )
    with pytest.raises(InputError, match="holds no checkpoint"):
        factory.load_predictor(bare, tmp_path)
    (tmp_path / "config.textproto").write_text(to_text(bare))
    with pytest.raises(InputError, match="holds no checkpoint"):
        factory.open_model(tmp_path)


def test_damaged_records_are_named(experiment, loaded, scenes, tmp_path):
    shutil.copytree(scenes / "tfrecords", tmp_path / "records")
    (shard,) = (tmp_path / "records").glob("*.tfrecord")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    pattern = f"{tmp_path}/records/val-*.tfrecord"
    damaged = experiment.__class__()
    damaged.CopyFrom(experiment)
    damaged.data.validation.tfrecords = pattern
    # The ground truth stays where it was.
    damaged.data.validation.annotations = str(
        scenes / "annotations" / "panoptic_val.json"
    )
    damaged.data.validation.masks = str(scenes / "annotations" / "panoptic_val")
    message = re.escape(f"{pattern}: a record cannot be read (")
    with pytest.raises(InputError, match=message):
        factory.evaluate_predictor(damaged, loaded, tmp_path / "out", step=12)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=message):
        factory.validation_images(damaged, 3)


def test_data_of_other_classes(experiment, loaded, tmp_path):
    with pytest.raises(InputError, match="got 10 and 9"):
        factory.build_predictor(experiment, loaded.network, loaded.categories[1:])
    swapped = factory.build_predictor(
        experiment, loaded.network, loaded.categories[::-1]
    )
    with pytest.raises(InputError, match="class 1 of the network is"):
        factory.evaluate_predictor(experiment, swapped, tmp_path / "out", step=0)
    assert not (tmp_path / "out").exists()
