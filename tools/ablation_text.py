"""Writes docs/ablation.md from the raw results; no number in it is written by hand."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import ablation_rows as rows
import numpy as np
from ablation_curves import curve, plot_curves
from ablation_layers import layers, table
from ablation_prose import EMPTY, HEAD, METHOD
from ablation_results import Results, counts_of, mean_and_spread, read
from ablation_rows import ROWS, SMALL, Row, Scale, paper_quality

from cmt.evaluation.bootstrap import (
    LEVEL,
    Difference,
    paired_difference,
    panoptic_quality,
)
from cmt.io.files import atomic_write
from cmt.zoo.published import PUBLISHED

GROUPS = ("all", "things", "stuff")
CURVES_FILE = "curves.png"
NONE = "none"


def document(results: Results, pictures: pathlib.Path) -> str:
    """Returns the whole document.

    Args:
      results: what it is made from.
      pictures: folder of the pictures; those that are there are shown.
    """
    steps = [row for row in ROWS.values() if row.before]
    if not results.all():
        paper = [[_pair(row), row.step, *_paper(row)] for row in steps]
        parts = [HEAD + EMPTY, table(("rows", "step", "paper", "source"), paper)]
        return _join([*parts, *_left_out(results)])
    steps = [row for row in steps if {row.name, row.before} <= results.by_row.keys()]
    parts = [
        HEAD,
        _facts(results),
        "## Rows\n",
        _rows_table(results),
        "## Steps, beside the paper's\n",
        _steps_table(results, steps),
        *_baseline_table(results),
        *layers(results),
        *_search(results),
        *_curves(results, pictures),
        *_pictures(pictures),
        METHOD,
        *_left_out(results),
    ]
    return _join(parts)


def _join(parts: Iterable[str]) -> str:
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _list(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _facts(results: Results) -> str:
    """What the results have in common, and what they do not."""
    used = results.all()
    first = used[0]
    data = first["data"]
    hardware = [
        f"{h['cores']} CPU cores, trainings at a time: {h['trainings_at_a_time']},"
        f" threads of each: {h['threads_of_a_training']}"
        for h in (r["hardware"] for r in used)
    ]
    commits = [
        f"{name} ({sum(name in r['commits'] for r in used)} results)"
        for name in dict.fromkeys(c for r in used for c in r["commits"])
    ]
    versions = {json.dumps(r["versions"], sort_keys=True): r["versions"] for r in used}
    seeds = _list(sorted(r["seed"] for r in used))
    trained = {(r["row"], r["rate"], r["seed"]) for r in used if not _weights(r)}
    lines = [
        f"- *Measured here*: {len(trained)} trainings, seeds {seeds},"
        f" {_list(r['step'] for r in used)} steps each.",
        f"- Scenes: {data['train']} to train on, {data['val']} held out,"
        f" {data['size']} x {data['size']} pixels, level {data['level']}, seed"
        f" {data['seed']}.",
        f"- Hardware: {'; '.join(dict.fromkeys(hardware))}.",
        f"- Commits: {', '.join(commits)}.",
        *(
            "- Versions: " + ", ".join(f"{k} {v}" for k, v in version.items()) + "."
            for version in versions.values()
        ),
        f"- Commands: `{first['command']}` and so on, which train with"
        f" `{first['train']}`; every raw result has its own, for its commit.",
    ]
    return "\n".join(lines)


def _weights(result: dict[str, Any]) -> str:
    return ROWS[result["row"]].weights


def _group_quality(results: Results, name: str, group: str) -> np.ndarray:
    """PQ of a row by seed, over all classes or the things or the stuff."""
    seeds = sorted(results.by_row[name])
    counts = results.counts(name, seeds).sum(axis=1)
    return panoptic_quality(counts[:, _classes(results, name, group)])


def _classes(results: Results, name: str, group: str) -> np.ndarray:
    (result, *_) = results.by_row[name].values()
    is_thing = np.array([category[2] for category in result["categories"]])
    wanted = {"all": is_thing | True, "things": is_thing, "stuff": ~is_thing}
    return np.flatnonzero(wanted[group])


def _mean_text(values: np.ndarray) -> str:
    mean, spread = mean_and_spread(values)
    return f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"


def _rows_table(results: Results) -> str:
    body = []
    for name, by_seed in results.present():
        first = next(iter(by_seed.values()))
        seconds = results.seconds.get(ROWS[name].weights or name)
        body.append(
            [
                f"`{name}`",
                ROWS[name].title,
                str(len(by_seed)),
                *(_mean_text(_group_quality(results, name, g)) for g in GROUPS),
                f"{first['parameters']:,}",
                f"{first['multiply_adds'] / 1e9:.3f}G",
                "not measured" if seconds is None else f"{1000 * seconds:.0f} ms",
            ]
        )
    head = ("row", "what it is", "seeds", "PQ ± spread", "things", "stuff")
    head += ("parameters", "multiply-adds", "training step")
    note = ""
    if results.times:
        cores = _list(t["cores"] for t in results.times.values())
        load = max(t["load_before"] for t in results.times.values())
        note = (
            "\nThe training step was timed by itself"
            f" (`python tools/ablation.py times`) on {cores} cores; the load average"
            f"\nbefore was {load:g} at the most.\n"
        )
    return table(head, body) + note


def _difference(results: Results, a: str, b: str, group: str) -> Difference | None:
    """Difference of row b and row a; None where they have no seed in common."""
    seeds = _common_seeds(results, a, b)
    if not seeds:
        return None
    classes = _classes(results, a, group)
    first, second = (results.counts(name, seeds)[:, :, classes] for name in (a, b))
    return paired_difference(first, second)


def _common_seeds(results: Results, a: str, b: str) -> list[int]:
    return sorted({*results.by_row.get(a, ())} & {*results.by_row.get(b, ())})


def _verdict_text(
    results: Results, a: str, b: str, ours: Difference | None, paper: float | None
) -> str:
    """The verdict, and how many seeds it rests on where that is not all of them."""
    seeds = len(_common_seeds(results, a, b))
    rests = f", {seeds} of {len(rows.SEEDS)} seeds" if seeds < len(rows.SEEDS) else ""
    return f"**{verdict(ours, paper)}**" + (rests if seeds else "")


def _difference_text(difference: Difference | None) -> str:
    if difference is None:
        return "not run"
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*difference)


def _paper_difference(row: Row) -> float | None:
    if row.paper is None:
        return None
    before, after = (paper_quality(name).all for name in row.paper)
    return after - before


def _paper_total(row: Row) -> float | None:
    """What the paper has over its baseline, MaX-DeepLab-S, which Table 2d lacks."""
    if row.paper is None or row.paper[1].startswith("table2d"):
        return None
    return paper_quality(row.paper[1]).all - paper_quality("table2c_baseline").all


def _paper(row: Row) -> tuple[str, str]:
    """The paper's difference, and where it stands."""
    if row.paper is None:
        return NONE, "no such row"
    before, after = (paper_quality(name).all for name in row.paper)
    source = PUBLISHED[f"coco/ablations/{row.paper[1]}"].source
    return f"{after - before:+.1f}", f"{source}: {before:g} to {after:g}"


