"""`cmt config`: look at configs and compare them."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cmt.cli.options import Config, Overrides, config_argument

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def config() -> None:
    """List the configs of the package, show one with all defaults, or compare two.

    \b
    Example:
      cmt config show scenes/tiny
    """


@app.command("list")
def list_configs(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a list of {name, title} instead.")
    ] = False,
) -> None:
    """Names that every CONFIG may be, with what each is.

    \b
    Example:
      cmt config list
    """
    from cmt.config import available_configs, read_header

    titles = {name: read_header(name)["Title"] for name in available_configs()}
    if as_json:
        rows = [{"name": name, "title": title} for name, title in titles.items()]
        print(json.dumps(rows, indent=2))
        return
    width = max(map(len, titles))
    for name, title in titles.items():
        print(f"{name:{width}}  {title}")


@app.command()
def show(
    config: Config,
    overrides: Overrides = None,
) -> None:
    """Print the resolved config: every field, defaults included.

    \b
    Example:
      cmt config show scenes/tiny --set trainer.steps=200
    """
    from cmt.config import load_experiment, to_text

    print(to_text(load_experiment(config, overrides or ())), end="")


@app.command()
def diff(
    a: Annotated[str, config_argument("A")],
    b: Annotated[str, config_argument("B")],
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print a list of {path, a, b} instead of a table."),
    ] = False,
) -> None:
    """Compare two configs field by field, defaults included.

    \b
    Example:
      cmt config diff scenes/tiny runs/first/config.textproto
    """
    from cmt.config import diff as compare
    from cmt.config import load_experiment

    changed = compare(load_experiment(a), load_experiment(b))
    if as_json:
        rows = [{"path": path, "a": left, "b": right} for path, left, right in changed]
        print(json.dumps(rows, indent=2))
        return
    width = max((len(path) for path, _, _ in changed), default=0)
    for path, left, right in changed:
        print(f"{path:{width}}  {left or 'not set'} -> {right or 'not set'}")
    if not changed:
        print("no differences")
