"""Everything after conversion, too, on paths with a scheme."""

from __future__ import annotations

import json
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from cmt.cli.data import app
from cmt.config import parse_experiment
from cmt.data.input.inspect import inspect
from cmt.data.input.open import Data, find_split, find_splits
from cmt.data.records.tfrecord import INDEX_SUFFIX
from cmt.errors import InputError
from cmt.evaluation.annotations import read_annotations
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


@pytest.fixture(params=[pytest.param("file://", marks=pytest.mark.slow), "ram://"])
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


def of_training(config: data_pb2.DataConfig) -> list[np.ndarray]:
    return rows(Data(config).train.batches(global_batch_size=2, seed=1), 2)


def of_evaluation(config: data_pb2.DataConfig) -> list[np.ndarray]:
    return rows(Data(config).validation.evaluation_batches(batch_size=4), 2)


def test_batches_and_manifest_are_those_of_local_shards(root, local):
    remote = config_of(f"{root}/out")
    for batches in (of_training, of_evaluation):
        np.testing.assert_equal(batches(remote), batches(config_of(local)))
    assert storage.is_file(f"{root}/out/val-00000-of-00002.tfrecord{INDEX_SUFFIX}")
    manifest = Data(remote).validation.manifest
    assert manifest.annotations == f"{root}/train.json"
    assert manifest.masks == f"{root}/masks"
    assert manifest.folder == f"{root}/out"
    names = Data(remote).train.names([0, 5])
    assert (
        names[0] == f"{root}/out/val-00000-of-00002.tfrecord: record 0 (000000000001)"
    )
    assert names[1].startswith(f"{root}/out/val-00001-of-00002.tfrecord: record ")


def test_ground_truth_of_the_config_keeps_its_scheme(root):
    given = {"annotations": f"{root}/train.json", "masks": f"{root}/masks"}
    manifest = Data(config_of(f"{root}/out", **given)).train.manifest
    assert (manifest.annotations, manifest.masks) == tuple(given.values())


def test_shards_without_manifest(root, local):
    storage.remove(f"{root}/out/val.manifest.json")
    pattern = f"{root}/out/val-*.tfrecord"
    with pytest.raises(InputError, match=f"{root}/out/val.manifest.json: no such"):
        find_split(pattern)
    annotations = f"{root}/train.json"
    split = find_split(pattern, annotations=annotations)
    assert split.num_images == 6
    assert split.manifest.annotations == annotations
    assert split.manifest.masks == f"{root}/train"
    assert split.manifest.folder == f"{root}/out"
    remote = config_of(f"{root}/out", annotations=annotations, masks=f"{root}/masks")
    assert Data(remote).validation.manifest.masks == f"{root}/masks"
    np.testing.assert_equal(of_evaluation(remote), of_evaluation(config_of(local)))


def test_inspection(root, local, tmp_path):
    (expected,) = find_splits([str(local)])
    expected = inspect(expected, picture=tmp_path / "a.png")
    patterns = ("out", "out/val-*", "o*/val-0000?-of-00002.tfrecord")
    split, *others = (find_splits([f"{root}/{pattern}"])[0] for pattern in patterns)
    assert others == [split, split]
    found = inspect(split, picture=tmp_path / "b.png")
    assert found.folder == f"{root}/out"
    assert found._replace(folder=str(local)) == expected
    pictures = [(tmp_path / name).read_bytes() for name in ("a.png", "b.png")]
    assert pictures[0] == pictures[1]
    with pytest.raises(InputError, match=f"{root}/none: no TFRecord file"):
        find_splits([f"{root}/none"])
    path = f"{root}/out/val-00001-of-00002.tfrecord"
    content = bytearray(storage.read_bytes(path))
    content[1000] ^= 1
    with atomic_write(path) as file:
        file.write(content)
    with pytest.raises(InputError, match=f"{path}: its SHA-256 differs"):
        inspect(split)


def test_inspection_from_the_command_line(root, tmp_path):
    command = ["inspect", f"{root}/out", "--json", "--output"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "pictures")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["folder"] == f"{root}/out"
    assert (tmp_path / "pictures" / "val.png").is_file()
    refused = CliRunner().invoke(app, [*command, f"{root}/pictures"])
    assert refused.exit_code == 2
    assert "must be on this machine; got" in refused.output
    assert not storage.is_folder(f"{root}/pictures")


def test_a_snapshot_is_on_this_machine(root):
    config = config_of(f"{root}/out")
    config.snapshot_folder = f"{root}/snapshots"
    with pytest.raises(InputError, match=r"snapshot_folder must be .* of this machine"):
        Data(config).train.batches(global_batch_size=2, seed=1)


def experiment_of(root: str, **paths: str) -> experiment_pb2.ExperimentConfig:
    experiment = parse_experiment("", "defaults", ["trainer.global_batch_size=2"])
    experiment.data.CopyFrom(config_of(f"{root}/out", **paths))
    experiment.model.num_classes = 10
    return experiment


def test_evaluation_begins(root, monkeypatch, tmp_path):
    experiment = experiment_of(root)
    data = Data(experiment.data)
    trainer_factory.check_categories(experiment, data.train.categories)
    assert trainer_factory.validation_steps(experiment, data.validation.num_images) == 3
    examples = data.validation.examples(range(2))
    assert [example.image.shape for example in examples] == [(65, 65, 3)] * 2
    assert len(read_annotations(f"{root}/train.json").images) == 24

    monkeypatch.setattr(trainer_factory, "build_predictor", lambda *_: None)
    trainer = types.SimpleNamespace(
        evaluated=None, distribute_strategy=tf.distribute.get_strategy()
    )
    assert callable(
        trainer_factory.build_evaluation(
            experiment,
            trainer,
            trainer_factory.open_validation(experiment, data),
            data.train.categories,
            tmp_path,
        )
    )
    experiment = experiment_of(root, masks=f"{root}/none")
    data = Data(experiment.data)
    with pytest.raises(InputError, match=f"{root}/none is no folder"):
        trainer_factory.open_validation(experiment, data)
