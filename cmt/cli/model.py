"""`cmt model`: which networks there are, how large one is and what it costs."""

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
    """List networks, or count the parameters and the multiply-adds of one.

    \b
    Example:
      cmt model summary scenes/tiny
    """


@app.command("list")
def list_models(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print json instead of a table.")
    ] = False,
) -> None:
    """Names that `cmt.build_model` takes, with sizes and published quality.

    Parameters were measured here or are the paper's, in the paper's convention; PQ is
    the paper's, on COCO val2017. A dash: nothing is known without counting.

    \b
    Example:
      cmt model list
    """
    from cmt.config import available_configs

    rows = [_list_row(name) for name in available_configs()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    cells = [("model", "assignment", "crop", "parameters", "paper", "PQ, paper")]
    for row in rows:
        paper, quality = row["parameters_paper"], row["pq_val_paper"]
        counted = row["parameters_measured"]
        cells.append(
            (
                row["name"],
                row["assignment"].lower(),
                "x".join(map(str, row["crop"])),
                "-" if counted is None else f"{counted:,}",
                "-" if paper is None else f"{paper / 1e6:.1f}M",
                "-" if quality is None else f"{quality:.1f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, second, *others in cells:
        numbers = (f"{c:>{w}}" for c, w in zip(others, widths[2:], strict=True))
        print(f"{first:{widths[0]}}  {second:{widths[1]}}  {'  '.join(numbers)}")


def _list_row(name: str) -> dict[str, Any]:
    from cmt.config import load_experiment, read_header
    from cmt.protos import model_pb2
    from cmt.zoo.published import PUBLISHED, Published

    experiment, header = load_experiment(name), read_header(name)
    assignment = experiment.model.transformer.assignment
    size = re.match(r"([\d,]+) parameters", header.get("Size", ""))
    published = PUBLISHED.get(name, Published())
    millions = published.parameters_millions
    return {
        "name": name,
        "title": header["Title"],
        "assignment": model_pb2.AssignmentRule.Name(assignment),
        "crop": [experiment.data.crop_height_pixels, experiment.data.crop_width_pixels],
        "parameters_measured": int(size[1].replace(",", "")) if size else None,
        "parameters_paper": round(millions.value * 1e6) if millions else None,
        "pq_val_paper": published.val.all if published.val else None,
    }


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
    from cmt.io.terminal import console as open_console

    console = open_console(stderr=True)
    work = "building and tracing the network"
    if not console.is_terminal:
        console.print(work)
    with console.status(work, spinner="line"):  # of ASCII
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
    from cmt.io.terminal import NUMBER, TEXT, print_table

    rows = []
    for part in multiply_adds.by_part | parameters.by_part:
        counts = parameters.by_part.get(part, 0), multiply_adds.by_part.get(part, 0)
        rows.append((part.replace("_", " "), f"{counts[0]:,}", _giga(counts[1])))
    rows += [None, ("total", f"{parameters.total:,}", _giga(multiply_adds.total))]
    left_out = f"{parameters.not_counted:,}", _giga(multiply_adds.not_counted)
    rows += [published, None, ("semantic branch, not counted", *left_out)]
    cost = f"multiply-adds at {size[0]} x {size[1]}"
    print_table({name: TEXT, "parameters": NUMBER, cost: NUMBER}, rows)


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
