"""How results were made: the command, the versions, and the machine."""

from __future__ import annotations

import platform
import shlex
import sys
from pathlib import Path


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


def machine() -> str:
    """Return the processor, and the GPU if there is one."""
    import torch

    from fastcal.info import collect

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{collect(gpu=False).cpu.model}{gpu}"
