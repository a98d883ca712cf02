"""Paths given on the command line."""

from __future__ import annotations

import os
from pathlib import Path

import typer


def local_path(text: str | os.PathLike[str]) -> Path:
    """Reads a path of this machine.

    Raises:
      typer.BadParameter: it has a scheme, which would become a local folder's name.
    """
    if "://" in os.fspath(text):
        raise typer.BadParameter(
            f"must be on this machine; got {text}; mount or copy what is there"
        )
    return Path(text)
