"""The command line: every command parses, calls one documented function, and prints."""

from fastcal.cli.app import main

__all__ = ["main"]
