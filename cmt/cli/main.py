"""`cmt`, the front door: commands, error messages, exit codes.

Exit codes: 0 done, 1 the work failed, 2 the input cannot be used, 130 interrupted;
75 a training was told to stop (SIGTERM), wrote a checkpoint and can be continued.
Nothing here or at the top of a command's file imports TensorFlow, so that `--help`
answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

import cmt
from cmt.cli import (
    compare,
    config,
    data,
    demo,
    doctor,
    evaluate,
    export,
    model,
    predict,
    score,
    train,
)
from cmt.cli.explain import explain_images
from cmt.cli.quiet import quiet_tensorflow
from cmt.errors import CmtError
from cmt.io.terminal import accept_all_text, printable, require_unicode_paths

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")
app.add_typer(config.app, name="config")
app.add_typer(model.app, name="model")
app.command()(demo.demo)
app.command()(train.train)
app.command("eval")(evaluate.evaluate)
app.command()(score.score)
app.command()(compare.compare)
app.command()(export.export)
app.command()(predict.predict)
app.command("explain")(explain_images)
app.command()(doctor.doctor)

# Of any wrong usage; typer exports no more than this child of it.
_UsageError = typer.BadParameter.__base__
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cmt {cmt.__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Show the traceback of an error; at any place of the line."
        ),
    ] = False,
) -> None:
    """CMT-DeepLab: panoptic segmentation with clustering mask transformers.

    \b
    Examples:
      cmt demo --output demo
      cmt train scenes/tiny --output runs/first
      cmt COMMAND --help
    """


def explain(error: Exception, words: Sequence[str] = ()) -> tuple[int, str]:
    """Turns what a command raised into an exit code and one line.

    Args:
      error: any exception but an exit.
      words: the command line after "cmt".

    Returns:
      (exit code, message without line breaks).
    """
    from cmt.cli import habits  # Of no use where nothing goes wrong.

    if isinstance(error, CmtError):
        code = error.exit_code
        message = habits.change_meant(words, error) or str(error)
    elif isinstance(error, _UsageError):
        code, message = 2, _explain_usage(error, words)
    elif isinstance(error, typer.Abort):
        code, message = 1, "stopped before it was done"
    elif isinstance(error, UnicodeEncodeError):
        code, message = 2, _explain_encoding(error)
    elif isinstance(error, OSError):
        code, message = _explain_os_error(error)
    else:
        first = next(iter(str(error).strip().splitlines()), "no message")
        code = 1
        message = f"{type(error).__name__}: {first}; run with --debug for the traceback"
    return code, printable(" ".join(message.split()))


def _is_help(error: Exception) -> bool:
    """Tells whether a usage error is only the help of a group without a command."""
    return error.ctx is not None and error.message == error.ctx.get_help()


def _explain_usage(error: Exception, words: Sequence[str]) -> str:
    from cmt.cli import habits

    if error.ctx and (meant := habits.line_meant(words, error.ctx)):
        return meant
    command = error.ctx.command_path if error.ctx else "cmt"
    return f"{error.format_message().rstrip('.')}; see `{command} --help`"


def _explain_encoding(error: UnicodeEncodeError) -> str:
    return (
        f"{error.object}: a name must have only letters of {error.encoding}, the "
        "encoding of this locale; set PYTHONUTF8=1, or another locale"
    )


def _explain_os_error(error: OSError) -> tuple[int, str]:
    path = error.filename2 or error.filename
    name = os.fsdecode(path) if isinstance(path, str | bytes) else "a file"
    if error.errno in _DISK_FULL:
        return 1, f"no space left on the disk of {name}; free some and run again"
    if error.errno in _REFUSED:
        return 2, (
            f"no permission for {name} ({error.strerror}); change its mode or choose"
            " another path"
        )
    if error.errno == errno.ENOENT:
        return 2, f"{name} does not exist; check the path"
    if error.strerror is None:
        return 2, str(error) or type(error).__name__
    return 2, f"{name}: {error.strerror}; check the path"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
      arguments: words after the program's name; None for the process's own.

    Raises:
      SystemExit: always, with the exit code.
    """
    if arguments is None:
        require_unicode_paths()
    accept_all_text()
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    quiet_tensorflow()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    words = [a for a in arguments if a != "--debug"]
    try:
        # Else it prints four lines itself. What it returns is the code of an Exit.
        code = app(words, prog_name="cmt", standalone_mode=False)
        raise SystemExit(code or 0)
    except Exception as error:
        if isinstance(error, _UsageError) and _is_help(error):
            error.show()
            raise SystemExit(2) from None
        if debug:
            traceback.print_exception(error)
        code, message = explain(error, words)
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(code) from None
