"""Changes the sources in small ways, one at a time, and counts what the tests notice.

    pip install coverage
    python tools/mutants.py --seed 1 --work /tmp/mutants --output mutants.json

The suite (its default part) runs once under coverage, unless --work holds such a run of
the same sources. Every mutant then meets, in a copy of the checkout, the tests that run
its line, and after them others that run lines of its file: a fixture's lines are known
for the first test that used it only. Each of the two has a limit on the time its tests
took in the recorded run, the fastest first. Tests that fail without a mutant are not
asked; one that fails is asked three times. A run that does not end counts as killed:
on a busy machine try those again, with --again and more --patience.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import queue
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterable

from mutants_record import (
    FOLDERS,
    HERE,
    Record,
    fingerprint,
    make_copy,
    read_record,
    record,
    start_tests,
)
from mutants_sites import Site, describe, is_other_program, sites

STARTING_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Mutant:
    file: str
    site: Site
    before: str
    after: str


def draw(root: pathlib.Path, number: int, seed: int) -> tuple[list[Mutant], int]:
    """Mutants at sites of which none is likelier, and how many sites there are."""
    sources = {
        str(path.relative_to(root)): path.read_bytes()
        for folder in FOLDERS
        for path in (root / folder).rglob("*.py")
        if not path.name.endswith("_pb2.py")
    }
    pairs = [(file, site) for file in sorted(sources) for site in sites(sources[file])]
    drawn = []
    for file, site in random.Random(seed).sample(pairs, len(pairs)):
        if len(drawn) == number:
            break
        if is_other_program(sources[file], site):
            drawn.append(Mutant(file, site, *describe(sources[file], site)))
    return drawn, len(pairs)


def within(names: Iterable[str], seconds: dict[str, float], limit: float) -> list[str]:
    """The fastest tests that fit in the limit, at least one if there is any."""
    chosen, total = [], 0.0
    for name in sorted(names, key=lambda name: (seconds[name], name)):
        total += seconds[name]
        if chosen and total > limit:
            break
        chosen.append(name)
    return chosen


def by_file(names: Iterable[str], seconds: dict[str, float]) -> list[str]:
    """The tests file by file, the fastest file first, so that fixtures are kept."""
    files = collections.defaultdict(list)
    for name in names:
        files[name.split("::")[0]].append(name)
    order = sorted(files, key=lambda file: (sum(map(seconds.get, files[file])), file))
    return [name for file in order for name in files[file]]


def tests_for(
    mutant: Mutant, known: Record, root: pathlib.Path, limits: tuple[float, float]
) -> tuple[list[str], int]:
    """The tests to run, in order, and how many of them run the line itself."""
    lines = known.lines.get(mutant.file, {})
    found: set[str] = set()
    for first, last in (mutant.site.lines, mutant.site.statement):
        found = found or set().union(
            *(lines.get(n, ()) for n in range(first, last + 1))
        )
    exact = by_file(within(found, known.seconds, limits[0]), known.seconds)
    others = set().union(*lines.values()) - found
    if not found | others:
        word = re.compile(rf"\b{pathlib.Path(mutant.file).stem}\b")
        files = {name.split("::")[0] for name in known.seconds}
        named = {file for file in files if word.search((root / file).read_text())}
        others = {name for name in known.seconds if name.split("::")[0] in named}
    more = by_file(within(others, known.seconds, limits[1]), known.seconds)
    return exact + more, len(exact)


def try_one(
    mutant: Mutant, copy: pathlib.Path, tests: list[str], limit: float
) -> tuple[str, str]:
    """Applies a mutant, runs tests and restores: what came of it, and the killer."""
    path, folder = copy / mutant.file, copy.parent
    source = path.read_bytes()
    (folder / "tests.json").write_text(json.dumps(tests))
    killer = folder / "killer"
    killer.unlink(missing_ok=True)
    path.write_bytes(mutant.site.apply(source))
    try:
        process = start_tests(
            copy,
            dict.fromkeys(name.split("::")[0] for name in tests),
            folder / "log",
            "-x",
            MUTANTS_TESTS=folder / "tests.json",
            MUTANTS_KILLER=killer,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            return "killed", "(no end)"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    finally:
        path.write_bytes(source)
    if code in (0, 5):  # 5: no test of these names is left.
        return "survived", ""
    return "killed", killer.read_text() if killer.exists() else "(on import)"


class Trial:
    """Tries mutants, some at a time, and writes what is known after each."""

    def __init__(self, root: pathlib.Path, known: Record, options: argparse.Namespace):
        self.root, self.known, self.options = root, known, options
        self.mutants, self.sites = draw(root, options.number, options.seed)
        self.copies: queue.Queue[pathlib.Path] = queue.Queue()
        self.entries: dict[Mutant, dict] = {}
        if options.again:
            self._keep_all_but(options.again)

    def _keep_all_but(self, places: list[str]) -> None:
        """Takes the results of an earlier run, of which some are tried again."""
        kept = json.loads(self.options.output.read_text())["list"]
        for mutant in self.mutants:
            facts = _facts(mutant)
            for entry in kept:
                if entry["place"] not in places and facts.items() <= entry.items():
                    self.entries[mutant] = entry

    def run(self) -> dict:
        for i in range(self.options.processes):
            self.copies.put(make_copy(self.root, self.options.work / f"copy-{i}"))
        rest = [mutant for mutant in self.mutants if mutant not in self.entries]
        with concurrent.futures.ThreadPoolExecutor(self.options.processes) as pool:
            for entry in pool.map(self._one, rest):
                fields = ("result", "seconds", "place", "operator", "killer")
                print(*(entry[field] for field in fields), sep=" | ", flush=True)
                self._write()
        return self._write()

    def _one(self, mutant: Mutant) -> dict:
        limits = (self.options.limit, self.options.more)
        tests, exact = tests_for(mutant, self.known, self.root, limits)
        result, killer = "survived", "(no test)"
        copy, start = self.copies.get(), time.monotonic()
        if tests:
            expected = sum(self.known.seconds[name] for name in tests)
            limit = self.options.patience * expected + STARTING_SECONDS
            result, killer = try_one(mutant, copy, tests, limit)
        self.copies.put(copy)
        self.entries[mutant] = {
            **_facts(mutant),
            "result": result,
            "killer": killer,
            "tests": len(tests),
            "tests_of_the_line": exact,
            "seconds": round(time.monotonic() - start, 1),
        }
        return self.entries[mutant]

    def _write(self) -> dict:
        entries = [self.entries[m] for m in self.mutants if m in self.entries]
        killed = sum(entry["result"] == "killed" for entry in entries)
        summary = {
            "seed": self.options.seed,
            "sites": self.sites,
            "mutants": len(entries),
            "killed": killed,
            "share_killed": round(killed / max(len(entries), 1), 4),
            "limits_seconds": [self.options.limit, self.options.more],
            "failed_without_mutant": self.known.failed,
            "survivors": [e["place"] for e in entries if e["result"] == "survived"],
        }
        text = json.dumps({**summary, "list": entries}, indent=1)
        self.options.output.write_text(text + "\n")
        return summary


def _facts(mutant: Mutant) -> dict[str, object]:
    return {
        "place": f"{mutant.file}:{mutant.site.line}",
        "operator": mutant.site.operator,
        "before": mutant.before,
        "after": mutant.after,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=pathlib.Path, default=HERE.parent, metavar="DIR")
    parser.add_argument("--work", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="JSON")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--number", type=int, default=60)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=100, help="seconds, own line")
    parser.add_argument("--more", type=float, default=30, help="seconds, same file")
    parser.add_argument(
        "--patience", type=float, default=4, help="times as long as in the recorded run"
    )
    parser.add_argument(
        "--again", nargs="+", metavar="FILE:LINE", help="only these, the rest as it was"
    )
    options = parser.parse_args()
    # Behind `&` a shell lets these be ignored; tests of an interrupt need them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    root, options.work = options.root.resolve(), options.work.resolve()
    mark = options.work / "record" / "fingerprint"
    if not mark.exists() or mark.read_text() != fingerprint(root):
        print("running the suite once under coverage", flush=True)
        record(root, options.work, options.processes)
    summary = Trial(root, read_record(options.work), options).run()
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
