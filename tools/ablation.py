"""Runs the ablation on generated scenes and writes docs/ablation.md.

    python tools/ablation.py search    four learning rates for the baseline and for CMT
    python tools/ablation.py run       every row with every seed
    python tools/ablation.py times     seconds a step of every row, on an idle machine
    python tools/ablation.py text      docs/ablation.md from the results
    python tools/ablation.py configs   configs/scenes/ablations from scenes/tiny

`search` and `run` write a json for each row, rate and seed to docs/ablation/results,
and work in runs/ablation. The same command again goes on where it was stopped: a result
that is there is kept, a training that was begun continues from its checkpoint. A result
of other settings or data than today's is reported as stale, and made again only with
--redo-stale. Trainings run side by side (--jobs), each with one thread. Learning rates
that the search shows to be best go into `rates` of ablation_rows.py by hand.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import ablation_rows as rows
from ablation_jobs import Jobs, alone
from ablation_results import TIMES_FILE, settings_of, why_stale
from ablation_rows import ROWS, Row

from cmt.errors import CmtError, InputError
from cmt.io.files import write_json
from cmt.run_files import METRICS_FILE

DOCS = rows.ROOT / "docs"
WORK = rows.ROOT / "runs"
CODE = ("cmt", "configs", "data", "evaluation", "protos", "serving", "tools")
CODE += ("trainer",)
_CMT = (sys.executable, "-m", "cmt")
_TIMED = ("trainer.steps=80", "trainer.log_every_steps=20")
_TIMED += ("trainer.learning_rate.warmup_steps=0", "trainer.evaluate_every_steps=0")
_PICTURED = ("baseline", "full")
_SCALES = {"--large": rows.LARGE, "--long": rows.LONG}


class Trial(NamedTuple):
    """One training of a row."""

    row: Row
    seed: int
    rate: float

    def measured(self) -> list[Row]:
        """The rows that are evaluated with its weights."""
        return [self.row, *(r for r in ROWS.values() if r.weights == self.row.name)]

    def file_of(self, row: Row) -> str:
        """Name of the result of a row."""
        return f"{row.name}-rate{self.rate:g}-seed{self.seed}.json"

    def words(self, options: argparse.Namespace) -> list[str]:
        """The arguments of this program that run the trial again."""
        changes = [w for w, scale in _SCALES.items() if scale is options.scale]
        changes += [w for change in options.changes for w in ("--set", change)]
        if self != chosen(self.row, self.seed, options.scale):
            return ["search", "--rates", f"{self.rate:g}", *changes]
        return ["run", "--rows", self.row.name, "--seeds", str(self.seed), *changes]

    def settings(self, row: Row, overrides: Sequence[str]) -> dict[str, Any]:
        """The settings of the result of a row, as they are in the checkout."""
        return settings_of(row, self.seed, self.rate, overrides)


def commit() -> str:
    """Returns the commit of the checkout, "+changes" if its code has any."""

    def git(*words: str) -> str:
        command = ("git", "-C", str(rows.ROOT), *words)
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout.strip()

    name = git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return name + ("+changes" if changed else "")


def versions() -> dict[str, str]:
    """Returns the versions that results may depend on."""
    names = ("cmt-deeplab", "tensorflow", "tf_keras", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}


def make_data(options: argparse.Namespace) -> dict[str, Any]:
    """Makes the scenes and their TFRecords, unless they are there; describes them.

    Raises:
      InputError: the working folder has other scenes.
    """
    config = f"{rows.FOLDER}/{rows.SEARCHED[0]}"
    data = rows.load_experiment(config, options.overrides).data
    wanted = {
        "level": rows.SCENES,
        "train": options.train,
        "val": options.val,
        "seed": rows.DATA_SEED,
        "size": data.crop_height_pixels,
    }
    marker = options.work / "data.json"
    if marker.is_file():
        found = json.loads(marker.read_text())
        if found | wanted != found:
            raise InputError(
                f"{options.work}: holds scenes of {found}; wanted {wanted}; give"
                " another --work or remove it"
            )
        return found
    scenes = options.work / "scenes"
    shutil.rmtree(scenes, ignore_errors=True)
    numbers = [word for key in wanted for word in (f"--{key}", str(wanted[key]))]
    run_here(options, "data", "scenes", "--output", "scenes", *numbers)
    shards = {}
    for split in ("train", "val"):
        run_here(
            options,
            *("data", "convert", "--images", f"scenes/images/{split}"),
            *("--annotations", f"scenes/annotations/panoptic_{split}.json"),
            *("--masks", f"scenes/annotations/panoptic_{split}"),
            *("--output", "scenes/tfrecords", "--split", split),
        )
        manifest = scenes / "tfrecords" / f"{split}.manifest.json"
        listed = json.loads(manifest.read_text())["shards"]
        shards[split] = rows.digest([shard["sha256"] for shard in listed])
    found = wanted | {"shards": shards}
    write_json(marker, found)
    return found


def run_here(options: argparse.Namespace, *words: str) -> None:
    """Runs a `cmt` command in the working folder and waits for it."""
    print(f"$ cmt {shlex.join(words)}", flush=True)
    subprocess.run([*_CMT, *words], cwd=options.work, check=True)


def is_done(trial: Trial, options: argparse.Namespace, data: dict[str, Any]) -> bool:
    """Tells whether nothing is to be done for a trial; says so if a result is stale."""
    missing = stale = False
    for row in trial.measured():
        path = options.results / trial.file_of(row)
        if not path.is_file():
            missing = True
            continue
        settings = trial.settings(row, options.overrides)
        reason = why_stale(json.loads(path.read_text()), settings, data)
        if reason:
            stale = True
            again = "made again" if options.redo_stale else "kept; --redo-stale renews"
            print(f"stale, {again}: {path.name}: {reason}", flush=True)
    return not options.redo_stale if stale else not missing


def run_trial(
    trial: Trial, options: argparse.Namespace, data: dict[str, Any], jobs: Jobs
) -> bool:
    """Trains, evaluates and writes the results of a trial.

    Returns:
      False if it was stopped.
    """
    settings = trial.settings(trial.row, options.overrides)
    stem = trial.file_of(trial.row).removesuffix(".json")
    run = f"runs/{stem}-{rows.digest(settings)}"
    changes = (*options.overrides, *rows.trial_settings(trial.seed, trial.rate))
    train = ["train", f"{rows.FOLDER}/{trial.row.name}", "--output", run]
    train += [word for change in changes for word in ("--set", change)]
    log = options.work / f"{run}.log"
    began = options.work / f"{run}.commits"
    log.parent.mkdir(parents=True, exist_ok=True)
    commits = began.read_text().split() if began.is_file() else []
    commits = list(dict.fromkeys([*commits, commit()]))
    began.write_text("\n".join(commits))
    if not jobs.execute([*_CMT, *train], log):
        return False
    for row in trial.measured():
        head = options.work / f"{run}.{row.name}.head.json"
        measured = trial.settings(row, options.overrides)
        facts = {
            "row": row.name,
            "seed": trial.seed,
            "rate": trial.rate,
            "command": shlex.join(
                ["python", "tools/ablation.py", *trial.words(options)]
            ),
            "train": shlex.join(["cmt", *train]),
            "overrides": options.overrides,
            "commits": commits,
            "versions": versions(),
            "hardware": {
                "cores": os.cpu_count(),
                "trainings_at_a_time": options.jobs,
                "threads_of_a_training": jobs.threads or "all",
            },
            "data": data,
            "digest": rows.digest(measured),
            "settings": measured,
        }
        write_json(head, facts)
        words = [sys.executable, str(rows.ROOT / "tools" / "ablation_measure.py")]
        words += [str(head), run, str(options.results / trial.file_of(row))]
        first = chosen(row, rows.SEEDS[0], options.scale)
        if row.name in _PICTURED and trial == first:
            words += ["--picture", str(options.results.parent / f"{row.name}.png")]
        if not jobs.execute(words, log):
            return False
    return True


def chosen(row: Row, seed: int, scale: rows.Scale = rows.SMALL) -> Trial:
    """The trial of a row with the rate that was chosen for it."""
    return Trial(row, seed, rows.chosen_rate(row, scale))


def run_trials(trials: Sequence[Trial], options: argparse.Namespace) -> int:
    """Runs what is not done yet, side by side; returns the exit code."""
    options.work.mkdir(parents=True, exist_ok=True)
    options.results.mkdir(parents=True, exist_ok=True)
    with alone(options.work / "lock") as lock:
        data = make_data(options)
        left = [trial for trial in trials if not is_done(trial, options, data)]
        print(f"{len(trials) - len(left)} of {len(trials)} trainings are done")
        jobs = Jobs(options.jobs, options.hours, lock, options.work)
        return jobs.run(
            {
                f"{t.row.name}, rate {t.rate:g}, seed {t.seed}": lambda t=t: run_trial(
                    t, options, data, jobs
                )
                for t in left
            }
        )


def time_steps(options: argparse.Namespace) -> None:
    """Times a few steps of every trained row, one after the other, with all cores."""
    options.work.mkdir(parents=True, exist_ok=True)
    path = options.results / TIMES_FILE
    times = json.loads(path.read_text()) if path.is_file() else {}
    with alone(options.work / "lock"):
        make_data(options)
        for row in (ROWS[name] for name in options.scale.rows):
            trial = chosen(row, rows.SEEDS[0], options.scale)
            digest = rows.digest(trial.settings(row, options.overrides))
            if times.get(row.name, {}).get("digest") == digest:
                continue
            load = round(os.getloadavg()[0], 2)
            times[row.name] = {
                "seconds": round(seconds_a_step(row, options), 4),
                "digest": digest,
                "commit": commit(),
                "cores": os.cpu_count(),
                "load_before": load,
            }
            write_json(path, times)


def seconds_a_step(row: Row, options: argparse.Namespace) -> float:
    """Trains for a few steps and throws the run away."""
    run = options.work / "timed"
    shutil.rmtree(run, ignore_errors=True)
    changes = [w for c in (*options.overrides, *_TIMED) for w in ("--set", c)]
    config = f"{rows.FOLDER}/{row.name}"
    run_here(options, "train", config, "--output", run.name, *changes)
    lines = (run / METRICS_FILE).read_text().splitlines()
    # The first steps fill caches.
    rates = [json.loads(line)["images_per_second"] for line in lines[1:]]
    trainer = rows.load_experiment(config, options.overrides).trainer
    return trainer.global_batch_size / statistics.median(rates)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("configs")
    shared = argparse.ArgumentParser(add_help=False)
    shared.set_defaults(scale=rows.SMALL)
    for option, scale in _SCALES.items():
        shared.add_argument(
            option, dest="scale", action="store_const", const=scale,
            help=f"some rows with {scale.size_pixels} pixels and {scale.steps} steps,"
            f" for docs/{scale.page}.md",
        )  # fmt: skip
    shared.add_argument("--results", type=pathlib.Path)
    shared.add_argument(
        "--set", action="append", default=[], dest="changes", metavar="PATH=VALUE",
        help="change a field of all rows alike, to try the commands; repeatable",
    )  # fmt: skip
    shared.add_argument("--steps", type=int, help="same as --set trainer.steps=STEPS")
    commands.add_parser("text", parents=[shared])
    work = argparse.ArgumentParser(add_help=False, parents=[shared])
    work.add_argument("--work", type=pathlib.Path)
    work.add_argument("--train", type=int, default=rows.TRAIN_IMAGES, help="scenes")
    work.add_argument("--val", type=int, default=rows.VAL_IMAGES, help="scenes")
    commands.add_parser("times", parents=[work])
    jobs = argparse.ArgumentParser(add_help=False, parents=[work])
    jobs.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    jobs.add_argument("--hours", type=float, help="stop after these; goes on later")
    jobs.add_argument("--redo-stale", action="store_true")
    search = commands.add_parser("search", parents=[jobs])
    search.add_argument("--rates", nargs="+", type=float)
    run = commands.add_parser("run", parents=[jobs])
    run.add_argument("--rows", nargs="+", choices=rows.SMALL.rows)
    run.add_argument("--seeds", nargs="+", type=int, default=rows.SEEDS)
    options = parser.parse_args(words)
    if options.command != "configs":
        if options.steps:
            options.changes.append(f"trainer.steps={options.steps}")
        options.overrides = [*options.scale.overrides, *options.changes]
        page = options.scale.page
        options.results = (options.results or DOCS / page / "results").resolve()
        options.work = (getattr(options, "work", None) or WORK / page).resolve()
    if options.command == "search":
        options.rates = options.rates or options.scale.searched_rates
    if options.command == "run":
        options.rows = options.rows or options.scale.rows
    return options


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    options = parse(words)
    try:
        if options.command == "configs":
            rows.write_configs()
        elif options.command == "text":
            from ablation_text import write_document  # Matplotlib takes a second.

            write_document(options.results, options.scale, options.changes)
        elif options.command == "times":
            time_steps(options)
        elif options.command == "search":
            seed = rows.SEEDS[0]
            searched = [ROWS[name] for name in rows.SEARCHED]
            trials = [Trial(row, seed, x) for x in options.rates for row in searched]
            return run_trials(trials, options)
        else:
            picked = [ROWS[name] for name in options.rows]
            pairs = itertools.product(options.seeds, picked)
            trials = [chosen(row, seed, options.scale) for seed, row in pairs]
            return run_trials(trials, options)
    except CmtError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"error: `{shlex.join(error.cmd)}` failed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
