"""The wheel, installed in an environment of its own and used outside the checkout."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import cmt

pytestmark = pytest.mark.check

FOLDERS = ("cmt", "protos", "configs", "trainer", "evaluation", "data", "serving")
FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")

IMPORT_ALL = """
import importlib, pkgutil, sys, cmt
names = [m.name for m in pkgutil.walk_packages(cmt.__path__, "cmt.")]
for name in names:
    importlib.import_module(name)
for name, module in sorted(sys.modules.items()):
    if name == "cmt" or name.startswith("cmt."):
        print(name, module.__file__)
"""


def _run(*command: str | Path, cwd: Path) -> str:
    """Runs a command without the environment's own Python path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory) -> Path:
    """Builds the wheel from a copy, so that nothing built stays in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(checkout / name, source / name, ignore=ignore)
    for name in FILES:
        shutil.copy(checkout / name, source / name)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet")
    _run(*pip, "--no-deps", "--no-build-isolation", "-w", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel, and this one's dependencies, but not its `cmt`.

    The .pth file only adds a folder to the path. The .pth files in that folder, so
    those of an editable install, are not read.
    """
    folder = tmp_path_factory.mktemp("environment")
    _run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    _run(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    find = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = Path(_run(python, "-c", find, cwd=folder).strip())
    ours = sysconfig.get_paths()
    folders = dict.fromkeys((ours["purelib"], ours["platlib"]))
    (site / "dependencies.pth").write_text("\n".join(folders) + "\n")
    return folder


def test_the_wheel_holds_all_files_of_the_package_and_no_tests(wheel, checkout):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in FOLDERS:
        package = "cmt" if folder == "cmt" else f"cmt/{folder}"
        for path in (checkout / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{package}/{path.relative_to(checkout / folder)}" in names
    strange = [
        n for n in names if not re.match(r"cmt/|cmt_deeplab-[\d.]+\.dist-info/", n)
    ]
    assert not strange
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.name.startswith(f"cmt_deeplab-{cmt.__version__}-py3-none-any")


def test_the_commands_work_outside_the_checkout(installed):
    program = installed / "venv" / "bin" / "cmt"
    assert "Usage: cmt" in _run(program, "--help", cwd=installed)
    assert _run(program, "--version", cwd=installed) == f"cmt {cmt.__version__}\n"
    python = installed / "venv" / "bin" / "python"
    shown = _run(python, "-m", "cmt", "config", "show", "scenes/tiny", cwd=installed)
    assert shown == _run(program, "config", "show", "scenes/tiny", cwd=installed)
    assert 'name: "tiny"' in shown


def test_an_installed_package_does_not_break_the_checkout(installed, checkout):
    python = installed / "venv" / "bin" / "python"
    shown = _run(python, "-m", "cmt", "config", "show", "scenes/tiny", cwd=checkout)
    assert 'name: "tiny"' in shown
    names = ("cmt", *(f"cmt.{name}" for name in FOLDERS if name != "cmt"))
    code = f"import {', '.join(names)}"
    code += "".join(f"; print({name}.__file__)" for name in names)
    files = _run(python, "-c", code, cwd=checkout).splitlines()
    assert files == [str(checkout / name / "__init__.py") for name in FOLDERS]


def test_every_module_of_the_wheel_imports(wheel, installed, checkout):
    python = installed / "venv" / "bin" / "python"
    lines = _run(python, "-c", IMPORT_ALL, cwd=installed).splitlines()
    files = dict(line.split(" ", 1) for line in lines)
    assert {"cmt.data", "cmt.trainer", "cmt.evaluation", "cmt.protos"} <= set(files)
    modules = [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith(".py")]
    assert len(set(files.values())) == len(modules)  # One has two names.
    inside = (installed / "venv").resolve()
    assert not [
        f for f in files.values() if not Path(f).resolve().is_relative_to(inside)
    ]
    assert not inside.is_relative_to(checkout)


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_each_python_has_a_pin_of_every_requirement(checkout, version):
    lock = (checkout / "constraints" / f"python{version}.txt").read_text()
    pins = [line for line in lock.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin) for pin in pins)
    pinned = dict(pin.split("==") for pin in pins)
    project = importlib.metadata.distribution("cmt-deeplab")
    classifiers = project.metadata.get_all("Classifier")
    assert f"Programming Language :: Python :: {version}" in classifiers
    assert version in SpecifierSet(project.metadata["Requires-Python"])
    environments = [{"python_version": version, "extra": e} for e in ("test", "beam")]
    wanted = [
        requirement
        for requirement in map(Requirement, project.requires)
        if requirement.name != "cmt-deeplab"
        and (
            requirement.marker is None
            or any(requirement.marker.evaluate(e) for e in environments)
        )
    ]
    assert len(wanted) > 15
    for requirement in wanted:
        pin = pinned[canonicalize_name(requirement.name)]
        assert pin in requirement.specifier, requirement
