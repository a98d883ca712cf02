"""From a config, a checkpoint and TFRecords to scores, maps and a sheet."""

from __future__ import annotations

import builtins
import collections
import io
import json
import re
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from PIL import Image

from cmt.cli import demo_run
from cmt.cli.main import main
from cmt.config import load_experiment, to_text
from cmt.data.input.open import Data
from cmt.data.panoptic.categories import write_categories
from cmt.data.panoptic.masks import read_ids
from cmt.data.panoptic.predictions import panoptic_ids
from cmt.data.records.manifest import Manifest
from cmt.data.scenes.generate import generate_scenes
from cmt.errors import InputError
from cmt.evaluation.factory import open_evaluation
from cmt.factory import build_model
from cmt.io.decode import decode_image
from cmt.serving import factory, predict
from cmt.serving.predict import predict_files
from cmt.weights.files import find_checkpoint
from tests.data.conversions import convert
from tests.fakes import RandomMasks

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


def write_run(folder, network, experiment, scenes):
    """Writes a folder as training leaves it; the weights are those it starts from."""
    network.build((None, *factory.crop_size(experiment), 3))
    step = tf.Variable(12, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=network, step=step)
    tf.train.CheckpointManager(checkpoint, folder / "checkpoints", 1).save()
    (folder / "config.textproto").write_text(to_text(experiment))
    manifest = Manifest.read(scenes / "tfrecords" / "val.manifest.json")
    write_categories(folder / factory.CATEGORIES_FILE, manifest.categories)
    return folder


@pytest.fixture(scope="module")
def run_dir(experiment, scenes, tmp_path_factory):
    tf_keras.utils.set_random_seed(0)
    network = build_model(experiment.model)
    return write_run(tmp_path_factory.mktemp("run"), network, experiment, scenes)


@pytest.fixture
def small_run(experiment, scenes, tmp_path, monkeypatch):
    """A run whose network is built in no time, for what does not depend on it."""
    tf_keras.utils.set_random_seed(0)
    monkeypatch.setattr(factory, "build_model", lambda _: RandomMasks(classes=10))
    folder = tmp_path / "run"
    folder.mkdir()
    return write_run(folder, RandomMasks(classes=10), experiment, scenes)


@pytest.fixture(scope="module")
def segmenter(run_dir):
    """What `cmt predict` makes of the run directory."""
    return factory.open_model(run_dir)


@pytest.fixture(scope="module")
def loaded(experiment, run_dir):
    """What `cmt eval` makes of it."""
    predictor, step = factory.load_predictor(experiment, Data(experiment.data), run_dir)
    assert step == 12
    return predictor


def evaluate(experiment, predictor, output) -> dict:
    split = Data(experiment.data).validation
    evaluation = open_evaluation(experiment, split, predictor.categories)
    return evaluation.run(predictor, output, step=12)


def test_the_semantic_branch_is_left_out(experiment, loaded):
    assert experiment.model.auxiliary_semantic.enabled
    assert loaded.network.semantic_branch is None
    names = [variable.name for variable in loaded.network.variables]
    assert names and not [name for name in names if "semantic" in name]


def test_evaluation_and_prediction_agree(
    experiment, segmenter, loaded, scenes, tmp_path
):
    metrics = evaluate(experiment, loaded, tmp_path)
    assert metrics["num_images"] == 3 and metrics["config"] == "tiny"
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert segmenter.categories == loaded.categories
    files = sorted((scenes / "images" / "val").iterdir())
    assert len(files) == 3
    for file in files:
        outputs = segmenter.run(decode_image(file.read_bytes())[tf.newaxis])
        written = read_ids(tmp_path / "predictions" / "panoptic" / f"{file.stem}.png")
        np.testing.assert_array_equal(outputs["panoptic"][0], written)


