"""The last door of the command line: what nobody expected is one line and a file, no traceback."""

from __future__ import annotations

import functools
import os
import platform
import select
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec

UNEXPECTED = 3
INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""
PIPE_CLOSED = 141
"""128 and the number of SIGPIPE: whoever read the output has read enough."""

_MOST_NAMES = 100
_LONGEST = 200

Parameters = ParamSpec("Parameters")


def guarded(main: Callable[Parameters, int | None]) -> Callable[Parameters, int]:
    """Make a command's main function end in an exit code, whatever happens.

    ===============================  ==========================================================
    what ``main`` does               what happens
    ===============================  ==========================================================
    returns                          its code; 0 for None
    `KeyboardInterrupt`              one line, `INTERRUPTED`
    `BrokenPipeError` of the output  nothing is printed, `PIPE_CLOSED`
    any other `Exception`            one line that names a file with the traceback, `UNEXPECTED`
    `SystemExit`                     passes
    ===============================  ==========================================================

    With ``FASTCAL_DEBUG=1`` an exception passes too.

    Args:
        main: Returns an exit code, or None; prints what it expects to go wrong itself.

    Returns:
        ``main`` with the door around it.

    Example:
        >>> guarded(lambda: None)()
        0
    """

    @functools.wraps(main)
    def inside(*args: Parameters.args, **kwargs: Parameters.kwargs) -> int:
        try:
            code = int(main(*args, **kwargs) or 0)
            sys.stdout.flush()  # a pipe that is closed shows itself here, not at the very end
            return code
        except KeyboardInterrupt:
            _say("interrupted")
            return INTERRUPTED
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _discard_output():
                return PIPE_CLOSED
            if os.environ.get("FASTCAL_DEBUG", "") not in ("", "0"):
                raise
            _say(_sentence(error, _write_report(error)))
            return UNEXPECTED

    return inside


def _sentence(error: Exception, report: Path | None) -> str:
    what = _words(error)
    where = f"the traceback is in {report}" if report is not None else "FASTCAL_DEBUG=1 shows where"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory ({what}); {where}"
    return f"this is a bug; please report it ({what}); {where}"


def _words(error: Exception) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    text = "".join(c if c.isprintable() else "?" for c in text)
    name = type(error).__name__
    line = f"{name}: {text}" if text else name
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def _write_report(error: Exception) -> Path | None:
    """Write the traceback into the working directory, else into the temporary folder."""
    try:
        text = _report(error)
    except Exception:  # an exception whose own text fails, or memory that has run out
        text = f"{type(error).__name__}, whose traceback cannot be written\n"
    import tempfile

    name = f"fastcal-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    for folder in (Path(), Path(tempfile.gettempdir())):
        for number in range(_MOST_NAMES):
            file = folder / f"{name}{f'-{number}' if number else ''}.txt"
            try:
                with file.open("x", encoding="utf-8", errors="backslashreplace") as stream:
                    stream.write(text)
                return file
            except FileExistsError:
                continue
            except OSError:
                break
    return None


def _report(error: Exception) -> str:
    from fastcal import __version__

    torch = sys.modules.get("torch")
    return "\n".join(
        (
            "Please read this before you send it: it has the paths of your files.",
            "",
            f"command   {' '.join(map(repr, sys.argv))}",
            f"folder    {_folder()}",
            f"fastcal   {__version__}",
            f"Python    {platform.python_version()} on {platform.platform()}",
            f"torch     {getattr(torch, '__version__', 'not loaded')}",
            "",
            "".join(traceback.format_exception(error)),
        )
    )


def _folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return "removed"


def _discard_output() -> bool:
    """Whether nobody reads stdout or stderr any more; what is left for them is thrown away.

    A broken pipe to a worker process is a bug like any other, so the pipes themselves are asked.
    """
    closed = False
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            descriptor = stream.fileno()
            if _is_closed(descriptor):
                closed = True
                # Python flushes both once more when it ends, and would complain.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
    return closed


def _is_closed(descriptor: int) -> bool:
    if not hasattr(select, "poll"):
        return True
    waiting = select.poll()
    waiting.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in waiting.poll(0))


def _say(message: str) -> None:
    with suppress(OSError, ValueError):  # stderr may be closed, and nothing is left to say it on
        print(f"fastcal: {message}", file=sys.stderr, flush=True)
