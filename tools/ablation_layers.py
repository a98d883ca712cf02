"""The tables of docs/ablation.md about single layers: location and attention."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from ablation_results import Results
from ablation_rows import ROWS

# Rows that differ in clustering, the one without it first.
_PAIRS = (("baseline", "clustering"), ("decoder", "decoder_clustering"))
# Numbers compared between the rows of a pair, with their formats, by title.
_COMPARED = {
    "attention": ("attention", ".1f"),
    "attention plus assignment": ("update", ".1f"),
    "attention plus assignment, on the mask": ("update_on_mask", ".0%"),
}
_MISSING = "-"
_LOCATION = """\
R2 of the mean of a matched center's reference points as a prediction of
its mask's centroid (no line fitted), in h and in w, then the mask approximation loss
(Eq. 13). Held-out scenes, means over the seeds.
"""
_DENSITY = """\
Fig. 1 as numbers, of the centers that are matched with a mask: the effective
number of pixels (exp of the entropy) of a center's attention, a mean of the heads; the
same of attention plus assignment, as Eq. 7 adds them; the shares of both that lie on
the center's final mask. With k-means centers attend to no pixels. Held-out scenes,
means over the seeds.
"""
_RISES = """\
Does the density rise with clustering? Below are the number of the row without
it, that of the row with it, and in how many of the seeds that both have it is higher:
first the effective number of pixels, then what Fig. 1 shows, how much of a center's
update comes from the pixels of its own mask.
"""


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def layers(results: Results) -> list[str]:
    """Returns the sections about layers, as far as there are results for them."""
    parts = []
    if located := _layer_table(results, "location", _located):
        parts += ["## Location by layer\n", _LOCATION, located]
    if density := _layer_table(results, "attention_density", _dense):
        parts += ["## Attention density by layer\n", _DENSITY, density]
    if rises := _rises(results):
        head = ("rows", "layer", *_COMPARED)
        parts += [_RISES, table(head, rises)]
    return parts


def _means(layer: Sequence[dict[str, float]], *formats: tuple[str, str]) -> str:
    """The means over the seeds of some numbers of a layer."""
    return ", ".join(
        format(np.mean([numbers[key] for numbers in layer]), form)
        if key in layer[0]
        else _MISSING
        for key, form in formats
    )


def _located(layer: Sequence[dict[str, float]]) -> str:
    keys = (("r2_h", ".2f"), ("r2_w", ".2f"), ("mask_approximation", ".3f"))
    return _means(layer, *keys)


def _dense(layer: Sequence[dict[str, float]]) -> str:
    keys = (("attention", ".1f"), ("update", ".1f"))
    keys += (("attention_on_mask", ".0%"), ("update_on_mask", ".0%"))
    return _means(layer, *keys)


def _layer_table(
    results: Results, field: str, text: Callable[[list[Any]], str]
) -> str | None:
    """A table of a field that is a list by layer; `text` gets a layer of all seeds."""
    found = {
        name: [r[field] for r in by_seed.values() if field in r]
        for name, by_seed in results.present()
        if not ROWS[name].weights
    }
    found = {name: values for name, values in found.items() if values}
    if not found:
        return None
    most = max(len(values[0]) for values in found.values())
    body = []
    for name, values in found.items():
        cells = [text(list(layer)) for layer in zip(*values, strict=True)]
        body.append([f"`{name}`", *cells, *[""] * (most - len(cells))])
    return table(("row", *(f"layer {n + 1}" for n in range(most))), body)


def _rises(results: Results) -> list[list[str]]:
    """Density without and with clustering, layer by layer."""
    body = []
    for names in _PAIRS:
        both = [results.by_row.get(name, {}) for name in names]
        seeds = sorted({*both[0]} & {*both[1]})
        pairs = [[group[seed]["attention_density"] for group in both] for seed in seeds]
        for layer in range(len(pairs[0][0]) if pairs else 0):
            cells = []
            for key, form in _COMPARED.values():
                numbers = np.array([[x[layer][key] for x in pair] for pair in pairs])
                before, after = numbers.mean(axis=0)
                higher = int((numbers[:, 1] > numbers[:, 0]).sum())
                shown = f"{before:{form}}, {after:{form}}"
                cells.append(f"{shown}, {higher} of {len(seeds)}")
            title = f"`{names[0]}` to `{names[1]}`"
            body.append([title, str(layer + 1), *cells])
    return body
