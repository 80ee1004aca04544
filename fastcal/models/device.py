"""Where networks and members are computed, from what a user asked for."""

from __future__ import annotations

import torch


def choose_device(device: torch.device | str | None) -> torch.device:
    """The device asked for, or the first GPU where there is one, or the CPU.

    Raises:
        ValueError: It is no CPU or CUDA device, or there is none of that number here.

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
        raise ValueError(f"device: got {str(device)!r}, expected cpu, cuda or cuda:N")
    if chosen.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= found:
            gpus = "no GPU" if found == 0 else f"{found} GPU" + "s" * (found > 1)
            raise ValueError(f"device: got {str(device)!r}, but torch finds {gpus} here")
    return chosen
