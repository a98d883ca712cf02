"""What pytest loads for `mutants.py`: it records a run, or runs the tests asked for.

The variables of the environment say which:
    MUTANTS_COVERAGE  settings of coverage: record which test runs which line;
    MUTANTS_RESULT    then a json for the seconds of the tests and those that failed;
    MUTANTS_TESTS     a json with the tests to run, in this order;
    MUTANTS_KILLER    a file for the name of the first that fails, three times.
"""

from __future__ import annotations

import json
import os
import pathlib

import pytest
from _pytest.runner import runtestprotocol

TRIES = 3
_seconds: dict[str, float] = {}
_failed: list[str] = []
_coverage = None


def pytest_load_initial_conftests() -> None:
    """Starts coverage, in this process and in those that it starts.

    The latter find the name of the test in $PYTEST_CURRENT_TEST.
    """
    global _coverage
    if settings := os.environ.get("MUTANTS_COVERAGE"):
        import coverage

        _coverage = coverage.Coverage(config_file=settings)
        _coverage.start()
        os.environ["COVERAGE_PROCESS_START"] = settings


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list) -> None:
    if path := os.environ.get("MUTANTS_TESTS"):
        tests = json.loads(pathlib.Path(path).read_text())
        order = {name: i for i, name in enumerate(tests)}
        wanted = [item for item in items if item.nodeid in order]
        items[:] = sorted(wanted, key=lambda item: order[item.nodeid])


def pytest_runtest_protocol(item, nextitem) -> bool | None:
    """Counts as failed what fails TRIES times: some tests mind a busy machine."""
    if "MUTANTS_KILLER" not in os.environ:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for _ in range(TRIES):
        item._initrequest()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if not any(report.failed for report in reports):
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_runtest_logstart(nodeid: str) -> None:
    if _coverage:
        _coverage.switch_context(nodeid)


def pytest_runtest_logreport(report) -> None:
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration
    if report.failed:
        if not _failed and "MUTANTS_KILLER" in os.environ:
            pathlib.Path(os.environ["MUTANTS_KILLER"]).write_text(report.nodeid)
        _failed.append(report.nodeid)


def pytest_sessionfinish() -> None:
    if _coverage:
        _coverage.stop()
        _coverage.save()
        result = {"seconds": _seconds, "failed": _failed}
        pathlib.Path(os.environ["MUTANTS_RESULT"]).write_text(json.dumps(result))
