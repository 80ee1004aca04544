"""The command line: every command parses, calls one documented function, and prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main", "run"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; see `fastcal.cli.app.main`."""
    try:
        from fastcal.cli import app
    except KeyboardInterrupt:  # while the first modules are read, before any door stands
        return 130
    return app.main(arguments)


def run() -> NoReturn:
    """Be the process of the command ``fastcal``: run it, and exit with its code.

    Ctrl-C prints no traceback, whenever it comes: neither while modules are imported, nor where
    Python can only report an exception, nor a second time while the first is being dealt with.
    """
    code = 130
    try:
        from fastcal.cli.interrupts import heard_everywhere, quiet_end

        heard_everywhere()
        code = main()
        quiet_end()
    except KeyboardInterrupt:
        pass
    sys.exit(code)
