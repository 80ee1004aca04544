"""The device on which networks run, from what a user asked for."""

from __future__ import annotations

import torch


def choose_device(device: torch.device | str | None) -> torch.device:
    """Return the device asked for, or else the first GPU, or else the CPU.

    Raises:
        ValueError: It is neither a CPU nor a CUDA device, or this computer does not have it.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {str(device)!r}")
    if chosen.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= found:
            gpus = "no GPU" if found == 0 else f"{found} GPU" + "s" * (found > 1)
            raise ValueError(
                f"device must exist here, where torch finds {gpus}, got {str(device)!r}"
            )
    return chosen