def test_examples_have_the_ids_of_the_ground_truth(experiment, scenes):
    split = Data(experiment.data).validation
    annotations = json.loads((scenes / "annotations" / "panoptic_val.json").read_text())
    examples = list(split.examples(range(2)))
    assert len(examples) == 2
    for example, entry in zip(examples, annotations["annotations"], strict=False):
        assert example.image.shape == (65, 65, 3) and example.image.dtype == np.uint8
        panoptic = panoptic_ids(*np.divmod(example.labels, 256), split.categories)
        ids = read_ids(scenes / "annotations" / "panoptic_val" / entry["file_name"])
        for segment in entry["segments_info"]:
            found = np.unique(panoptic[ids == segment["id"]])
            expected = 0 if segment["iscrowd"] else segment["category_id"]
            assert found.size == 1 and found[0] // 1000 == expected


@pytest.mark.slow
def test_sheet(experiment, run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_run, "_DRAWN_IMAGES", 2)
    demo_run.draw_clustering(
        experiment,
        run_dir,
        clustering=tmp_path / "s.png",
        attention=tmp_path / "a.png",
    )
    picture = Image.open(tmp_path / "s.png")
    # Image, ground truth, prediction, two layers, reference points; two rows.
    assert picture.size == (6 + 6 * 246, 24 + 6 + 2 * 246)


