"""The machine that made results."""

from __future__ import annotations


def machine() -> str:
    """Return the processor, and the GPU if there is one."""
    import torch

    from fastcal.info import collect

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{collect(gpu=False).cpu.model}{gpu}"
