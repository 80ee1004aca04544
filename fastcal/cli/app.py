"""The command ``fastcal``: the list of its commands, and what an error looks like."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from fastcal.cli.commands import Commands
from fastcal.cli.interrupts import was_interrupted
from fastcal.cli.last_door import INTERRUPTED, PIPE_CLOSED, UNEXPECTED, guarded
from fastcal.cli.outcome import SOME_CASES_FAILED
from fastcal.core.errors import DataWarning

BAD_INPUT = 2

_INPUT_ERRORS = (ValueError, TypeError, OSError, ImportError)

app = typer.Typer(
    name="fastcal",
    cls=Commands,
    help="Calibrated uncertainty for segmentation ensembles: train, predict, ensemble, evaluate.",
    epilog=(
        f"Exit codes: 0 everything is done, {SOME_CASES_FAILED} some cases failed (--keep-going), "
        f"{BAD_INPUT} bad input, {UNEXPECTED} a bug of fastcal or no memory, "
        f"{INTERRUPTED} interrupted. "
        "FASTCAL_DEBUG=1 shows where an error comes from."
    ),
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from fastcal import __version__

        typer.echo(f"fastcal {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    del version
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after ``fastcal``; None for those of the process.

    Returns:
        The exit code: 0, `SOME_CASES_FAILED`, `BAD_INPUT`, or one of `fastcal.cli.last_door`.

    Example:
        >>> main(["predict", "--no-such-option"])
        2
    """
    debug = os.environ.get("FASTCAL_DEBUG", "") not in ("", "0")
    try:
        with _told_of_files():
            code = app(args=arguments, prog_name="fastcal", standalone_mode=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        raise  # an OSError, but no input is at fault
    except SystemExit as error:
        broken = error.__context__
        if not isinstance(broken, BrokenPipeError):
            raise
        if _was_printing(broken):
            return PIPE_CLOSED  # rich has sent the rest of the help to nowhere
        raise broken from None  # typer exits with 1 whichever pipe it is
    except Exception as error:
        if was_interrupted(error):
            code = INTERRUPTED
        elif debug:
            raise
        else:
            return _told(error)
    if code == INTERRUPTED:
        _complain("interrupted; the same command resumes from here")
    return int(code or 0)


def _told(error: Exception) -> int:
    """Say in one line what is wrong with the input, and return the exit code; raise what is not.

    Raises:
        Exception: The error is a bug.
    """
    if isinstance(error, _INPUT_ERRORS):
        _complain(_message(error))
        return BAD_INPUT
    # Usage errors: their class moved from click into typer between the releases supported.
    describe = getattr(error, "format_message", None)
    if describe is None:
        raise error
    # "Value error" is pydantic's phrase, which says nothing to somebody at a prompt.
    if message := describe().replace("Value error, ", ""):
        _complain(f"{message} ({_command_path(error)} --help lists the options)")
    return int(getattr(error, "exit_code", BAD_INPUT))


def _was_printing(error: BrokenPipeError) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "rich.console" for frame, _ in frames)


def _command_path(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "fastcal"


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


@contextmanager
def _told_of_files() -> Iterator[None]:
    """Print warnings about files as the errors are, and all others as Python does."""

    def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, DataWarning):
            _complain(str(message))
        else:
            others(message, category, *place, **more)

    with warnings.catch_warnings():
        others = warnings.showwarning
        warnings.simplefilter("always", DataWarning)
        warnings.showwarning = show
        yield


def _complain(message: str) -> None:
    print(f"fastcal: {message}", file=sys.stderr)
