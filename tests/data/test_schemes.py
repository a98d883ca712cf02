"""Everything after conversion, too, on paths with a scheme."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from cmt.cli.data import app
from cmt.config import parse_experiment
from cmt.data.input import open as factory
from cmt.data.input.inspect import find_sources, inspect
from cmt.data.input.pipeline import find_source
from cmt.data.records.tfrecord import INDEX_SUFFIX
from cmt.errors import InputError
from cmt.evaluation import factory as evaluation_factory
from cmt.evaluation.coco_format import read_panoptic_json
from cmt.io import storage
from cmt.io.files import atomic_write
from cmt.protos import data_pb2, experiment_pb2
from cmt.trainer import factory as trainer_factory
from tests.data.conversions import convert


def copy(source: pathlib.Path, target: str) -> None:
    """A file or a folder of files."""
    for path in sorted(source.iterdir()) if source.is_dir() else [source]:
        name = f"{target}/{path.name}" if source.is_dir() else target
        with atomic_write(name) as file:
            file.write(path.read_bytes())


@pytest.fixture(params=["file://", "ram://"])
def root(request, scene_sources, tmp_path) -> str:
    """The training scenes, and two shards of them as the split "val"."""
    root = f"{request.param}{tmp_path}/remote"
    sources = {"images": "images", "annotations": "train.json", "masks": "masks"}
    remote = {key: f"{root}/{name}" for key, name in sources.items()}
    for key, path in scene_sources.items():
        copy(path, remote[key])
    output = f"{root}/out"
    convert(**remote, output=output, split="val", limit=6, shards=2, workers=1)
    return root


@pytest.fixture
def local(scene_sources, tmp_path) -> pathlib.Path:
    """The same shards in a folder of this machine."""
    output = tmp_path / "local"
    convert(**scene_sources, output=output, split="val", limit=6, shards=2, workers=1)
    return output


def config_of(folder: object, **paths: str) -> data_pb2.DataConfig:
    split = data_pb2.DatasetConfig(tfrecords=f"{folder}/val-*.tfrecord", **paths)
    return data_pb2.DataConfig(
        train=split,
        validation=split,
        crop_height_pixels=49,
        crop_width_pixels=65,
        max_masks=12,
    )


def rows(dataset: tf.data.Dataset, count: int) -> list[np.ndarray]:
    return [part.numpy() for b in dataset.take(count) for part in tf.nest.flatten(b)]


def assert_same_batches(one: data_pb2.DataConfig, two: data_pb2.DataConfig) -> None:
    for make in (
        lambda c: factory.training_dataset(c, global_batch_size=2, seed=1),
        lambda c: factory.evaluation_dataset(c, batch_size=4),
    ):
        for a, b in zip(rows(make(one), 2), rows(make(two), 2), strict=True):
            np.testing.assert_array_equal(a, b)


def test_batches_and_manifest_are_those_of_local_shards(root, local):
    remote = config_of(f"{root}/out")
    assert_same_batches(remote, config_of(local))
    assert storage.is_file(f"{root}/out/val-00000-of-00002.tfrecord{INDEX_SUFFIX}")
    manifest = factory.validation_manifest(remote)
    assert manifest.annotations == f"{root}/train.json"
    assert manifest.masks == f"{root}/masks"
    assert manifest.folder == f"{root}/out"
    names = factory.record_names(remote, [0, 5])
    assert (
        names[0] == f"{root}/out/val-00000-of-00002.tfrecord: record 0 (000000000001)"
    )
    assert names[1].startswith(f"{root}/out/val-00001-of-00002.tfrecord: record ")


def test_ground_truth_of_the_config_keeps_its_scheme(root):
    given = {"annotations": f"{root}/train.json", "masks": f"{root}/masks"}
    manifest = factory.training_manifest(config_of(f"{root}/out", **given))
    assert (manifest.annotations, manifest.masks) == tuple(given.values())


def test_shards_without_manifest(root, local):
    storage.remove(f"{root}/out/val.manifest.json")
    pattern = f"{root}/out/val-*.tfrecord"
    with pytest.raises(InputError, match=f"{root}/out/val.manifest.json: no such"):
        find_source(pattern)
    annotations = f"{root}/train.json"
    source = find_source(pattern, annotations=annotations)
    assert source.num_images == 6
    assert source.manifest.annotations == annotations
    assert source.manifest.masks == f"{root}/train"
    assert source.manifest.folder == f"{root}/out"
    remote = config_of(f"{root}/out", annotations=annotations, masks=f"{root}/masks")
    assert factory.validation_manifest(remote).masks == f"{root}/masks"
    assert_same_batches(remote, config_of(local))


def test_inspection(root, local, tmp_path):
    (expected,) = find_sources([str(local)])
    expected = inspect(expected, picture=tmp_path / "a.png")
    for pattern in ("out", "out/val-*", "o*/val-0000?-of-00002.tfrecord"):
        (source,) = find_sources([f"{root}/{pattern}"])
        found = inspect(source, picture=tmp_path / "b.png")
        assert found.folder == f"{root}/out"
        assert dataclasses.replace(found, folder=str(local)) == expected
    pictures = [(tmp_path / name).read_bytes() for name in ("a.png", "b.png")]
    assert pictures[0] == pictures[1]
    with pytest.raises(InputError, match=f"{root}/none: no TFRecord file"):
        find_sources([f"{root}/none"])
    path = f"{root}/out/val-00001-of-00002.tfrecord"
    content = bytearray(storage.read_bytes(path))
    content[1000] ^= 1
    with atomic_write(path) as file:
        file.write(content)
    with pytest.raises(InputError, match=f"{path}: its SHA-256 differs"):
        inspect(source)


def test_inspection_from_the_command_line(root, tmp_path):
    command = ["inspect", f"{root}/out", "--json", "--output"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "pictures")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["folder"] == f"{root}/out"
    assert (tmp_path / "pictures" / "val.png").is_file()
    refused = CliRunner().invoke(app, [*command, f"{root}/pictures"])
    assert isinstance(refused.exception, InputError)
    assert "a folder of this machine" in str(refused.exception)
    assert not storage.is_folder(f"{root}/pictures")


def test_a_snapshot_is_on_this_machine(root):
    config = config_of(f"{root}/out")
    config.snapshot_folder = f"{root}/snapshots"
    with pytest.raises(InputError, match=r"snapshot_folder must be .* of this machine"):
        factory.training_dataset(config, global_batch_size=2, seed=1)


def experiment_of(root: str, **paths: str) -> experiment_pb2.ExperimentConfig:
    experiment = parse_experiment("", "defaults", ["trainer.global_batch_size=2"])
    experiment.data.CopyFrom(config_of(f"{root}/out", **paths))
    experiment.model.num_classes = 10
    return experiment


def test_evaluation_begins(root, monkeypatch, tmp_path):
    experiment = experiment_of(root)
    assert len(trainer_factory.training_categories(experiment)) == 10
    assert trainer_factory.validation_steps(experiment) == 3
    images = evaluation_factory.validation_images(experiment, 2)
    assert [image.shape for image, _ in images] == [(65, 65, 3)] * 2
    assert len(read_panoptic_json(f"{root}/train.json").annotations) == 24

    monkeypatch.setattr(evaluation_factory, "build_predictor", lambda *_: None)
    trainer = types.SimpleNamespace(
        network=None, distribute_strategy=tf.distribute.get_strategy()
    )
    arguments = (trainer, [], tmp_path)
    assert callable(trainer_factory.build_evaluation(experiment, *arguments))
    experiment = experiment_of(root, masks=f"{root}/none")
    with pytest.raises(InputError, match=f"{root}/none is no folder"):
        trainer_factory.build_evaluation(experiment, *arguments)
