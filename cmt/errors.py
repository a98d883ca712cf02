"""The two errors that reach a user as one line instead of a traceback.

A message says what is wrong, where, the rule, what arrived, and the fix.
"""

from __future__ import annotations


class CmtError(Exception):
    """Ends a command with one line; `exit_code` is the code it ends with."""

    exit_code = 1


class InputError(CmtError, ValueError):
    """What the user gave cannot be used: a file, a config, an argument."""

    exit_code = 2


class WorkError(CmtError, RuntimeError):
    """The input was fine and the work itself failed."""

    exit_code = 1
