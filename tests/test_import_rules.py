"""Who may import whom: the arrows of the package, walked in its source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Package of each folder; what the files of a room may import besides themselves.
FOLDERS = {"cmt": "cmt", "data": "cmt.data", "evaluation": "cmt.evaluation"}
FOLDERS |= {"serving": "cmt.serving", "trainer": "cmt.trainer"}
FOLDERS |= {"protos": "cmt.protos", "configs": "cmt.configs"}
CORE = ("cmt", "cmt.layers", "cmt.losses", "cmt.matching", "cmt.weights", "cmt.zoo")
FORMAT = ("cmt.io", "cmt.errors", "cmt.labels", "cmt.outputs")
ALLOWED = {
    "cmt": CORE,
    "cmt.layers": ("cmt",),
    "cmt.losses": ("cmt", "cmt.matching"),
    "cmt.matching": ("cmt",),
    "cmt.weights": ("cmt",),
    "cmt.zoo": ("cmt",),
    "cmt.io": ("cmt.errors",),
    "cmt.cli": (*CORE, "cmt.io", "cmt.data", "cmt.serving")
    + ("cmt.evaluation", "cmt.trainer"),
    "cmt.data": FORMAT,
    "cmt.evaluation": (*CORE, "cmt.io", "cmt.data", "cmt.serving"),
    "cmt.serving": (*CORE, "cmt.io", "cmt.data", "cmt.evaluation"),
    "cmt.trainer": (*CORE, "cmt.io", "cmt.data", "cmt.evaluation", "cmt.serving"),
    "cmt.protos": (),
    "cmt.configs": (),
}
# What the top of a command's file may import, so that `cmt --help` loads nothing heavy.
LIGHT = {"cmt", "cmt.errors", "typer"}
# What a command imports only when it runs.
LATE = {"cmt.cli.demo_run"}


def module_name(path: Path) -> str:
    """Returns the import name of a file given relative to the checkout."""
    parts = [FOLDERS[path.parts[0]], *path.with_suffix("").parts[1:]]
    return ".".join(parts).removesuffix(".__init__")


def area(module: str) -> str:
    """Returns the longest name of ALLOWED that holds a module."""
    holding = [name for name in ALLOWED if f"{module}.".startswith(f"{name}.")]
    return max(holding, key=len)


def imported(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """Yields every module of ours that a tree imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in inner]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "cmt")


def may_import(importer: str, target: str) -> bool:
    """True where the arrow is one of the house style's."""
    if area(target) == "cmt.cli":
        return area(importer) == "cmt.cli" or importer == "cmt.__main__"
    if area(target) == "cmt.protos":
        leaf = importer.split(".")[-1]
        inside = area(importer) in ("cmt.protos", "cmt.cli")
        return inside or importer == "cmt.config" or leaf in ("factory", "open")
    allowed = (area(importer), *ALLOWED[area(importer)])
    return target in allowed or area(target) in allowed


@pytest.fixture(scope="module")
def sources(checkout) -> dict[str, ast.Module]:
    """Syntax tree of every module but the generated ones."""
    return {
        module_name(path.relative_to(checkout)): ast.parse(path.read_text())
        for folder in FOLDERS
        for path in sorted((checkout / folder).rglob("*.py"))
        if not path.name.endswith("_pb2.py")
    }


def test_no_arrow_but_the_allowed_ones(sources, checkout):
    generated = {f"cmt.protos.{p.stem}" for p in (checkout / "protos").glob("*_pb2.py")}
    known = set(sources) | generated
    arrows = [
        (importer, target)
        for importer, tree in sources.items()
        for target in imported(tree, known)
    ]
    assert len(arrows) > 20
    assert not [f"{a} -> {b}" for a, b in arrows if not may_import(a, b)]


@pytest.mark.parametrize(
    ("importer", "target", "allowed"),
    [
        ("cmt.trainer.train", "cmt.evaluation.evaluate", True),
        ("cmt.trainer.train", "cmt.model", True),
        ("cmt.evaluation.evaluate", "cmt.data.input.pipeline", True),
        ("cmt.evaluation.evaluate", "cmt.trainer.train", False),
        ("cmt.data.input.pipeline", "cmt.outputs", True),
        ("cmt.data.input.pipeline", "cmt.model", False),
        ("cmt.data.input.open", "cmt.protos.data_pb2", True),
        ("cmt.data.input.pipeline", "cmt.protos.data_pb2", False),
        ("cmt.model", "cmt.data.input.pipeline", False),
        ("cmt.model", "cmt.layers.conv", True),
        ("cmt.model", "cmt.cli.main", False),
        ("cmt.__main__", "cmt.cli.main", True),
        ("cmt.cli.train", "cmt.trainer.train", True),
        ("cmt.trainer.train", "cmt.cli.train", False),
    ],
)
def test_the_rule_itself(importer, target, allowed):
    assert may_import(importer, target) is allowed


def test_commands_import_nothing_heavy_at_the_top(sources):
    heavy = []
    for module, tree in sources.items():
        if area(module) != "cmt.cli" or module in LATE:
            continue
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                first = getattr(node, "module", None) or node.names[0].name
                own = first.startswith("cmt.cli")
                standard = first.split(".")[0] in sys.stdlib_module_names
                if not (own or standard or first in LIGHT):
                    heavy.append(f"{module}: {first}")
    assert not heavy


def test_nobody_imports_another_keras(sources):
    wrong = [
        module
        for module, tree in sources.items()
        for node in ast.walk(tree)
        if (
            isinstance(node, ast.Attribute)
            and node.attr == "keras"
            and getattr(node.value, "id", "") == "tf"
        )
        or (isinstance(node, ast.Import) and any(a.name == "keras" for a in node.names))
        or (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] == "keras"
        )
        or (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").startswith("tensorflow.keras")
        )
    ]
    assert not wrong


@pytest.mark.parametrize(
    "statement",
    [
        "import cmt; dir(cmt); cmt.__version__",
        "import cmt.config; cmt.config.load_experiment('scenes/tiny')",
        "import cmt.cli.main",
        "import sys; from cmt.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_light_imports_load_no_tensorflow(statement):
    code = (
        f"import sys\n{statement}\n"
        "heavy = {'tensorflow', 'tf_keras', 'keras', 'jax', 'scipy', 'matplotlib',"
        " 'numpy', 'cmt.trainer', 'cmt.evaluation', 'cmt.data'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "if 'cli' not in " + repr(statement) + ":\n"
        "    assert not [m for m in sys.modules if m.startswith('cmt.cli')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_of_cmt_resolves():
    import cmt

    for name in cmt.__all__:
        assert getattr(cmt, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cmt.nothing
