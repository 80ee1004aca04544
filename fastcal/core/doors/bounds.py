"""How much a file may claim, compared before anything is allocated."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from fastcal.core.arguments import whole_number

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

DEFLATE_RATIO = 1032
"""The most that deflate expands: 258 bytes for two bits (zlib's technical notes)."""

DEFLATE_SLACK = 64 * KIB
"""What a tiny compressed file may claim beside its ratio."""


class ClaimError(ValueError):
    """A file claims more than it can hold, than is expected, or than there is memory for."""


def bounded(value: object, name: str, most: int, *, least: int = 1) -> int:
    """Return ``value`` as an int that lies in ``[least, most]``.

    For counts that become loops or memory, such as a number of classes or draws.

    Args:
        value: An integer of any type but bool.
        name: What the message calls it, such as ``"--num-classes"``.
        most: The largest value allowed.
        least: The smallest value allowed.

    Raises:
        TypeError: ``value`` is no integer.
        ValueError: It lies outside.

    Example:
        >>> bounded(4, "n_classes", 65535)
        4
        >>> bounded(10**9, "n_classes", 65535)
        Traceback (most recent call last):
        ValueError: n_classes must be from 1 to 65535, got 1000000000
    """
    number = whole_number(value, name)
    if not least <= number <= most:
        raise ValueError(f"{name} must be from {least} to {most}, got {_short(number)}")
    return number


def check_claim(
    claimed: int, *, most: int | None = None, what: str = "the data", in_memory: bool = True
) -> None:
    """Refuse a claimed size that is beyond what is expected, or beyond this machine.

    Args:
        claimed: Bytes that are about to be allocated.
        most: The most that the caller expects, in bytes; None asks the machine alone.
        what: What has the size, for the message.
        in_memory: False for what is mapped, which may be larger than the memory.

    Raises:
        ClaimError: The claim is too large.
    """
    if most is not None and claimed > most:
        raise ClaimError(f"{what} must take at most {size(most)}, got {size(claimed)}")
    memory = physical_memory() if in_memory else None
    if memory is not None and claimed > memory:
        raise ClaimError(f"{what} must fit the memory of {size(memory)}, got {size(claimed)}")


def check_expansion(claimed: int, compressed: int, *, what: str = "the data") -> None:
    """Refuse a claim that no deflate stream of ``compressed`` bytes can hold.

    Args:
        claimed: Bytes that are to come out.
        compressed: Bytes that are there.
        what: What has the size, for the message.

    Raises:
        ClaimError: The claim is impossible.
    """
    if claimed > compressed * DEFLATE_RATIO + DEFLATE_SLACK:
        raise ClaimError(
            f"{what} must be at most {DEFLATE_RATIO} times the {size(compressed)} that are "
            f"compressed, got {size(claimed)}"
        )


def array_bytes(shape: Sequence[int], itemsize: int) -> int:
    """Bytes of an array, as a Python int that cannot overflow.

    Example:
        >>> array_bytes((20000, 20000, 20000), 4)
        32000000000000
    """
    return math.prod(shape) * itemsize


def physical_memory() -> int | None:
    """Bytes of memory of this machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def size(n_bytes: int) -> str:
    """A number of bytes in the largest unit that leaves it above one.

    Example:
        >>> size(512), size(3 * 1024**4 // 2)
        ('512 bytes', '1.5 TiB')
    """
    if n_bytes < KIB:
        return f"{n_bytes} bytes"
    for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB", "PiB"), start=1):
        if n_bytes < 1 << 10 * (power + 1):
            return f"{n_bytes / (1 << 10 * power):.1f} {unit}"
    return "more than 1024 PiB"


def _short(number: int) -> str:
    return str(number) if abs(number) < 10**30 else "a number of more than 30 digits"
