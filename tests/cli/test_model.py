"""`cmt model`: the list, a summary as table and json, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cmt.cli import model as command
from cmt.cli.main import main
from cmt.config import available_configs, load_experiment, to_text
from cmt.zoo.cost import Count
from cmt.zoo.published import PUBLISHED

R50 = "coco/cmt_deeplab_axial_r50_1281"


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Runs `cmt model summary` in this process; returns code, stdout, stderr."""
    return run_model(capsys, "summary", *arguments)


def run_model(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["model", *arguments])
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


@pytest.fixture
def counts(monkeypatch):
    """Counts that need no network; returns the sizes that were asked for."""
    asked = []

    def count(experiment, size):
        asked.append(size)
        parts = {"stem": 1_234_567, "dual_path_axial_blocks": 2}
        costs = {"stem": 3_456_000_000, "dual_path_axial_blocks": 5_000_000_000}
        return Count(1_234_569, parts, 77), Count(8_456_000_000, costs, 9_000_000_000)

    monkeypatch.setattr(command, "_count", count)
    return asked


@pytest.mark.slow
def test_json_of_a_real_network(capsys):
    ones = ("backbone.stage3_blocks", "backbone.stage4_blocks", "decoder.stage4_layers")
    changes = [word for name in ones for word in ("--set", f"model.{name}=1")]
    code, out, err = run(capsys, "scenes/tiny", *changes, "--size", "33x49", "--json")
    assert code == 0
    assert "building" in err
    result = json.loads(out)
    figures = ["parameters", "multiply_adds", "paper", "published_elsewhere"]
    assert list(result) == ["model", *figures]
    assert result["model"] == "tiny"
    assert list(result["parameters"]) == ["total", "by_part"]
    assert list(result["multiply_adds"]) == ["total", "by_part", "size"]
    assert result["multiply_adds"]["size"] == [33, 49]
    for counted in (result["parameters"], result["multiply_adds"]):
        assert counted["total"] == sum(counted["by_part"].values()) > 0
    assert result["paper"] == result["published_elsewhere"] == {}


def test_the_size_is_that_of_the_crop_if_none_is_given(capsys, counts):
    assert run(capsys, "scenes/tiny", "--json")[0] == 0
    changes = ("--set", "data.crop_width_pixels=113")
    assert run(capsys, "scenes/tiny", *changes, "--json")[0] == 0
    assert counts == [(193, 193), (193, 113)]


def test_json_has_published_figures_beside(capsys, counts):
    _, out, _ = run(capsys, R50, "--json")
    assert json.loads(out)["published_elsewhere"] == {
        "multiply_adds": {
            "total": 396_000_000_000,
            "size": [800, 1200],
            "source": "published figure, not in the CVPR text",
        }
    }
    assert json.loads(out)["paper"] == {
        "parameters": {"total": 94_900_000, "source": "Tables 1, 2c"},
        "pq_val": {"all": 53.0, "things": 57.7, "stuff": 45.9},
        "pq_test_dev": {"all": 53.4, "things": 58.3, "stuff": 46.0},
        "source": "Tables 1, 3",
    }


def test_the_table_has_parts_totals_and_what_is_published(capsys, counts):
    code, out, _ = run(capsys, R50)
    assert code == 0
    rows = [[c.strip() for c in line.split("│")[1:-1]] for line in out.splitlines()]
    rows = [row for row in rows if row]
    assert ["dual path axial blocks", "2", "5.000G"] in rows
    assert ["total", "1,234,569", "8.456G"] in rows
    assert ["published", "94.9M", "396G at 800 x 1200"] in rows
    assert ["semantic branch, not counted", "77", "9.000G"] in rows
    assert out.splitlines()[-4:] == [
        "published parameters: paper, Tables 1, 2c",
        "published multiply-adds: published figure, not in the CVPR text",
        "PQ on COCO val: all 53.0, things 57.7, stuff 45.9 (paper, Tables 1, 3)",
        "PQ on COCO test_dev: all 53.4, things 58.3, stuff 46.0 (paper, Tables 1, 3)",
    ]
    _, out, _ = run(capsys, R50, "--size", "800x1200")
    assert "800 x 1200" in out.splitlines()[1]
    assert "396G at" not in out
    _, out, _ = run(capsys, "scenes/tiny")
    assert "PQ" not in out
    assert "paper" not in out


