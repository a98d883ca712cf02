"""Prints the rooms of the package and their arrows; ends with 1 on a forbidden one.

    python tools/rooms.py

A room is a folder; an arrow is an import. `ARROWS` is the rule, the house's plan.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
# The package that each folder of the checkout is installed as.
PACKAGES = {"cmt": "cmt"} | {
    folder: f"cmt.{folder}"
    for folder in ("data", "evaluation", "serving", "trainer", "protos", "configs")
}
_CORE = ("cmt", "cmt.layers", "cmt.losses", "cmt.matching", "cmt.weights", "cmt.zoo")
_PLUMBING = ("cmt.io", "cmt.pictures", "cmt.errors", "cmt.labels", "cmt.outputs")
_USED = (*_CORE, "cmt.io", "cmt.pictures", "cmt.data.input", "cmt.data.panoptic")
_RECORDS = ("cmt.data.checks", "cmt.data.records", "cmt.data.panoptic")
# What a room may import besides itself: rooms, or single files where so named.
ARROWS = {
    "cmt": _CORE,
    "cmt.layers": ("cmt",),
    "cmt.losses": ("cmt", "cmt.matching"),
    "cmt.matching": ("cmt",),
    "cmt.weights": ("cmt", "cmt.io"),
    "cmt.zoo": ("cmt",),
    "cmt.io": ("cmt.errors",),
    "cmt.pictures": ("cmt.io", "cmt.labels"),
    "cmt.data": ("cmt.data.panoptic",),
    "cmt.data.panoptic": _PLUMBING,
    "cmt.data.checks": ("cmt.data.panoptic", *_PLUMBING),
    "cmt.data.records": ("cmt.data.panoptic", *_PLUMBING),
    "cmt.data.convert": (*_RECORDS, *_PLUMBING),
    "cmt.data.input": (*_RECORDS, *_PLUMBING),
    "cmt.data.scenes": ("cmt.data.panoptic", *_PLUMBING),
    "cmt.evaluation": _USED,
    "cmt.serving": _USED,
    "cmt.trainer": (*_USED, "cmt.evaluation", "cmt.serving"),
    "cmt.protos": (),
    "cmt.configs": (),
}
ARROWS["cmt.cli"] = tuple(room for room in ARROWS if room != "cmt.protos")
# The files that open configs; the command line does so too.
_OPENERS = ("config", "factory", "open")


def room_of(module: str) -> str:
    """Returns the innermost room that a module is in."""
    rooms = [room for room in ARROWS if f"{module}.".startswith(f"{room}.")]
    return max(rooms, key=len)


def may_import(importer: str, target: str) -> bool:
    """Tells whether the plan has an arrow from a module to another one."""
    here, there = room_of(importer), room_of(target)
    if there == "cmt.cli":
        return here == "cmt.cli" or importer == "cmt.__main__"
    if there == "cmt.protos":
        opens = importer.rpartition(".")[2] in _OPENERS
        return opens or here in ("cmt.cli", "cmt.protos")
    allowed = (here, *ARROWS[here])
    return there in allowed or target in allowed


def read_sources() -> dict[str, ast.Module]:
    """Returns the syntax tree of every module but the generated ones, by its name."""
    sources = {}
    for folder, package in PACKAGES.items():
        for path in sorted((CHECKOUT / folder).rglob("*.py")):
            parts = path.relative_to(CHECKOUT / folder).with_suffix("").parts
            name = ".".join([package, *parts]).removesuffix(".__init__")
            if not name.endswith("_pb2"):
                sources[name] = ast.parse(path.read_text(encoding="utf-8"))
    return sources


def find_arrows(sources: dict[str, ast.Module]) -> Iterator[tuple[str, str]]:
    """Yields (importer, target) of every import of the package, anywhere in a file."""
    generated = {f"cmt.protos.{p.stem}" for p in CHECKOUT.glob("protos/*_pb2.py")}
    known = set(sources) | generated
    for importer, tree in sources.items():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in known else node.module for name in inner]
            for name in names:
                if name and name.split(".")[0] == "cmt":
                    yield importer, name


def main() -> int:
    """Prints each room with the rooms it imports, then what is forbidden."""
    arrows = sorted(set(find_arrows(read_sources())))
    for room in ARROWS:
        targets = {room_of(b) for a, b in arrows if room_of(a) == room}
        print(f"{room} -> {', '.join(sorted(targets - {room})) or 'nothing'}")
    forbidden = [(a, b) for a, b in arrows if not may_import(a, b)]
    for importer, target in forbidden:
        print(f"forbidden: {importer} -> {target}", file=sys.stderr)
    return 1 if forbidden else 0


if __name__ == "__main__":
    sys.exit(main())
