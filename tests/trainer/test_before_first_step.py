"""What a run needs for its evaluations is checked before its first step."""

from __future__ import annotations

import json

import pytest

from cmt.config import parse_experiment
from cmt.data.scenes.generate import generate_scenes
from cmt.errors import InputError
from cmt.trainer import factory
from cmt.trainer.train import train
from tests.data.conversions import convert


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Four images to train on, three to evaluate on; no network is built."""
    generate_scenes(tmp_path, train=4, val=3, size=65, seed=2, workers=1)
    for split in ("train", "val"):
        convert(
            images=tmp_path / "images" / split,
            annotations=tmp_path / "annotations" / f"panoptic_{split}.json",
            masks=tmp_path / "annotations" / f"panoptic_{split}",
            output=tmp_path / "out",
            split=split,
            workers=1,
        )

    def build_network(_):
        raise AssertionError("the network is built")

    monkeypatch.setattr(factory, "build_network", build_network)
    settings = [f'data.train.tfrecords="{tmp_path}/out/train-*.tfrecord"']
    settings += [f'data.validation.tfrecords="{tmp_path}/out/val-*.tfrecord"']
    settings += ["trainer.steps=2", "trainer.learning_rate.warmup_steps=0"]
    settings += ["trainer.evaluate_every_steps=2", "model.num_classes=10"]
    return parse_experiment("", "checked", [*settings, "trainer.global_batch_size=2"])


def _refused(experiment, folder, match) -> str:
    with pytest.raises(InputError, match=match) as error:
        train(experiment, folder / "run")
    assert not (folder / "run").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_whole_passes(experiment, tmp_path):
    with pytest.raises(AssertionError, match="the network is built"):
        train(experiment, tmp_path / "run")


@pytest.mark.parametrize("change", ["name", "order", "kind", "number"])
def test_other_classes_of_the_validation_split(experiment, tmp_path, change):
    path = tmp_path / "out" / "val.manifest.json"
    manifest = json.loads(path.read_text())
    classes = manifest["categories"]
    first = dict(classes[0])
    if change == "name":
        classes[0]["name"] = "sand dune"
    elif change == "order":
        classes[:2] = classes[1::-1]
    elif change == "kind":
        classes[0]["isthing"] = 1 - classes[0]["isthing"]
    else:
        del classes[-1]
    path.write_text(json.dumps(manifest))
    number = 10 if change == "number" else 1
    match = f"class {number} of the network is '.*, of the validation split "
    message = _refused(experiment, tmp_path, match)
    assert change == "number" or f"'{first['name']}' (id {first['id']}" in message
    assert change != "name" or "split 'sand dune' (id" in message
    assert change != "number" or "split none;" in message


def test_a_missing_png(experiment, tmp_path):
    masks = tmp_path / "annotations" / "panoptic_val"
    gone = sorted(masks.iterdir())[1]
    gone.unlink()
    message = _refused(experiment, tmp_path, "1 of 3 images to evaluate have no ground")
    assert gone.name in message
    experiment.evaluation.max_images = 1
    with pytest.raises(AssertionError, match="the network is built"):
        train(experiment, tmp_path / "run")


def test_an_image_without_annotation(experiment, tmp_path):
    path = tmp_path / "annotations" / "panoptic_val.json"
    truth = json.loads(path.read_text())
    gone = truth["annotations"].pop()
    path.write_text(json.dumps(truth))
    (name,) = [i["file_name"] for i in truth["images"] if i["id"] == gone["image_id"]]
    match = f"has no annotation of the image '{name.partition('.')[0]}'"
    _refused(experiment, tmp_path, match)


def test_a_damaged_record(experiment, tmp_path):
    (shard,) = (tmp_path / "out").glob("val-*.tfrecord")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    _refused(experiment, tmp_path, "val-.* a record cannot be read .*convert the split")


def test_without_evaluations_the_validation_split_is_not_opened(experiment, tmp_path):
    experiment.trainer.evaluate_every_steps = 0
    for file in (tmp_path / "out").glob("val*"):
        file.unlink()
    with pytest.raises(AssertionError, match="the network is built"):
        train(experiment, tmp_path / "run")