def test_a_derived_quality_is_not_given_as_published(capsys, counts):
    name = "coco/max_deeplab_s_relu_641"
    told = "46.2 - 0.3 = 45.9 follows from Sec. 4.2"
    assert json.loads(run(capsys, name, "--json")[1])["paper"] == {
        "parameters": {"total": 61_900_000, "source": "Tables 1, 2c"},
        "pq_val_derived": {"all": 45.9, "source": told},
    }
    last = run(capsys, name)[1].splitlines()[-1]
    assert last == f"PQ on COCO val: none published ({told})"


def test_paper_figures_stay_with_what_they_are_of(capsys, counts, tmp_path):
    def paper(*arguments):
        result = json.loads(run(capsys, *arguments, "--json")[1])
        return {k: result[k] for k in ("paper", "published_elsewhere")}

    full = paper(R50)
    assert paper(R50, "--set", "model.num_centers=129") == {
        "paper": {},
        "published_elsewhere": {},
    }
    # Another schedule: the network is the same, its quality is not.
    other = paper(R50, "--set", "trainer.steps=100001")
    parameters = {"parameters": full["paper"]["parameters"]}
    assert other == {**full, "paper": parameters}
    assert paper(R50, "--set", 'data.train.tfrecords="elsewhere-*"') == full
    # The config of a run directory is known by its name.
    path = tmp_path / "config.textproto"
    path.write_text(to_text(load_experiment(R50)))
    assert paper(str(path)) == full
    unplaced = paper("coco/max_deeplab_s_relu_1025")["paper"]
    assert "note" in unplaced
    assert "pq_val" not in unplaced


def test_every_published_row_is_found(capsys, counts):
    for name, row in PUBLISHED.items():
        paper, elsewhere = command._published(load_experiment(name))
        assert ("pq_val" in paper) == (row.val is not None)
        assert ("pq_val_derived" in paper) == (row.val_derived is not None)
        assert ("parameters" in paper) == (row.parameters_millions is not None)
        known = row.multiply_adds_billions is not None
        assert list(elsewhere) == ["multiply_adds"] * known


@pytest.mark.parametrize("size", ["800", "800x", "0x5", "800 x 1200", "8x99999", "axb"])
def test_a_wrong_size_is_refused(capsys, counts, size):
    code, out, err = run(capsys, "scenes/tiny", "--size", size)
    assert (code, out) == (2, "")
    assert err == (
        "error: --size must be HEIGHTxWIDTH in whole pixels, 1 to 9999, such as"
        f" 800x1200; got '{size}'\n"
    )
    assert not counts


def test_an_unknown_config_is_refused(capsys):
    code, out, err = run(capsys, "coco/cmt_deeplab_axial_r50_1282", "--json")
    assert (code, out) == (2, "")
    assert "did you mean 'coco/cmt_deeplab_axial_r50_1281" in err


def test_list_has_what_was_measured_and_what_is_published(capsys):
    code, out, err = run_model(capsys, "list")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert list(rows) == available_configs()
    clustering = ["clustering", "1281x1281"]
    assert rows[R50] == [*clustering, "91,815,748", "94.9M", "53.0"]
    unpublished = "coco/cmt_deeplab_axial_r104_1281_200k"
    assert rows[unpublished] == [*clustering, "132,114,436", "135.2M", "-"]
    assert rows["scenes/ablations/kmeans"] == ["kmeans", "129x129", "-", "-", "-"]
    code, out, _ = run_model(capsys, "list", "--json")
    assert code == 0
    [row] = [
        row for row in json.loads(out) if row["name"] == "coco/ablations/table2d_rfn"
    ]
    title = (
        "Ablation of pretraining, scaling and post-processing, Table 2d: CMT-DeepLab"
    )
    assert row == {
        "name": "coco/ablations/table2d_rfn",
        "title": f"{title} + ImageNet-22K + RFN.",
        "assignment": "CLUSTERING",
        "crop": [641, 641],
        "parameters_measured": 183_631_496,
        "parameters_paper": None,
        "pq_val_paper": 50.1,
    }


def test_lists_load_no_tensorflow():
    program = (
        "import sys; from cmt.cli.main import app\n"
        "for group in ('model', 'config'):\n"
        "    app([group, 'list'], standalone_mode=False)\n"
        "assert 'tensorflow' not in sys.modules and 'tf_keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
