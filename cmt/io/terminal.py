"""What is shown in a terminal or a log: the text of users, as it is, whatever it is.

Names of classes, files and folders may hold square brackets, which rich takes for
markup, and letters that a locale has not. Everything that prints more than plain lines
gets its console and its tables here, and nowhere else.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# How a column of a table is set. Texts may go on in the next line; the others may not.
TEXT, LABEL, NUMBER = "text", "label", "number"

# Control characters, halves of characters, and what ends a line.
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
# Characters of a line in a file, at least.
_FILE_WIDTH = 200
# Of a text in a table, at least, or of the longest if that is shorter.
_TEXT_WIDTH = 12
_ALL_UTF8 = "PYTHONUTF8"


def accept_all_text() -> None:
    """Makes standard output and error take every text.

    What their encoding lacks is escaped, such as \\u732b.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def require_unicode_paths() -> None:
    """Starts this process again if its locale has no names of files but ASCII ones.

    Python takes UTF-8 in the locales C and POSIX, but not where the environment says
    otherwise; a file that a json names in other letters could not be opened then.
    """
    if sys.getfilesystemencoding() == "ascii" and os.environ.get(_ALL_UTF8) != "1":
        environment = {**os.environ, _ALL_UTF8: "1"}
        os.execve(sys.executable, sys.orig_argv, environment)


def is_printable(text: str) -> bool:
    """Whether a text stays in its line, and is one that files and terminals take."""
    return text.isprintable() or not any(
        unicodedata.category(char) in _UNPRINTABLE for char in text
    )


def printable(text: str, encoding: str = "utf-8") -> str:
    """The text with escapes for what cannot be printed.

    Args:
      text: of one line.
      encoding: of the stream; letters that it lacks are escaped, too.
    """
    if not is_printable(text):
        text = "".join(
            char if is_printable(char) else char.encode("unicode_escape").decode()
            for char in text
        )
    return text.encode(encoding, "backslashreplace").decode(encoding)


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console of rich to which text is text: no markup, no :names: of emoji.

    Args:
      stderr: whether it writes to standard error instead of output.
      width: characters of a line; None for those of the terminal.
    """
    from rich.console import Console

    return Console(
        stderr=stderr, width=width, markup=False, emoji=False, highlight=False
    )


def print_table(
    columns: Mapping[str, str],
    rows: Iterable[Sequence[str] | None],
    *,
    title: str = "",
    show_header: bool = True,
    stderr: bool = False,
) -> None:
    """Prints a table of which no letter is lost, however narrow the terminal is.

    Texts are broken first. A table that is then still too wide is left so: terminals
    break its lines.

    Args:
      columns: header -> `TEXT`, `LABEL` (short, in one line), `NUMBER` (on the right).
      rows: cells, as many as columns; None draws a line between two rows.
      title: above the table; "" for none.
      show_header: whether the headers are shown.
      stderr: whether it goes to standard error instead of output.
    """
    from rich.cells import cell_len
    from rich.table import Table

    wanted = console(stderr=stderr)

    def shown(cells: Iterable[str]) -> list[str]:
        return [printable(cell, wanted.encoding) for cell in cells]

    lines = [row and shown(row) for row in rows]
    table = Table(title=shown([title])[0], show_header=show_header)
    headers = zip(shown(columns), columns.values(), strict=True)
    for index, (header, kind) in enumerate(headers):
        cells = [header, *(line[index] for line in lines if line)]
        table.add_column(
            header,
            justify="right" if kind == NUMBER else "left",
            no_wrap=kind != TEXT,
            overflow="fold",
            min_width=min(_TEXT_WIDTH, max(map(cell_len, cells)))
            if kind == TEXT
            else None,
        )
    for line in lines:
        if line is None:
            table.add_section()
        else:
            table.add_row(*line)
    least = _least_width(table, wanted) if wanted.is_terminal else _FILE_WIDTH
    console(stderr=stderr, width=max(wanted.width, least)).print(table)


def _least_width(table: Table, of_console: Console) -> int:
    """Characters of a line of a table whose texts are as narrow as they may be."""
    from rich.measure import Measurement

    texts = [column for column in table.columns if column.min_width]
    for column in texts:
        column.max_width = column.min_width
    any_width = of_console.options.update(width=sys.maxsize)
    least = Measurement.get(of_console, any_width, table).maximum
    for column in texts:
        column.max_width = None
    return least
