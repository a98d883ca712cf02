"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _matching_configs(incomplete: str) -> list[str]:
    from cmt.config import available_configs

    return [name for name in available_configs() if name.startswith(incomplete)]


def config_argument(metavar: str) -> typer.models.ArgumentInfo:
    """Declares an argument that is a config."""
    return typer.Argument(
        metavar=metavar,
        help="A textproto file, or the name of a config of the package.",
        autocompletion=_matching_configs,
    )


Config = Annotated[str, config_argument("CONFIG")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a field; repeatable."),
]


Things = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Categories that are things, by name or id, separated by commas, or a "
        "file with one a line; all others are stuff, whatever isthing says.",
    ),
]


def things_named(text: str) -> tuple[str, ...]:
    """The names or ids in the value of --things."""
    file = Path(text)
    names = file.read_text("utf-8").splitlines() if file.is_file() else text.split(",")
    return tuple(name.strip() for name in names if name.strip())
