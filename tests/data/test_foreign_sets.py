"""What other tools write goes through validation, conversion, training and scoring."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from cmt.cli.main import main
from cmt.data.panoptic.registry import Paths
from cmt.data.scenes.generate import generate_scenes
from cmt.evaluation.score import score_files
from tests.data.conftest import sources
from tests.data.conversions import convert_paths
from tests.data.foreign_sets import SETS
from tests.data.records import read_records

TINY = ("trainer.steps=10", "trainer.global_batch_size=2", "data.cache_records=false")
TINY += ("trainer.learning_rate.warmup_steps=1", "trainer.log_every_steps=5")
TINY += ("data.crop_height_pixels=65", "data.crop_width_pixels=65")


@pytest.fixture(scope="session")
def plain(once) -> pathlib.Path:
    """Scenes without crowd and void, which these tools do not write."""

    def make(folder: pathlib.Path) -> None:
        generate_scenes(folder, train=8, val=4, size=65, seed=4, workers=1)

    return once("plain_scenes", make)


def run(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 0, words


def options(paths: dict[str, pathlib.Path]) -> list[object]:
    return [word for key, path in paths.items() for word in (f"--{key}", path)]


def things_of(annotations: pathlib.Path) -> list[str]:
    content = json.loads(annotations.read_text())
    return [entry["name"] for entry in content["categories"] if entry["isthing"]]


@pytest.mark.parametrize("name", SETS)
def test_records_are_those_of_the_scenes(plain, tmp_path, name):
    change, names_things = SETS[name]
    shutil.copytree(plain, tmp_path / "set")
    before, after = sources(plain, "train"), sources(tmp_path / "set", "train")
    things = things_of(before["annotations"])
    change(after)
    assert after["annotations"].read_text() != before["annotations"].read_text()

    words = ["--things", ",".join(things)] if names_things else []
    run("data", "validate", *options(after), *words)
    records = []
    for paths, more in ((before, {}), (after, {"things": tuple(things)})):
        given = Paths(**paths, **(more if names_things else {}))
        output = tmp_path / f"records{len(records)}"
        manifest = convert_paths(given, output=output, split="train", workers=1)
        (shard,) = manifest.shards
        records.append(list(read_records(output / shard.name)))
        assert len(records[-1]) == 8
    assert records[0] == records[1]

    truth = after["annotations"], after["masks"]
    given = things if names_things else []
    scored = score_files(*truth, *truth, workers=1, things=given)
    exact = scored.get("with_pixel_areas", scored)
    assert exact["all"]["pq"] == pytest.approx(100, abs=1e-9)
    found = [row["name"] for row in scored["per_class"].values()]
    assert exact["things"]["n"] == len(set(found) & set(things)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_training_evaluation_and_scores(plain, tmp_path, name):
    change, names_things = SETS[name]
    shutil.copytree(plain, tmp_path / "set")
    sets = {split: sources(tmp_path / "set", split) for split in ("train", "val")}
    words, things = [], []
    if names_things:
        things = things_of(sets["val"]["annotations"])
        words = ["--things", ",".join(things)]
    output = tmp_path / "records"
    for split, paths in sets.items():
        change(paths)
        run("data", "validate", *options(paths), *words)
        convert = ("data", "convert", *options(paths), *words)
        run(*convert, "--output", output, "--split", split)
    changes = [
        f'data.train.tfrecords="{output}/train-*.tfrecord"',
        f'data.validation.tfrecords="{output}/val-*.tfrecord"',
        *TINY,
    ]
    settings = [word for change in changes for word in ("--set", change)]
    trained, evaluated = tmp_path / "run", tmp_path / "evaluation"
    run("train", "scenes/tiny", "--output", trained, *settings)
    config = trained / "config.textproto"
    run("eval", config, "--checkpoint", trained, "--output", evaluated)
    metrics = json.loads((evaluated / "metrics.json").read_text())
    assert metrics["num_images"] == 4
    truth = sets["val"]
    predicted = evaluated / "predictions"
    scored = score_files(
        *(truth["annotations"], truth["masks"]),
        *(predicted / "panoptic.json", predicted / "panoptic"),
        workers=1,
        things=things,
    )
    exact = scored.get("with_pixel_areas", scored)
    assert exact["all"]["pq"] == pytest.approx(metrics["panoptic"]["all"]["pq"])
