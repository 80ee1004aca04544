"""How results were made: the command, the versions, and what went in."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Provenance:
    """What somebody needs to make a page again, and to know that it is the same."""

    command: str
    software: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Only those that differ from their defaults."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Digest (SHA-256) of what was read, by what it is."""


def command_line() -> str:
    """Return the command line of this process, as a user would type it."""
    program = Path(sys.argv[0]).name
    return shlex.join(["fastcal" if program == "__main__.py" else program, *sys.argv[1:]])


def software() -> str:
    """Return the versions that numbers may depend on, and the number of threads."""
    import torch

    from fastcal import __version__

    return (
        f"fastcal {__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads"
    )