def test_a_served_model_has_no_layers_to_explain(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(InputError, match="is a SavedModel.* and no layers"):
        factory.open_network(tmp_path)
    with pytest.raises(InputError, match="no such model"):
        factory.open_network(tmp_path / "missing")


@pytest.mark.slow
def test_explanation_of_any_images(run_dir, tmp_path, capsys):
    for number, size in enumerate([(50, 70), (90, 40)]):
        image = Image.new("RGB", size, (90, 40 * number, 10))
        image.save(tmp_path / f"photo{number}.jpg")
    (tmp_path / "no.jpg").write_bytes(b"no image")
    output = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        main(["explain", str(run_dir), str(tmp_path), "--output", str(output)])
    assert ended.value.code == 1  # for the file that is no image
    printed = capsys.readouterr()
    assert "no.jpg" in printed.err and "layer" in printed.out
    found = json.loads((output / "explanation.json").read_text())
    files = [str(tmp_path / f"photo{number}.jpg") for number in range(2)]
    assert [entry["file"] for entry in found["images"]] == files
    assert len(found["skipped"]) == 1
    for entry in found["images"]:
        # Image, prediction and two layers.
        width, _ = Image.open(output / entry["picture"]).size
        assert width == 6 + 4 * 306
    layers = found["attention_density"]
    assert len(layers) == 2
    for layer in layers:
        assert 1 <= layer["attention"] <= layer["pixels"]
        assert 0 <= layer["update_on_mask"] <= 1


def test_categories_come_from_the_run_or_the_manifest(experiment, run_dir, tmp_path):
    prefix = tmp_path / "deep" / "runs" / "step-1"
    prefix.parent.mkdir(parents=True)
    prefix.with_name("step-1.index").touch()
    # Too far above the checkpoint to belong to it.
    (tmp_path / factory.CATEGORIES_FILE).write_text("[]")
    bare = load_experiment(
        "scenes/tiny", ['data.validation.tfrecords=""', 'data.train.tfrecords=""']
    )

    def names(experiment, prefix) -> list[str]:
        data = Data(experiment.data)
        found = factory.find_categories(experiment, data, str(prefix))
        return [category.name for category in found]

    of_manifest = names(experiment, prefix)
    assert len(of_manifest) == 10
    assert names(bare, find_checkpoint(run_dir)) == of_manifest
    (tmp_path / "deep" / factory.CATEGORIES_FILE).write_text("[]")
    assert names(experiment, prefix) == []
    (tmp_path / "deep" / factory.CATEGORIES_FILE).unlink()
    with pytest.raises(InputError, match="no list of categories"):
        names(bare, prefix)


def test_a_missing_checkpoint_is_said_first(tmp_path):
    bare = load_experiment(
        "scenes/tiny", ['data.validation.tfrecords=""', 'data.train.tfrecords=""']
    )
    with pytest.raises(InputError, match="holds no checkpoint"):
        factory.load_predictor(bare, Data(bare.data), tmp_path)
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
        evaluate(damaged, loaded, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_of_other_classes(experiment, loaded, tmp_path):
    with pytest.raises(InputError, match="got 10 and 9"):
        factory.build_predictor(experiment, loaded.network, loaded.categories[1:])
    swapped = factory.build_predictor(
        experiment, loaded.network, loaded.categories[::-1]
    )
    with pytest.raises(InputError, match="class 1 of the network is"):
        evaluate(experiment, swapped, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def counts(monkeypatch) -> collections.Counter:
    """Counts what is read and decoded: files by name, "lookup", "reader", "decode"."""
    counts: collections.Counter = collections.Counter()

    def counting(owner, attribute, name_of):
        function = getattr(owner, attribute)

        def counted(*arguments, **keywords):
            counts[name_of(*arguments)] += 1
            return function(*arguments, **keywords)

        monkeypatch.setattr(owner, attribute, counted)

    def file_name(path, mode="r", *_):
        writes = set(mode) & set("wxa")
        return "written" if writes else str(path).rpartition("/")[2]

    counting(builtins, "open", file_name)
    counting(io, "open", file_name)
    counting(tf.train, "get_checkpoint_state", lambda *_: "lookup")
    counting(tf.train, "load_checkpoint", lambda *_: "reader")
    counting(predict, "decode_file", lambda *_: "decode")
    return counts


@pytest.mark.parametrize("listed", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_evaluation_opens_everything_once(small_run, listed, tmp_path, counts):
    """Also where the list of categories comes from the manifest."""
    if not listed:
        (small_run / factory.CATEGORIES_FILE).unlink()
    counts.clear()
    with pytest.raises(SystemExit) as stopped:
        main(
            ["eval", str(small_run / "config.textproto")]
            + ["--checkpoint", str(small_run), "--output", str(tmp_path / "out")]
        )
    assert stopped.value.code == 0
    assert counts["val.manifest.json"] == 1
    assert counts["panoptic_val.json"] == 1
    assert counts["config.textproto"] == 1
    assert counts["categories.json"] == listed
    assert counts["panoptic.json"] == 1  # What was written is what is scored.
    assert counts["lookup"] == counts["reader"] == 1


def test_a_prediction_looks_and_decodes_once(small_run, scenes, tmp_path, counts):
    files = sorted((scenes / "images" / "val").iterdir())
    counts.clear()
    outcome = predict_files(factory.open_model(small_run), files, tmp_path / "out")
    assert len(outcome.images) == len(files) == 3
    assert counts["decode"] == 3
    assert [counts[file.name] for file in files] == [1, 1, 1]
    assert counts["lookup"] == counts["reader"] == 1
    assert counts["config.textproto"] == counts["categories.json"] == 1
    assert counts["val.manifest.json"] == 0


def test_a_submission_from_the_command_line(small_run, scenes, tmp_path, capsys):
    """Of test images, and of the validation split: the same maps."""
    annotations = json.loads((scenes / "annotations" / "panoptic_val.json").read_text())
    listed = tmp_path / "image_info_test.json"
    listed.write_text(json.dumps({"images": annotations["images"]}))
    line = ["eval", str(small_run / "config.textproto"), "--zip"]
    line += ["--checkpoint", str(small_run), "--output", str(tmp_path)]
    test = ["--split", "test", "--set", f'data.test.list="{listed}"']
    test += ["--set", f'data.test.images="{scenes / "images" / "val"}"']
    contents = []
    for more, name in ((test, "test"), ([], "val")):
        with pytest.raises(SystemExit) as stopped:
            main([*line, *more])
        assert stopped.value.code == 0
        path = tmp_path / f"panoptic_{name}_tiny_results.zip"
        assert f"submission   {path}" in capsys.readouterr().out
        with zipfile.ZipFile(path) as packed:
            pngs = [name for name in packed.namelist() if name.endswith(".png")]
            contents.append({name.split("/")[1]: packed.read(name) for name in pngs})
    assert len(contents[0]) == 3
    assert all(np.any(Image.open(io.BytesIO(png))) for png in contents[0].values())
    assert contents[0] == contents[1]
