"""Every kind of problem or note that `cmt data validate` prints is in docs/data.md."""

from __future__ import annotations

import pathlib
import re

from cmt.data.checks.problems import Kind

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_every_kind_has_its_line():
    rows = [
        line.split("|")[1]
        for line in (ROOT / "docs" / "data.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    told = {name.strip() for row in rows for name in row.split("`")[1::2]}
    assert {kind.value for kind in Kind} - told == set()


def test_every_kind_is_made_somewhere():
    files = [*(ROOT / "data/checks").glob("*.py"), ROOT / "data/panoptic/amend.py"]
    text = "".join(path.read_text() for path in files)
    used = set(re.findall(r"Kind\.([A-Z_]+)", text))
    # Kinds of faults of image files come by their text.
    faults = {"TRUNCATED", "DAMAGED", "NO_IMAGE", "TOO_LARGE", "NO_MASK"}
    assert {kind.name for kind in Kind} == used | faults
