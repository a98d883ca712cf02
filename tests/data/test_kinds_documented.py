"""Every kind of problem or note that `cmt data validate` prints is in docs/data.md."""

from __future__ import annotations

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What is called with a kind first.
_MAKERS = ("Problem", "ImageFault", "_add", "_problem", "_note")


def kinds() -> set[str]:
    """The first argument of each call that makes a problem, from the sources."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "data").rglob("*.py")]
    constants = {
        target.id: node.value.value
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
    }
    found = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        named = [word.value for word in node.keywords if word.arg == "kind"]
        kind = (named or node.args)[0]
        if name in _MAKERS and isinstance(kind, ast.Constant):
            found.add(kind.value)
        elif name in _MAKERS and isinstance(kind, ast.Name):
            found.add(constants.get(kind.id))
    # Of categories all faults but those named are of one kind; a message is first.
    return {kind for kind in found if isinstance(kind, str) and '"' not in kind}


def test_every_kind_has_its_line():
    rows = [
        line.split("|")[1]
        for line in (ROOT / "docs" / "data.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    told = {name.strip() for row in rows for name in row.split("`")[1::2]}
    found = kinds()
    assert {"missing file", "too large", "segment id", "label range", "area"} <= found
    assert found - told == set()
