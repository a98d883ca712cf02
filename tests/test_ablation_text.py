"""docs/ablation.md: rebuilt from the committed results, and from made-up ones."""

from __future__ import annotations

import json
import pathlib
import re

import ablation
import numpy as np
import pytest
from ablation_results import read
from ablation_rows import LARGE, LONG, ROWS, SMALL, chosen_rate, digest
from ablation_text import document, verdict, write_document

from cmt.errors import InputError
from cmt.evaluation.bootstrap import (
    Difference,
    paired_difference,
    panoptic_quality,
)

CATEGORIES = [[1, "disk", True], [2, "box", True], [3, "grass", False]]
DATA = {"level": "middle", "train": 4, "val": 6, "seed": 0, "size": 97, "shards": {}}


@pytest.mark.parametrize("scale", [SMALL, LARGE, LONG], ids=lambda scale: scale.page)
def test_the_document_is_that_of_the_committed_results(checkout, scale):
    pictures = checkout / "docs" / scale.page
    found = pictures.with_suffix(".md").read_text(encoding="utf-8")
    assert found == document(read(pictures / "results", scale), pictures), (
        "run `python tools/ablation.py text` alone, with --large and with --long"
    )


def test_without_results_nothing_is_claimed(tmp_path):
    text = document(read(tmp_path / "results"), tmp_path)
    assert "No results are committed yet, so this page claims nothing" in text
    assert "measured here" not in text.lower() and "reproduced" not in text
    row = "| `baseline` to `clustering` | clustering update | +0.9 | "
    assert row + "Table 2a: 46.2 to 47.1 |" in text
    assert "| `full` to `mask_wise` | mask-wise merge | +0.5 | Table 2d: 50.1" in text


def made_up(name: str, seed: int, skill: float, **changes) -> dict:
    """A result; with more skill fewer masks are missed. Image k is as hard for all."""
    row, rate = ROWS[name], changes.pop("rate", chosen_rate(ROWS[name]))
    settings = ablation.Trial(row, seed, rate).settings(row, ())
    images = {}
    for k in range(6):
        hard = np.random.default_rng([seed, k]).uniform(0, 3)
        missed = int(hard + 4 - skill)
        found = [[c, 3.2, 4, max(0, missed - c), missed] for c in range(3)]
        images[f"image{k}"] = [x for x in found if k or x[0]]
    return {
        "row": name, "seed": seed, "rate": rate, "step": 2000,
        "command": f"python tools/ablation.py run --rows {name} --seeds {seed}",
        "train": f"cmt train scenes/ablations/{name}", "commits": ["abc"],
        "versions": {"python": "3.11"},
        "hardware": {"cores": 2, "trainings_at_a_time": 2, "threads_of_a_training": 1},
        "data": DATA, "digest": digest(settings), "settings": settings,
        "parameters": 1000 + (name == "full") * 80, "multiply_adds": 12_345_678,
        "categories": CATEGORIES, "images": images,
        "attention_density": dense((1, 1, 0.5, 0.5), (1, 1, 0.5, 0.5)),
        "curve": [
            {"step": 1200, "validation/pq": 10.0 + seed},
            {"step": 1250, "total": 3.0},
            {"step": 2000, "validation/pq": 20.0 + skill},
        ],
    } | changes  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """An empty folder of results."""
    path = tmp_path / "ablation" / "results"
    path.mkdir(parents=True)
    return path


def put(folder: pathlib.Path, *results: dict) -> None:
    for r in results:
        name = f"{r['row']}-rate{r['rate']:g}-seed{r['seed']}.json"
        (folder / name).write_text(json.dumps(r))


def build(folder: pathlib.Path) -> str:
    write_document(folder)
    return (folder.parent.parent / "ablation.md").read_text()


