"""Arguments that several commands take."""

from __future__ import annotations

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
