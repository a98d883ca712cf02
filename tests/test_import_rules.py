"""Who may import whom: the arrows of the package, walked in its source."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tools import rooms

# What the top of a command's file may import, so that `cmt --help` loads nothing heavy.
LIGHT = {"cmt", "cmt.errors", "cmt.io.terminal", "typer"}
# What a command imports only when it runs.
LATE = {"cmt.cli.demo_run"}


@pytest.fixture(scope="module")
def sources() -> dict[str, ast.Module]:
    return rooms.read_sources()


def test_no_arrow_but_the_allowed_ones(sources):
    arrows = list(rooms.find_arrows(sources))
    assert len(arrows) > 300
    assert not [f"{a} -> {b}" for a, b in arrows if not rooms.may_import(a, b)]


def test_an_arrow_is_found_wherever_it_is_written():
    text = """
import os, cmt.model
def late():
    from cmt.data import panoptic
    from cmt.trainer.train import train
    from .near import thing
"""
    found = rooms.find_arrows(
        {"cmt.io.files": ast.parse(text), "cmt.data.panoptic": ast.parse("")}
    )
    assert [target for _, target in found] == [
        "cmt.model",
        "cmt.data.panoptic",
        "cmt.trainer.train",
    ]


def test_imports_are_absolute(sources):
    relative = [
        module
        for module, tree in sources.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_data_has_rooms_and_no_files_beside_them(sources, checkout):
    assert [p.name for p in (checkout / "data").glob("*.py")] == ["__init__.py"]
    for room in rooms.ARROWS:
        assert room in sources, f"{room} is no folder"
    inner = {m for m in sources if m.startswith("cmt.data.")}
    assert {rooms.room_of(m) for m in inner} == {
        f"cmt.data.{name}"
        for name in ("panoptic", "checks", "convert", "records", "input", "scenes")
    }


def test_the_tool_prints_what_it_finds(capsys, monkeypatch):
    monkeypatch.setattr(
        rooms,
        "read_sources",
        lambda: {
            "cmt.io.files": ast.parse("import cmt.errors"),
        },
    )
    assert rooms.main() == 0
    assert "cmt.io -> cmt\n" in capsys.readouterr().out
    monkeypatch.setattr(
        rooms,
        "read_sources",
        lambda: {
            "cmt.io.files": ast.parse("import cmt.model"),
        },
    )
    assert rooms.main() == 1
    assert capsys.readouterr().err == "forbidden: cmt.io.files -> cmt.model\n"


@pytest.mark.parametrize(
    ("importer", "target", "allowed"),
    [
        ("cmt.trainer.train", "cmt.evaluation.evaluate", True),
        ("cmt.trainer.train", "cmt.serving.factory", True),
        ("cmt.trainer.train", "cmt.model", True),
        ("cmt.evaluation.evaluate", "cmt.data.input.pipeline", True),
        ("cmt.evaluation.evaluate", "cmt.data.checks.json", False),
        ("cmt.evaluation.evaluate", "cmt.trainer.train", False),
        ("cmt.evaluation.evaluate", "cmt.serving.predictor", False),
        ("cmt.serving.predict", "cmt.evaluation.evaluate", False),
        ("cmt.serving.predict", "cmt.weights.load", True),
        ("cmt.data.input.pipeline", "cmt.outputs", True),
        ("cmt.data.input.pipeline", "cmt.data.checks.problems", True),
        ("cmt.data.input.pipeline", "cmt.data.convert.shards", False),
        ("cmt.data.input.pipeline", "cmt.model", False),
        ("cmt.data.convert.shards", "cmt.data.records.manifest", True),
        ("cmt.data.convert.shards", "cmt.data.input.pipeline", False),
        ("cmt.data.checks.json", "cmt.data.panoptic.json", True),
        ("cmt.data.checks.json", "cmt.data.records.manifest", False),
        ("cmt.data.records.manifest", "cmt.data.panoptic.json", True),
        ("cmt.data.records.manifest", "cmt.data.checks.json", False),
        ("cmt.data.panoptic.json", "cmt.data.checks.json", False),
        ("cmt.data.panoptic.registry", "cmt.data.records.manifest", False),
        ("cmt.data.panoptic.json", "cmt.io.storage", True),
        ("cmt.io.storage", "cmt.data.panoptic.json", False),
        ("cmt.io.storage", "cmt.errors", True),
        ("cmt.io.storage", "cmt.outputs", False),
        ("cmt.data.scenes.generate", "cmt.data.panoptic.predictions", True),
        ("cmt.data.scenes.generate", "cmt.data.records.manifest", False),
        ("cmt.data.input.open", "cmt.protos.data_pb2", True),
        ("cmt.data.input.pipeline", "cmt.protos.data_pb2", False),
        ("cmt.config", "cmt.protos.data_pb2", True),
        ("cmt.model", "cmt.protos.model_pb2", False),
        ("cmt.model", "cmt.data.input.pipeline", False),
        ("cmt.weights.load", "cmt.serving.factory", False),
        ("cmt.model", "cmt.layers.conv", True),
        ("cmt.model", "cmt.cli.main", False),
        ("cmt.__main__", "cmt.cli.main", True),
        ("cmt.cli.train", "cmt.trainer.train", True),
        ("cmt.trainer.train", "cmt.cli.train", False),
    ],
)
def test_the_rule_itself(importer, target, allowed):
    assert rooms.may_import(importer, target) is allowed


def test_commands_import_nothing_heavy_at_the_top(sources):
    heavy = []
    for module, tree in sources.items():
        if rooms.room_of(module) != "cmt.cli" or module in LATE:
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


def test_classes_are_found_where_scripts_of_users_look():
    from cmt.data.categories import Category
    from cmt.data.panoptic import categories

    assert Category is categories.Category