def _pair(row: Row) -> str:
    return f"`{row.before}` to `{row.name}`"


def verdict(ours: Difference | None, paper: float | None) -> str:
    """Returns whether a step of the paper reproduces, in the words of `METHOD`."""
    if ours is None:
        return "not run"
    if paper is None:
        found = "higher" if ours.mean > 0 else "lower"
        return found if ours.excludes_zero else "not shown"
    if not ours.excludes_zero:
        return "not shown"
    return "reproduced" if ours.mean * paper > 0 else "contradicted"


def _steps_table(results: Results, steps: Sequence[Row]) -> str:
    body = []
    for row in steps:
        ours = [_difference(results, row.before, row.name, g) for g in GROUPS]
        body.append(
            [
                _pair(row),
                row.step,
                *map(_difference_text, ours),
                *_paper(row),
                _verdict_text(
                    results, row.before, row.name, ours[0], _paper_difference(row)
                ),
            ]
        )
    head = ("rows", "step", f"PQ [{LEVEL}%]", "things", "stuff", "paper", "source")
    return table((*head, "verdict"), body)


def _baseline_table(results: Results) -> list[str]:
    base = next(iter(ROWS))
    if base not in results.by_row:
        return []
    body = []
    for name, by_seed in results.present():
        if name == base:
            continue
        ours = [_difference(results, base, name, g) for g in GROUPS]
        (reference, *_), (first, *_) = results.by_row[base].values(), by_seed.values()
        share = f"{first['parameters'] / reference['parameters'] - 1:+.1%}"
        paper = _paper_total(ROWS[name])
        body.append(
            [
                f"`{name}`",
                *map(_difference_text, ours),
                NONE if paper is None else f"{paper:+.1f}",
                _verdict_text(results, base, name, ours[0], paper),
                share,
            ]
        )
    head = ("row", f"PQ [{LEVEL}%]", "things", "stuff", "paper", "verdict")
    title = "## Each row against the baseline\n"
    return [title, table((*head, "parameters"), body)]


