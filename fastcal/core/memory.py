"""How much memory this process takes, and sizes as users write them."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

from fastcal.core.arguments import whole_number
from fastcal.core.doors.bounds import GIB, KIB, MIB

_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": GIB << 10}


_M_MMAP_THRESHOLD = -3
"""Of malloc.h."""


def resident_bytes() -> int:
    """Return the bytes of memory that this process has now; 0 where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * KIB
    except (OSError, ValueError):
        return 0
    return 0


def return_freed_blocks() -> None:
    """Make the C library return every large block to the system when it is freed.

    glibc learns from large blocks that are freed to keep those of up to 32 MiB, so that the memory
    of a process stays above what it uses. Setting the threshold ends the learning. Other libraries
    are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, MIB)


def read_size(value: int | str | None, name: str) -> int | None:
    """Read a number of bytes.

    Args:
        value: A number, or a text such as ``"2G"``, ``"500 MiB"`` or ``"1.5g"``, whose units are
            powers of 1024; None for no bound.
        name: What the message calls it.

    Raises:
        TypeError: It is something else.
        ValueError: It is no such size.

    Example:
        >>> read_size("2G", "memory"), read_size("1.5 KiB", "memory"), read_size(10, "memory")
        (2147483648, 1536, 10)
    """
    if value is None:
        return None
    if not isinstance(value, str):
        return whole_number(value, name)
    match = _SIZE.fullmatch(value.strip())
    found = 0 if match is None else int(float(match[1]) * _UNITS[match[2].upper()])
    if found < 1:
        raise ValueError(f"{name} must be a size such as 500M or 2G, got {value!r}")
    return found
