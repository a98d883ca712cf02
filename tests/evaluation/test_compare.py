"""`cmt compare`: scores, paired intervals and configs of two runs, and bad input."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from benchmarks.score import make_pairs
from cmt.cli.main import main
from cmt.config import load_experiment, to_text
from cmt.data.scenes.generate import generate_scenes
from cmt.evaluation.bootstrap import RESAMPLES, panoptic_quality
from cmt.evaluation.per_image import read_images
from cmt.evaluation.score import score_files


def write_evaluation(folder, files, step: int) -> None:
    folder.mkdir(parents=True)
    scores = score_files(*files, per_image=folder / "per_image.csv")
    content = {"config": "tiny", "step": step, "num_images": 12, "panoptic": scores}
    (folder / "metrics.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run a, of disturbed predictions; run b, of the ground truth as prediction."""
    folder = tmp_path_factory.mktemp("compared")
    generate_scenes(folder, train=0, val=3, size=97, seed=3, workers=1)
    annotations = folder / "annotations"
    masks = annotations / "panoptic_val"
    (folder / "pairs").mkdir()
    files = make_pairs(masks.with_suffix(".json"), masks, folder / "pairs", 12)
    perfect = files._replace(pred=files.gt, pred_masks=files.gt_masks)
    for name, predicted, crop in (("a", files, 193), ("b", perfect, 97)):
        run = folder / name
        # The second evaluation is the last, though not by the order of names.
        write_evaluation(run / "eval" / "900", perfect, 900)
        write_evaluation(run / "eval" / "1000", predicted, 1000)
        change = [f"data.crop_height_pixels={crop}", f"data.crop_width_pixels={crop}"]
        experiment = load_experiment("scenes/tiny", change)
        (run / "config.textproto").write_text(to_text(experiment))
        lines = [
            {"step": 1, "total": 3.0, "validation/total": 4.0, "validation/pq": 1.0},
            {"step": 2, "total": None, "validation/total": 3.5, "validation/pq": 2.0},
        ]
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "a", folder / "b"


def run(arguments, capsys) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as exit_of:
        main(["compare", *map(str, arguments)])
    return exit_of.value.code or 0, *capsys.readouterr()


def test_scores_and_intervals(runs, capsys):
    code, out, _ = run([*runs, "--json"], capsys)
    assert code == 0
    result = json.loads(out)
    assert (result["a"]["step"], result["b"]["step"]) == (1000, 1000)
    assert result["images"] == 12 and result["level"] == 95
    a = json.loads((runs[0] / "eval" / "1000" / "metrics.json").read_text())["panoptic"]
    for key in ("pq", "sq", "rq"):
        for group in ("all", "things", "stuff"):
            found = result["metrics"][f"{key.upper()}, {group}"]
            assert found["a"] == a[group][key] < found["b"]
            assert found["difference"] == pytest.approx(found["b"] - found["a"])
    assert result["metrics"]["PQ, stuff"]["b"] == 100
    assert result["metrics"]["mIoU"]["b"] == 100
    assert result["metrics"]["mask AP"] == dict.fromkeys(("a", "b", "difference"))
    # The interval by a loop over the same resamples.
    tables = [read_images(run / "eval" / "1000" / "per_image.csv") for run in runs]
    classes = [c for c, thing in tables[0].is_thing.items() if thing]
    counts = [table.counts(tables[0].images, classes) for table in tables]
    drawn = []
    rng = np.random.default_rng(0)
    for times in rng.multinomial(12, np.full(12, 1 / 12), size=RESAMPLES):
        of_a, of_b = (panoptic_quality(np.repeat(c, times, 0).sum(0)) for c in counts)
        drawn.append(of_b - of_a)
    low, high = result["metrics"]["PQ, things"]["interval"]
    assert [low, high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist())
    assert 0 < low < result["metrics"]["PQ, things"]["difference"] < high


def test_the_difference_of_a_run_and_itself_is_exactly_0(runs, capsys):
    code, out, _ = run([runs[0], runs[0], "--json"], capsys)
    assert code == 0
    result = json.loads(out)
    assert result["config"] == []
    for of_score in result["metrics"].values():
        assert of_score["difference"] in (0, None)
        assert of_score.get("interval", [0, 0]) == [0, 0]


def test_configs_tables_and_pictures(runs, tmp_path, capsys):
    code, out, _ = run([*runs, "--output", tmp_path], capsys)
    assert code == 0
    rows = [re.split(r"\s*[│┃]\s*", line)[1:-1] for line in out.splitlines()]
    assert ["data.crop_height_pixels", "193", "97"] in rows
    assert ["data.crop_width_pixels", "193", "97"] in rows
    assert ["mask AP", "none", "none", "none", ""] in rows
    (pq,) = [row for row in rows if row[:1] == ["PQ, all"]]
    assert re.fullmatch(r"\+\d+\.\d\d to \+\d+\.\d\d", pq[-1])
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert len(result["config"]) == 2
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    assert picture.shape == (600, 1440, 3)
    for color in ((31, 119, 180), (255, 127, 14)):  # One for each run.
        assert (picture == np.array(color)).all(-1).sum() > 100


def test_folders_of_evaluations(runs, tmp_path, capsys):
    inner = [runs[0] / "eval" / "900", runs[1] / "eval" / "1000"]
    code, out, _ = run([*inner, "--json"], capsys)
    result = json.loads(out)
    assert code == 0 and result["a"]["step"] == 900
    assert result["metrics"]["PQ, all"]["difference"] == 0
    assert len(result["config"]) == 2  # Both lie in runs.
    shutil.copytree(inner[0], tmp_path / "outside")
    code, out, _ = run([tmp_path / "outside", inner[1], "--output", tmp_path], capsys)
    assert code == 0
    assert "configs: not known" in out and "curves      none" in out


def no_evaluation(folder):
    shutil.rmtree(folder / "eval")


def no_images(folder):
    (folder / "eval" / "1000" / "per_image.csv").unlink()


def other_images(folder):
    path = folder / "eval" / "1000" / "per_image.csv"
    path.write_text(path.read_text().replace("\n3,", "\n33,"))


def other_kind(folder):
    path = folder / "eval" / "1000" / "per_image.csv"
    path.write_text(re.sub(r"(,\d+),1,", r"\1,0,", path.read_text()))


def damaged_images(folder):
    path = folder / "eval" / "1000" / "per_image.csv"
    path.write_text(path.read_text().replace("tp,", "xx,"))


def older_scores(folder):
    path = folder / "eval" / "1000" / "metrics.json"
    content = json.loads(path.read_text())
    del content["panoptic"]["semantic"]
    path.write_text(json.dumps(content))


def nothing(folder):
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_evaluation, "has no evaluation to compare; make one with `cmt eval "),
        (no_images, r"per_image\.csv: no such file; evaluate again with `cmt eval`"),
        (other_images, r"different images: 1 are in .* alone \(3\); evaluate both on"),
        (other_kind, r"category \d+ is a thing in one and stuff in the other"),
        (damaged_images, r"per_image\.csv: not the scores of images as `cmt eval`"),
        (older_scores, r"metrics\.json: not the scores that this version of"),
        (nothing, "neither a run directory of `cmt train`"),
    ],
)
def test_what_cannot_be_compared_is_one_line(runs, tmp_path, capsys, change, message):
    shutil.copytree(runs[1], tmp_path / "b")
    change(tmp_path / "b")
    code, out, err = run([runs[0], tmp_path / "b", "--json"], capsys)
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert re.search(message, line), line