def _search(results: Results) -> list[str]:
    """PQ of the searched rows by learning rate."""
    if not results.searched:
        return []
    rates = sorted({rate for found in results.searched.values() for rate in found})
    body = []
    for name, found in results.searched.items():
        cells = [
            f"{panoptic_quality(counts_of(found[rate]).sum(axis=0)):.1f}"
            if rate in found
            else "not run"
            for rate in rates
        ]
        taken = rows.chosen_rate(ROWS[name], results.scale)
        body.append([f"`{name}`", *cells, f"{taken:g}"])
    text = (
        f"PQ after all steps, seed {rows.SEEDS[0]}; the same rates for both. Rows with"
        " cross-attention take\nthe rate of the baseline, the others that of `full`.\n"
    )
    head = ("row", *(f"rate {rate:g}" for rate in rates), "taken")
    return ["## Learning rate\n", text, table(head, body)]


def _curves(results: Results, pictures: pathlib.Path) -> list[str]:
    found = {
        name: curve(by_seed, "validation/pq")
        for name, by_seed in results.present()
        if not ROWS[name].weights
    }
    steps = sorted({step for values in found.values() for step in values})
    if not steps:
        return []
    body = [
        [f"`{name}`", *(f"{v[s]:.1f}" if s in v else "" for s in steps)]
        for name, v in found.items()
    ]
    text = "PQ on the held-out scenes while training, means over the seeds.\n"
    shown = _picture(pictures, CURVES_FILE, "Learning curves")
    head = ("row", *(f"step {step}" for step in steps))
    return ["## Learning curves\n", text, table(head, body), *shown]


def _picture(folder: pathlib.Path, name: str, title: str) -> list[str]:
    there = (folder / name).is_file()
    return [f"![{title}]({folder.name}/{name})\n"] if there else []


def _pictures(folder: pathlib.Path) -> list[str]:
    shown = [
        part
        for name in ROWS
        for suffix, title in (("", "Clustering by layer"), ("_attention", "Attention"))
        for part in _picture(folder, f"{name}{suffix}.png", f"{title}: {name}")
    ]
    return ["## Clustering and attention by layer\n", *shown] if shown else []


def _left_out(results: Results) -> list[str]:
    if not results.left_out:
        return []
    lines = [f"- `{name}`: {reason}" for name, reason in results.left_out.items()]
    text = "These results are not of the configs as they are now; no table has them.\n"
    return ["## Left out\n", text, "\n".join(lines)]


def write_document(
    folder: pathlib.Path, scale: Scale = SMALL, changes: Sequence[str] = ()
) -> None:
    """Writes the document of the results in a folder beside its parent.

    Args:
      folder: such as docs/ablation/results, for docs/ablation.md.
      scale: of the trainings.
      changes: "path=value" that the results were made with, besides.

    Raises:
      InputError: results do not belong together.
    """
    results = read(folder, scale, changes)
    pictures = folder.parent
    if results.all():
        plot_curves(results, pictures / CURVES_FILE)
    with atomic_write(pictures.with_suffix(".md"), "w") as file:
        file.write(document(results, pictures))
