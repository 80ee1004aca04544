"""Which errors say that a kernel cannot be compiled or launched, so that another backend may."""

from __future__ import annotations

import re
import subprocess

import torch

_LAUNCH_CODES = {
    *(1, 2, 8, 98),  # invalid value, no memory for the module, invalid symbol or device function
    *(200, 209, 218, 219, 220, 221, 222, 223, 224),  # no machine code for this GPU, or bad PTX
    *(300, 301, 302, 303, 304),  # the module could not be loaded
    *(500, 701, 801),  # not found, too many resources, not supported
}
"""Codes of ``cudaError_t`` with which a launch is refused. None of them harms the context."""

_NOT_THE_KERNEL = re.compile(
    r"illegal|misaligned|device-side assert|unspecified launch failure|launch timed out|ECC error|"
    r"stack error|invalid program counter|hardware|captur"
)
"""Words of errors that an earlier kernel left behind, after which no backend can go on, and of what
a graph cannot capture."""


def cannot_launch(error: Exception) -> bool:
    """Tell whether an error of a backend means that its kernel cannot be compiled or launched.

    Args:
        error: What a function of a backend raised. Mistakes in arguments, exhausted memory and
            errors that an earlier kernel left behind are of other kinds.

    Example:
        >>> cannot_launch(RuntimeError("CUDA error 209: no kernel image is available"))
        True
        >>> cannot_launch(RuntimeError("CUDA error 700: an illegal memory access was encountered"))
        False
    """
    if isinstance(error, torch.OutOfMemoryError):
        return False
    if of_ours := re.match(r"CUDA error (\d+): ", str(error)):
        return int(of_ours[1]) in _LAUNCH_CODES
    if type(error).__module__.partition(".")[0] == "triton":
        return True
    # Triton's passes raise a RuntimeError. Its launcher is built by the C compiler of the machine.
    kinds = (RuntimeError, OSError, ImportError, subprocess.SubprocessError)
    return isinstance(error, kinds) and _NOT_THE_KERNEL.search(str(error)) is None