def row_of(text: str, section: str, first: str) -> list[str]:
    """Cells of the row of a table that begins with a text."""
    body = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]
    (line,) = (x for x in body.splitlines() if x.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_tables_hold_means_spreads_and_paired_differences(folder):
    skills = {"baseline": 1, "clustering": 3, "contrastive": 3}
    put(folder, *(made_up(n, s, x) for n, x in skills.items() for s in range(3)))
    text = build(folder)
    results = read(folder)
    counts = {name: results.counts(name, range(3)) for name in skills}
    for name in skills:
        values = panoptic_quality(counts[name].sum(axis=1))
        cells = row_of(text, "Rows", f"`{name}`")
        assert cells[2:4] == ["3", f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"]
        things = panoptic_quality(counts[name].sum(axis=1)[:, :2])
        assert cells[4] == f"{things.mean():.1f} ± {things.std(ddof=1):.1f}"
        assert cells[6:] == ["1,000", "0.012G", "not measured"]
    cells = row_of(text, "Steps, beside the paper's", "`baseline` to `clustering`")
    ours = paired_difference(counts["baseline"], counts["clustering"])
    assert cells[2] == f"{ours.mean:+.1f} [{ours.low:+.1f}, {ours.high:+.1f}]"
    assert ours.low > 0
    stuff = paired_difference(
        counts["baseline"][:, :, 2:], counts["clustering"][:, :, 2:]
    )
    assert cells[4].startswith(f"{stuff.mean:+.1f} [")
    assert cells[5:] == ["+0.9", "Table 2a: 46.2 to 47.1", "**reproduced**"]
    cells = row_of(text, "Steps, beside the paper's", "`clustering` to `contrastive`")
    assert cells[2] == "+0.0 [+0.0, +0.0]" and cells[-1] == "**not shown**"
    assert "`decoder` to `decoder_location`" not in text
    cells = row_of(text, "Each row against the baseline", "`clustering`")
    assert cells[1].startswith(f"{ours.mean:+.1f} [")
    assert cells[4:] == ["+0.9", "**reproduced**", "+0.0%"]
    assert row_of(text, "Learning curves", "`baseline`")[1:] == ["11.0", "21.0"]
    assert "![Learning curves](ablation/curves.png)" in text
    assert (folder.parent / "curves.png").is_file()
    assert "9 trainings, seeds 0, 1, 2, 2000 steps each" in text
    assert "2 CPU cores, trainings at a time: 2, threads of each: 1." in text


def test_one_seed_has_no_spread_and_rows_pair_the_seeds_they_share(folder):
    put(folder, made_up("baseline", 0, 1), made_up("full", 0, 2), made_up("full", 2, 9))
    text = build(folder)
    assert re.fullmatch(r"\d+\.\d", row_of(text, "Rows", "`baseline`")[3])
    results = read(folder)
    ours = paired_difference(
        results.counts("baseline", [0]), results.counts("full", [0])
    )
    cells = row_of(text, "Each row against the baseline", "`full`")
    assert cells[1] == f"{ours.mean:+.1f} [{ours.low:+.1f}, {ours.high:+.1f}]"
    assert cells[4] == "+2.2" and cells[-1] == "+8.0%"


def test_layers_and_times(folder):
    located = [{"r2_h": 0.125, "r2_w": 0.5, "mask_approximation": 0.25}] * 2
    first = made_up("full", 0, 1, location=located)
    second = made_up("full", 1, 1, location=located)
    base = made_up("baseline", 0, 1)
    put(folder, first, second, base)
    settings = made_up("full", 0, 1)["settings"]
    time = {"seconds": 0.1234, "digest": digest(settings), "cores": 2}
    times = {"full": time | {"load_before": 0.5}, "baseline": time | {"digest": "x"}}
    (folder / "step_times.json").write_text(json.dumps(times))
    text = build(folder)
    cell = "0.12, 0.50, 0.250"
    assert row_of(text, "Location by layer", "`full`")[1:] == [cell, cell]
    assert row_of(text, "Rows", "`full`")[-1] == "123 ms"
    assert row_of(text, "Rows", "`baseline`")[-1] == "not measured"
    assert "`step_times.json: baseline`: measured with another config" in text


def test_the_search_shows_each_rate_and_rows_have_the_chosen_one(folder):
    chosen = chosen_rate(ROWS["full"])
    put(folder, made_up("full", 0, 1), made_up("full", 0, 4, rate=0.5))
    text = build(folder)
    cells = row_of(text, "Learning rate", "`full`")
    by_rate = read(folder).searched["full"]
    assert sorted(by_rate) == [chosen, 0.5]
    assert cells[3] == f"{chosen:g}" and float(cells[2]) > float(cells[1])
    assert row_of(text, "Rows", "`full`")[2:4] == ["1", cells[1]]


def test_results_of_other_settings_or_scenes_are_not_mixed_in(folder):
    put(folder, made_up("baseline", 0, 1), made_up("full", 0, 2))
    stale = made_up("full", 1, 5)
    stale["settings"] = stale["settings"] | {"trainer.steps": "99"}
    put(folder, stale)
    text = build(folder)
    assert row_of(text, "Rows", "`full`")[2] == "1"
    assert "seed1.json`: trainer.steps was 99, is" in text
    put(folder, made_up("full", 2, 5, data=DATA | {"size": 65}))
    with pytest.raises(InputError, match="results of different scenes"):
        build(folder)


@pytest.mark.parametrize(
    ("ours", "paper", "words"),
    [
        ((1, 0.5, 2), 0.4, "reproduced"),
        ((-1, -2, -0.5), 0.4, "contradicted"),
        ((1, -0.1, 2), 0.4, "not shown"),
        ((-1, -2, 0.1), 0.4, "not shown"),
        ((1, 0.5, 2), None, "higher"),
        ((-1, -2, -0.5), None, "lower"),
        ((-1, -2, 0.5), None, "not shown"),
        (None, 0.4, "not run"),
    ],
)
def test_verdicts(ours, paper, words):
    assert verdict(ours and Difference(*ours), paper) == words


def dense(*layers: tuple[float, ...]) -> list[dict[str, float]]:
    names = ("attention", "update", "attention_on_mask", "update_on_mask")
    return [dict(zip(names, layer, strict=True)) for layer in layers]


def test_density_is_told_by_layer_and_compared_by_seed(folder):
    first = dense((3, 3, 0.5, 0.5), (4, 4, 0.25, 0.25))
    other = dense((5, 5, 0.5, 0.5), (8, 8, 0.75, 0.75))
    put(folder, made_up("baseline", 0, 1, attention_density=first))
    put(folder, made_up("baseline", 1, 1, attention_density=other))
    first = dense((2, 9, 0.5, 0.4), (6, 11, 0.5, 0.7))
    other = dense((3, 9, 0.5, 0.4), (7, 12, 0.5, 0.7))
    put(folder, made_up("clustering", 0, 1, attention_density=first))
    put(folder, made_up("clustering", 1, 1, attention_density=other))
    hard = [{"update": 2.0}, {"update": 3.0}, {"update": 4.0}]
    put(folder, made_up("kmeans", 0, 1, attention_density=hard))
    text = build(folder)
    section = "Attention density by layer"
    cells = row_of(text, section, "`baseline`")
    assert cells[1:] == ["4.0, 4.0, 50%, 50%", "6.0, 6.0, 50%, 50%", ""]
    assert row_of(text, section, "`kmeans`")[3] == "-, 4.0, -, -"
    rises = "| `baseline` to `clustering` | "
    assert (
        rises + "1 | 4.0, 2.5, 0 of 2 | 4.0, 9.0, 2 of 2 | 50%, 40%, 0 of 2 |\n" in text
    )
    assert (
        rises + "2 | 6.0, 6.5, 1 of 2 | 6.0, 11.5, 2 of 2 | 50%, 70%, 1 of 2 |\n"
        in text
    )
