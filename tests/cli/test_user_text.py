"""Names that users gave: brackets, any letters, in any locale and terminal."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len

from cmt.data.panoptic.categories import Category
from cmt.data.panoptic.predictions import write_predictions
from cmt.io import progress, terminal
from tools import rooms

LONG = "wall-other-merged-and-more-than-fits-into-a-line"
NAMES = (
    "[background]",
    "crack [wide]",
    "water [/shallow]",
    "[link=x]road[/link]",
    "sign :car:",
    "back\\[slash",
    "猫",
    "犬",
    "собака",
    "تفاحة",
    "🚗",
    "{task.total}",
    LONG,
)
UTF8 = {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"}
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}


class Terminal(io.TextIOWrapper):
    """A stream to people, of a given encoding."""

    def __init__(self, encoding: str):
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.flush()
        shown = self.buffer.getvalue().decode(self.encoding)
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


@pytest.fixture
def open_terminal(monkeypatch):
    """Makes both streams a terminal of an encoding and a width."""

    def open_both(encoding: str, columns: int) -> Terminal:
        stream = Terminal(encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        terminal.accept_all_text()
        return stream

    return open_both


def cells(shown: str) -> list[list[str]]:
    lines = [re.split("[│┃|]", line) for line in shown.splitlines() if "--" not in line]
    return [[cell.strip() for cell in line[1:-1]] for line in lines if len(line) > 2]


def print_scores() -> None:
    columns = {"class": terminal.TEXT, "kind": terminal.LABEL, "PQ": terminal.NUMBER}
    columns |= dict.fromkeys(("SQ", "% of RQ", "TP"), terminal.NUMBER)
    rows = [(name, "stuff", *["100.00"] * 3, str(i)) for i, name in enumerate(NAMES)]
    terminal.print_table(columns, rows, title="[b]title")


def test_a_table_in_a_file_has_every_name_in_its_row(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    print_scores()
    shown = capsys.readouterr().out
    assert "[b]title" in shown
    assert [row[0] for row in cells(shown)] == ["class", *NAMES]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("columns", [20, 40, 80])
def test_a_terminal_gets_every_letter(open_terminal, encoding, columns):
    stream = open_terminal(encoding, columns)
    print_scores()
    rows = cells(stream.text())
    assert rows[0] == ["class", "kind", "PQ", "SQ", "% of RQ", "TP"]
    found = {}
    for name, *others in rows[1:]:
        if others[-1]:  # Else a name goes on.
            last = others[-1]
            assert others[:4] == ["stuff", "100.00", "100.00", "100.00"]
        found[int(last)] = found.get(int(last), "") + name
    expected = [n.encode(encoding, "backslashreplace").decode(encoding) for n in NAMES]
    # The blank at which a line is broken is not seen.
    assert [found[i].replace(" ", "") for i in range(len(NAMES))] == [
        name.replace(" ", "") for name in expected
    ]
    assert max(map(cell_len, stream.text().splitlines())) <= max(columns, 60)
    if encoding != "utf-8":  # There, letters are as wide as they are many.
        table = [line for line in stream.text().splitlines() if "class" not in line]
        assert len({len(line.rstrip()) for line in table[1:]}) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("columns", [40, 100])
def test_a_bar_takes_what_stands_in_front_as_text(open_terminal, encoding, columns):
    stream = open_terminal(encoding, columns)
    for name in NAMES[:-1]:
        assert list(progress.track(iter("ab"), description=name)) == ["a", "b"]
    shown = stream.text()
    for name in NAMES[:-1]:
        assert name.encode(encoding, "backslashreplace").decode(encoding) in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("猫 [x]", "猫 [x]"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("two\nlines", "two\\nlines"),
        ("caf\udce9.jpg", "caf\\udce9.jpg"),
    ],
)
def test_what_would_steer_a_terminal_is_escaped(text, shown, capsys):
    assert terminal.printable(text) == shown
    terminal.print_table({"image": terminal.TEXT}, [(text,)])
    assert cells(capsys.readouterr().out) == [["image"], [shown]]


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "cmt", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
    )


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A folder that is called [猫], of images and classes with such names."""
    folder = tmp_path_factory.mktemp("text") / "[猫]"
    colors = [(10 * index + 5, 90, 200) for index in range(len(NAMES))]
    categories = [
        Category(number, name, True, color)
        for number, (name, color) in enumerate(zip(NAMES, colors, strict=True), 1)
    ]
    panoptic = np.repeat(np.arange(1, len(NAMES) + 1) * 1000 + 1, 4)
    panoptic = np.tile(panoptic, (16, 1)).astype(np.int32)
    (folder / "images").mkdir(parents=True)
    with write_predictions(folder, categories) as writer:
        for index, name in enumerate(("猫[1].jpg", "تفاحة.jpg")):
            writer.add(index, name, panoptic)
            Image.new("RGB", panoptic.shape[::-1]).save(folder / "images" / name)
    return folder


