"""Measures every network of configs/coco; writes docs/fidelity.md and config headers.

Usage: python tools/fidelity.py     (about 4 minutes of CPU time, 2 GB of memory)
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import re
from collections.abc import Iterable

from fidelity_text import Measured, crop, document, header

from cmt.config import load_experiment
from cmt.factory import build_model
from cmt.zoo.cost import count_multiply_adds, count_parameters
from cmt.zoo.published import COST_SIZE, PUBLISHED

ROOT = pathlib.Path(__file__).resolve().parent.parent


def networks() -> dict[str, list[str]]:
    """Returns configs by the first config that has the same network."""
    groups: dict[bytes, list[str]] = {}
    for name in PUBLISHED:
        model = load_experiment(name).model
        # Neither changes what is computed.
        model.ClearField("recompute")
        model.ClearField("precision")
        groups.setdefault(model.SerializeToString(deterministic=True), []).append(name)
    return {names[0]: names for names in groups.values()}


def measure(names: Iterable[str]) -> Measured:
    """Builds the network of configs that share it, and counts at all their sizes."""
    first, *_ = names = list(names)
    network = build_model(load_experiment(first).model)
    network.build((None, 65, 65, 3))
    sizes = [*dict.fromkeys(map(crop, names)), COST_SIZE]
    return Measured(
        count_parameters(network),
        {size: count_multiply_adds(network, size) for size in sizes},
    )


def write_headers(counted: dict[str, Measured]) -> None:
    """Puts the figures into the configs, between `Hardware` and `Weights`."""
    for name, measured in counted.items():
        path = ROOT / "configs" / f"{name}.textproto"
        before = path.read_text(encoding="utf-8")
        places = re.findall(r"^# Expected:.*?(?=^# Weights:)", before, re.M | re.S)
        if len(places) != 1:
            raise SystemExit(f"{path}: no lines '# Expected:' to '# Weights:'")
        after = before.replace(places[0], header(name, measured))
        path.write_text(after, encoding="utf-8")


def main() -> None:
    """Measures, and writes the document and the headers."""
    groups = networks()
    counted = {}
    for number, (name, names) in enumerate(groups.items(), start=1):
        counted |= dict.fromkeys(names, measure(names))
        print(f"{number} of {len(groups)}: {name}", flush=True)
    counted = {name: counted[name] for name in PUBLISHED}
    path = ROOT / "docs" / "fidelity.md"
    path.write_text(document(counted), encoding="utf-8")
    write_headers(counted)


if __name__ == "__main__":
    main()
