"""`cmt compare`: two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cmt.cli.paths import local_path

_HELP = "A run directory, of which the evaluation of the last step counts, or the "
_HELP += "folder of an evaluation."


def compare(
    run_a: Annotated[
        Path, typer.Argument(parser=local_path, metavar="RUN_A", help=_HELP)
    ],
    run_b: Annotated[
        Path, typer.Argument(parser=local_path, metavar="RUN_B", help="The other.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            parser=local_path,
            metavar="DIR",
            help="Gets comparison.json, and curves.png with both learning curves.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print json instead of tables.")
    ] = False,
) -> None:
    """Compare two runs that were evaluated on the same images.

    Scores, with an interval of each difference of PQ by paired bootstrap over images,
    and the fields in which the configs differ. The interval tells how much of a
    difference is chance of the images; it does not know that of training.

    \b
    Example:
      cmt compare runs/baseline runs/clustering --output comparison
    """
    from cmt.evaluation import compare as comparing

    a, b = comparing.open_run(run_a), comparing.open_run(run_b)
    result = comparing.compare(a, b)
    has_curves = output is not None and comparing.write_comparison(a, b, result, output)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    _print_scores(result)
    _print_config(result["config"])
    if output is None:
        print("For a json and a picture of both learning curves, give --output DIR.")
        return
    print(f"comparison  {output / comparing.COMPARISON_FILE}")
    curves = (
        output / comparing.CURVES_FILE if has_curves else "none: a run has no steps"
    )
    print(f"curves      {curves}")


def _print_scores(result: dict[str, Any]) -> None:
    from cmt.io.terminal import NUMBER, TEXT, print_table

    for letter in ("a", "b"):
        about = result[letter]
        config, step = about["config"], about["step"]
        print(f"{letter.upper()}  {about['evaluation']}, {config}, step {step}")
    rows = []
    for name, of_score in result["metrics"].items():
        numbers = [_shown(of_score[key]) for key in ("a", "b")]
        numbers.append(_shown(of_score["difference"], "+"))
        interval = ""
        if "interval" in of_score:
            interval = "{:+.2f} to {:+.2f}".format(*of_score["interval"])
        rows.append([name, *numbers, interval])
    columns = dict.fromkeys(("A", "B", "B - A", f"{result['level']}%"), NUMBER)
    print_table({f"{result['images']} images": TEXT, **columns}, rows)


def _shown(value: float | None, sign: str = "") -> str:
    return "none" if value is None else f"{value:{sign}.2f}"


def _print_config(changed: list[dict[str, Any]] | None) -> None:
    from cmt.io.terminal import TEXT, print_table

    if changed is None:
        print("configs: not known, since an evaluation lies in no run directory")
    elif not changed:
        print("configs: no differences")
    else:
        rows = [
            (row["path"], *(row[key] or "not set" for key in ("a", "b")))
            for row in changed
        ]
        print_table(dict.fromkeys(("config", "A", "B"), TEXT), rows)