def options(folder, prefix: str = "") -> list[object]:
    return [f"--{prefix}", folder / "panoptic.json"] + [
        f"--{prefix}-masks",
        folder / "panoptic",
    ]


@pytest.mark.check
@pytest.mark.parametrize("environment", [UTF8, ASCII], ids=["utf-8", "ascii"])
def test_commands_end_well_in_every_locale(named, tmp_path, environment):
    encoding = environment["PYTHONIOENCODING"]
    escaped = [name.encode(encoding, "backslashreplace") for name in NAMES]
    source = ["--images", named / "images", "--annotations", named / "panoptic.json"]
    source += ["--masks", named / "panoptic"]

    done = run("data", "validate", *source, **environment)
    assert done.returncode == 0, done.stderr.decode()

    done = run("score", *options(named, "gt"), *options(named, "pred"), **environment)
    assert done.returncode == 0, done.stderr.decode()
    assert not [name for name in escaped if name not in done.stdout]

    output = tmp_path / "皿 [out]"
    done = run(
        *("data", "convert", *source, "--output", output, "--split", "val"),
        **environment,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert str(output).encode(encoding, "backslashreplace") in done.stdout
    manifest = json.loads((output / "val.manifest.json").read_text("utf-8"))
    assert [item["name"] for item in manifest["categories"]] == list(NAMES)

    done = run("data", "inspect", output, **environment)
    assert done.returncode == 0, done.stderr.decode()
    assert not [name for name in escaped if name not in done.stdout]

    shutil.copytree(named, tmp_path / "gone")
    (tmp_path / "gone" / "images" / "猫[1].jpg").unlink()
    source += ["--images", tmp_path / "gone" / "images", "--output", tmp_path / "no"]
    done = run("data", "convert", *source, "--split", "val", **environment)
    assert done.returncode == 2 and b"Traceback" not in done.stderr
    assert "猫[1].jpg".encode(encoding, "backslashreplace") in done.stderr


def test_a_file_that_a_locale_cannot_name_is_one_line(monkeypatch):
    from cmt.cli.main import explain

    with pytest.raises(UnicodeEncodeError) as caught:
        "photos/猫.jpg".encode("latin-1")
    code, line = explain(caught.value)
    assert code == 2
    assert line.startswith("photos/猫.jpg: ") and "latin-1" in line
    assert "PYTHONUTF8=1" in line


def rich_use(tree: ast.AST) -> list[str]:
    """What code takes of rich that reads markup: consoles, tables, columns of texts."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if name != "rich.progress"]
        elif isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] == "rich"]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in (
            "TextColumn",
            "from_markup",
        ):
            told = {key.arg: getattr(key.value, "value", None) for key in node.keywords}
            if told.get("markup") is not False:
                found.append(ast.unparse(node))
    return found


def test_only_the_terminal_opens_consoles_and_tables():
    sources = rooms.read_sources()
    found = {name: rich_use(tree) for name, tree in sources.items()}
    assert [name for name, used in found.items() if used] == ["cmt.io.terminal"]


@pytest.mark.parametrize(
    "text",
    [
        "def late():\n    from rich.console import Console",
        "from rich import print",
        "import rich.table",
        "progress.TextColumn('{task.description}')",
    ],
)
def test_use_of_markup_is_found(text):
    assert len(rich_use(ast.parse(text))) == 1
