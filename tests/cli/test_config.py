"""`cmt config show` and `cmt config diff`."""

from __future__ import annotations

import json

import pytest

from cmt import config
from cmt.cli.main import main


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Runs `cmt config` in this process; returns code, stdout, stderr."""
    with pytest.raises(SystemExit) as caught:
        main(["config", *arguments])
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def test_show_prints_the_resolved_config(capsys, tmp_path):
    code, out, err = run(
        capsys, "show", "scenes/tiny", "--set", "trainer.seed=7", "--set", "name=x"
    )
    assert (code, err) == (0, "")
    experiment = config.load_experiment("scenes/tiny", ["trainer.seed=7", "name=x"])
    assert out == config.to_text(experiment)
    path = tmp_path / "again.textproto"
    path.write_text(out)
    assert config.load_experiment(path) == experiment


def test_show_reports_file_line_and_column(capsys, tmp_path):
    path = tmp_path / "x.textproto"
    path.write_text("model {\n  num_clases: 3\n}\n")
    code, out, err = run(capsys, "show", str(path))
    assert (code, out) == (2, "")
    assert err == (
        f"error: {path}:2:3: ModelConfig has no field 'num_clases';"
        " did you mean 'num_classes'?\n"
    )


def test_diff_is_a_table_or_json(capsys, tmp_path):
    other = tmp_path / "tiny.textproto"
    experiment = config.load_experiment("scenes/tiny", ["trainer.seed=7"])
    experiment.data.train.manifest = "m.json"
    other.write_text(config.to_text(experiment))
    code, out, _ = run(capsys, "diff", "scenes/tiny", str(other))
    assert code == 0
    assert out.splitlines() == [
        'data.train.manifest  not set -> "m.json"',
        "trainer.seed         0 -> 7",
    ]
    code, out, _ = run(capsys, "diff", "scenes/tiny", str(other), "--json")
    assert code == 0
    assert json.loads(out) == [
        {"path": "data.train.manifest", "a": None, "b": '"m.json"'},
        {"path": "trainer.seed", "a": "0", "b": "7"},
    ]


def test_diff_of_equals_says_so(capsys):
    assert run(capsys, "diff", "scenes/tiny", "scenes/tiny") == (
        0,
        "no differences\n",
        "",
    )


def test_list_names_every_config_with_its_title(capsys):
    code, out, err = run(capsys, "list")
    assert (code, err) == (0, "")
    found = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert list(found) == config.available_configs()
    assert found["coco/cmt_deeplab_axial_r50_641"] == (
        "CMT-DeepLab, Axial-ResNet-50, 641 x 641, 100k iterations."
    )
    # A title of two lines, of which the first ends in a hyphen.
    assert found["scenes/ablations/kmeans"].endswith(
        "assignment of the follow-up paper."
    )
    code, out, _ = run(capsys, "list", "--json")
    assert code == 0
    assert json.loads(out) == [{"name": n, "title": t} for n, t in found.items()]
