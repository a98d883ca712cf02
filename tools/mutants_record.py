"""Copies of the checkout, and its tests run in them: which test runs which line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable

HERE = pathlib.Path(__file__).resolve().parent
FOLDERS = ("cmt", "data", "evaluation", "trainer", "serving")
# Tests of the checkout itself: its style, its wheel, its generated files.
LEFT_OUT = ("test_style.py", "test_packaging.py", "test_protos.py")
NOT_COPIED = (".git", ".venv", "__pycache__", ".*_cache", "build", "dist", "runs")
COVERAGE = """\
[run]
parallel = true
data_file = {folder}/coverage
include = {copy}/*
omit = {copy}/tests/*
context = ${{PYTEST_CURRENT_TEST-}}
"""


# ------------------------------------------------------------- copies of the checkout


def make_copy(root: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Copies the checkout to folder/checkout; folder/package holds it as `cmt`."""
    shutil.rmtree(folder, ignore_errors=True)
    copy = folder / "checkout"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    package = folder / "package" / "cmt"
    package.mkdir(parents=True)
    for entry in (copy / "cmt").iterdir():
        (package / entry.name).symlink_to(entry)
    for entry in copy.iterdir():
        is_part = (entry / "__init__.py").is_file()
        if is_part and entry.name not in ("cmt", "tests", "tools", "benchmarks"):
            (package / entry.name).symlink_to(entry)
    return copy


def start_tests(
    copy: pathlib.Path,
    files: Iterable[str],
    log: pathlib.Path,
    *options: str,
    **variables: object,
) -> subprocess.Popen:
    """Starts pytest in a copy, with its `cmt` and the plugin on the path."""
    package = copy.parent / "package"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(package), str(HERE)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",
        **{name: str(value) for name, value in variables.items()},
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "mutants_plugin", "-o", f"pythonpath={package} .", *options]
    with log.open("w") as stream:
        return subprocess.Popen(
            [*command, *files],
            cwd=copy,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


# -------------------------------------------------------- the suite once, with coverage


def fingerprint(root: pathlib.Path) -> str:
    """One digest of the sources and the tests."""
    digest = hashlib.sha256()
    for folder in (*FOLDERS, "protos", "configs", "tests"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(root)}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def record(root: pathlib.Path, work: pathlib.Path, processes: int) -> None:
    """Runs the suite, its files shared between processes, and fills work/record."""
    folder = work / "record"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    copy = make_copy(root, work / "recorded")
    settings = folder / "settings"
    settings.write_text(COVERAGE.format(folder=folder, copy=copy))
    tests = [p for p in (copy / "tests").rglob("test_*.py") if p.name not in LEFT_OUT]
    groups: list[list[pathlib.Path]] = [[] for _ in range(processes)]
    for path in sorted(tests, key=lambda path: (-path.stat().st_size, path)):
        lightest = min(groups, key=lambda group: sum(p.stat().st_size for p in group))
        lightest.append(path)
    running = [
        start_tests(
            copy,
            sorted(str(path.relative_to(copy)) for path in group),
            folder / f"log-{i}",
            MUTANTS_COVERAGE=settings,
            MUTANTS_RESULT=folder / f"result-{i}.json",
        )
        for i, group in enumerate(groups)
    ]
    for process in running:
        process.wait()
    (folder / "fingerprint").write_text(fingerprint(root))


@dataclasses.dataclass
class Record:
    """Seconds of each test that passes; the tests that run each line of each file."""

    seconds: dict[str, float]
    failed: list[str]
    lines: dict[str, dict[int, set[str]]]


def read_record(work: pathlib.Path) -> Record:
    """Puts together what the processes of the recorded run have left."""
    import coverage

    seconds, failed = {}, []
    for path in sorted((work / "record").glob("result-*.json")):
        result = json.loads(path.read_text())
        seconds |= result["seconds"]
        failed += result["failed"]
    for name in failed:
        seconds.pop(name, None)
    (work / "record" / "coverage").unlink(missing_ok=True)
    together = coverage.Coverage(work / "record" / "coverage", config_file=False)
    together.combine([str(work / "record")], keep=True)
    data, copy = together.get_data(), (work / "recorded" / "checkout").resolve()
    lines: dict[str, dict[int, set[str]]] = {}
    for name in data.measured_files():
        file = str(pathlib.Path(name).relative_to(copy))
        lines[file] = {
            line: {re.sub(r" \((setup|call|teardown)\)$", "", c) for c in contexts}
            & seconds.keys()
            for line, contexts in data.contexts_by_lineno(name).items()
        }
    return Record(seconds, failed, lines)
