"""`cmt model`: how large a network is and what it costs."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import typer

from cmt.cli.options import Config, Overrides
from cmt.errors import InputError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def model() -> None:
    """Count the parameters and the multiply-adds of a network.

    \b
    Example:
      cmt model summary scenes/tiny
    """


@app.command()
def summary(
    config: Config,
    overrides: Overrides = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Height and width of the image in pixels; left out, the config's crop."
            " Published multiply-adds are at 800x1200.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print json instead of a table.")
    ] = False,
) -> None:
    """Parameters and multiply-adds by part, beside published figures.

    In the paper's convention: trainable parameters, multiply-adds of convolutions and
    matrix products, both without the semantic branch, which only training uses.

    \b
    Examples:
      cmt model summary coco/cmt_deeplab_axial_r50_1281 --size 800x1200
      cmt model summary scenes/tiny --set model.location.enabled=false --json
    """
    from cmt.config import load_experiment

    experiment = load_experiment(config, overrides or ())
    data = experiment.data
    crop = (data.crop_height_pixels, data.crop_width_pixels)
    pixels = crop if size is None else _parse_size(size)
    paper, elsewhere = _published(experiment)
    parameters, multiply_adds = _count(experiment, pixels)
    if as_json:
        result = {
            "model": experiment.name,
            "parameters": {"total": parameters.total, "by_part": parameters.by_part},
            "multiply_adds": {
                "total": multiply_adds.total,
                "by_part": multiply_adds.by_part,
                "size": list(pixels),
            },
            "paper": paper,
            "published_elsewhere": elsewhere,
        }
        print(json.dumps(result, indent=2))
    else:
        figures = _published_row(paper, elsewhere, pixels)
        _print_table(experiment.name, parameters, multiply_adds, pixels, figures)
        _print_sources(paper, elsewhere)


def _parse_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if not found:
        raise InputError(
            "--size must be HEIGHTxWIDTH in whole pixels, 1 to 9999, such as 800x1200;"
            f" got '{text}'"
        )
    return int(found[1]), int(found[2])


def _published(experiment: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the figures published for a config, in the paper and elsewhere.

    None for what was changed: the figures of the network hold for the same network,
    the quality for the same experiment, wherever its data lie.
    """
    from cmt.config import load_experiment
    from cmt.zoo.published import COST_SIZE, PUBLISHED

    names = {name.rpartition("/")[2]: name for name in PUBLISHED}
    if experiment.name not in names:
        return {}, {}
    name = names[experiment.name]
    original = load_experiment(name)
    if original.model != experiment.model:
        return {}, {}
    row = PUBLISHED[name]
    paper: dict[str, Any] = {}
    elsewhere: dict[str, Any] = {}
    if row.parameters_millions is not None:
        millions, source = row.parameters_millions
        paper["parameters"] = {"total": round(millions * 1e6), "source": source}
    if row.multiply_adds_billions is not None:
        billions, source = row.multiply_adds_billions
        elsewhere["multiply_adds"] = {
            "total": round(billions * 1e9),
            "size": list(COST_SIZE),
            "source": source,
        }
    for split in ("train", "validation"):
        getattr(original.data, split).CopyFrom(getattr(experiment.data, split))
    if original == experiment:
        quality = {"val": row.val, "test_dev": row.test_dev}
        paper |= {f"pq_{k}": v._asdict() for k, v in quality.items() if v is not None}
        if row.val_derived is not None:
            value, source = row.val_derived
            paper["pq_val_derived"] = {"all": value, "source": source}
        paper |= {k: v for k in ("source", "note") if (v := getattr(row, k))}
    return paper, elsewhere


def _count(experiment: Any, size: tuple[int, int]) -> tuple[Any, Any]:
    from rich.console import Console

    console = Console(stderr=True)
    work = "building and tracing the network"
    if not console.is_terminal:
        console.print(work)
    with console.status(work):
        from cmt.factory import build_model
        from cmt.zoo.cost import count_multiply_adds, count_parameters

        network = build_model(experiment.model)
        network.build((None, *size, 3))
        return count_parameters(network), count_multiply_adds(network, size)


def _print_table(
    name: str,
    parameters: Any,
    multiply_adds: Any,
    size: tuple[int, int],
    published: tuple[str, str, str],
) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(
        name,
        Column("parameters", justify="right"),
        Column(f"multiply-adds at {size[0]} x {size[1]}", justify="right"),
    )
    for part in multiply_adds.by_part | parameters.by_part:
        counts = parameters.by_part.get(part, 0), multiply_adds.by_part.get(part, 0)
        table.add_row(part.replace("_", " "), f"{counts[0]:,}", _giga(counts[1]))
    table.add_section()
    table.add_row("total", f"{parameters.total:,}", _giga(multiply_adds.total))
    table.add_row(*published)
    table.add_section()
    table.add_row(
        "semantic branch, not counted",
        f"{parameters.not_counted:,}",
        _giga(multiply_adds.not_counted),
    )
    Console().print(table)


def _published_row(
    paper: dict[str, Any], elsewhere: dict[str, Any], size: tuple[int, int]
) -> tuple[str, str, str]:
    parameters = multiply_adds = "none"
    if "parameters" in paper:
        parameters = f"{paper['parameters']['total'] / 1e6:.1f}M"
    if "multiply_adds" in elsewhere:
        height, width = elsewhere["multiply_adds"]["size"]
        multiply_adds = f"{elsewhere['multiply_adds']['total'] / 1e9:.0f}G"
        if size != (height, width):
            multiply_adds += f" at {height} x {width}"
    return "published", parameters, multiply_adds


def _print_sources(paper: dict[str, Any], elsewhere: dict[str, Any]) -> None:
    """Prints where the figures are published, and the published quality."""
    if "parameters" in paper:
        print(f"published parameters: paper, {paper['parameters']['source']}")
    if "multiply_adds" in elsewhere:
        print(f"published multiply-adds: {elsewhere['multiply_adds']['source']}")
    for split in ("val", "test_dev"):
        if quality := paper.get(f"pq_{split}"):
            text = ", ".join(f"{kind} {value}" for kind, value in quality.items())
            print(f"PQ on COCO {split}: {text} (paper, {paper['source']})")
    if derived := paper.get("pq_val_derived"):
        print(f"PQ on COCO val: none published ({derived['source']})")
    if "note" in paper:
        print(f"note: {paper['note']}")


def _giga(count: int) -> str:
    return f"{count / 1e9:,.3f}G"
