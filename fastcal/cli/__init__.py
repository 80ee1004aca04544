"""The command line: every command parses, calls one documented function, and prints."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; see `fastcal.cli.app.main`."""
    try:
        from fastcal.cli import app
    except KeyboardInterrupt:  # while the first modules are read, before any door stands
        return 130
    return app.main(arguments)
