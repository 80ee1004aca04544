"""Errors of memory that runs out, on GPUs and CPUs."""

from __future__ import annotations

import torch


class OutOfMemoryError(ValueError):
    """Memory ran out; the message is one line that says what to lower."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is one of the forms in which memory runs out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "not enough memory" in text or "can't allocate memory" in text or "out of memory" in text
    )
