"""Compiles training steps with the TPU compiler, and writes docs/tpu.md. No TPU needed.

    python tools/tpu.py compile coco/cmt_deeplab_axial_r50_641 --topology v5e:1x1 \
        --python JAX_ENVIRONMENT/bin/python --set model.precision=MIXED_BFLOAT16
    python tools/tpu.py text

`compile` lowers the step of a config to HLO, with one image on the core, hands it to
`tools/tpu_compile.py` in the other environment (which says what to install there), and
adds a line for each topology to docs/tpu/results.jsonl. `text` renews the table of
docs/tpu.md.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = _ROOT / "docs" / "tpu" / "results.jsonl"
DOCUMENT = _ROOT / "docs" / "tpu.md"
_BEGIN, _END = "<!-- table -->\n", "<!-- end of table -->\n"
_GIB = 2**30


def compile_step(
    config: str,
    overrides: Sequence[str],
    topologies: Sequence[str],
    *,
    python: str,
    level: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Lowers the step of a config once, and compiles it for each topology.

    Args:
      config: its name.
      overrides: "path=value".
      topologies: as `tools/tpu_compile.py` takes them.
      python: of an environment with jax.
      level: as there.

    Yields:
      Config, changes, topology and the compiler's figures.

    Raises:
      subprocess.CalledProcessError: the program is too large for the core, or the
        compiler refuses it.
    """
    sys.path.insert(0, str(_ROOT))
    from cmt.config import load_experiment
    from tools.lowering import lower_config

    lowered = lower_config(load_experiment(config, overrides), batch=1)
    with tempfile.NamedTemporaryFile(suffix=".hlo") as file:
        file.write(lowered.module)
        file.flush()
        del lowered
        for topology in topologies:
            words = [python, _ROOT / "tools" / "tpu_compile.py", file.name, topology]
            words += ["--level", level] if level else []
            shown = subprocess.run(
                words, check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            figures = json.loads(shown.splitlines()[-1])
            yield {
                "config": config,
                "set": list(overrides),
                "topology": topology,
                **figures,
            }


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """The latest figures of each program, topology and level, as Markdown."""
    lines = [
        "| config | set | topology | level | FLOPs (1e12) | bytes (GB) | peak (GiB) | "
        "arguments (GiB) | compile (CPU s) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    latest = {(r["config"], *r["set"], r["topology"], r["level"]): r for r in results}
    for row in latest.values():
        cells = [
            row["config"],
            ", ".join(f"`{text}`" for text in row["set"]),
            row["topology"],
            str(row["level"] or "default"),
            f"{row['flops'] / 1e12:.2f}",
            f"{row['bytes_accessed'] / 1e9:.0f}",
            f"{row['peak_bytes'] / _GIB:.2f}",
            f"{row['argument_bytes'] / _GIB:.2f}",
            f"{row['compile_cpu_seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def renewed(text: str) -> str:
    """The document with the table of the results."""
    results = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()]
    before, rest = text.split(_BEGIN)
    return before + _BEGIN + table(results) + _END + rest.split(_END)[1]


def main() -> None:
    """Runs a command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    compiles = commands.add_parser("compile", help="add lines to the results")
    compiles.add_argument("config")
    compiles.add_argument("--topology", action="append", required=True)
    compiles.add_argument("--python", required=True, help="of an environment with jax")
    compiles.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    compiles.add_argument("--level", help="O1 compiles in less time")
    commands.add_parser("text", help="renew docs/tpu.md")
    options = parser.parse_args()
    if options.command == "compile":
        for result in compile_step(
            options.config,
            options.set,
            options.topology,
            python=options.python,
            level=options.level,
        ):
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            print(json.dumps(result), flush=True)
    DOCUMENT.write_text(renewed(DOCUMENT.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
