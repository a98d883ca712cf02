"""The ceilings of the house style."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("cmt", "data", "evaluation", "serving", "trainer")
FOLDERS += ("tests", "tools", "benchmarks")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def _sources(checkout: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted((checkout / folder).rglob("*.py"))


def test_no_file_is_too_long(checkout):
    lengths = {path: len(path.read_text().splitlines()) for path in _sources(checkout)}
    assert {p.name: n for p, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_no_function_is_too_long(checkout):
    long = []
    for path in _sources(checkout):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                text = ast.get_docstring(node, clean=False) or ""
                lines = node.end_lineno - node.lineno + 1 - text.count("\n")
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{path.name}:{node.lineno} {node.name}: {lines}")
    assert not long
