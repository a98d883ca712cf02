"""The two errors that reach a user as one line instead of a traceback.

A message says what is wrong, where, the rule, what arrived, and the fix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_REASON_ENDS = (160, 80)
# What TensorFlow adds to a message: where in the graph, and in which data set.
_PLACES = re.compile(
    r"\s?\[\[\{\{.*?\}\}\]\]|\{\{(?:function_)?node .*?\}\}|\[Op:\w*\]"
    r"|Error in user-defined function passed to .*? with iterator: \S+: "
)


class CmtError(Exception):
    """Ends a command with one line; `exit_code` is the code it ends with."""

    exit_code = 1


class InputError(CmtError, ValueError):
    """What the user gave cannot be used: a file, a config, an argument."""

    exit_code = 2


class WorkError(CmtError, RuntimeError):
    """The input was fine and the work itself failed."""

    exit_code = 1


def few(texts: Sequence[str], most: int = 4, *, separator: str = ", ") -> str:
    """Joins the first of some texts, and says how many more there are.

    Args:
      texts: names, numbers or sentences.
      most: how many are shown.
      separator: between two of them.
    """
    more = len(texts) - most
    return separator.join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def tensorflow_reason(error: Exception) -> str:
    """Returns the telling line of an error of TensorFlow.

    A long one loses its middle: the cause is at one end, behind or before a path.
    """
    text = getattr(error, "message", None) or str(error)
    text = _PLACES.sub("", text)
    lines = [line.strip() for line in text.splitlines()]
    skipped = (
        "Graph execution error",
        "Detected at",
        "File ",
        "Traceback",
        "<stack traces",
    )
    told = [line for line in lines if line and not line.startswith(skipped)]
    line = told[0].removesuffix(" name:").rstrip() if told else type(error).__name__
    begin, end = _REASON_ENDS
    if len(line) > begin + end:
        line = f"{line[:begin]} ... {line[-end:]}"
    return line
