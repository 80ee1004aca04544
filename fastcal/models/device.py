"""The device on which networks run, from what a user asked for."""

from __future__ import annotations

from collections.abc import Sequence

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


def choose_devices(
    device: torch.device | str | Sequence[torch.device | str] | None,
) -> tuple[torch.device, ...]:
    """Return the devices asked for: one or several, or every GPU for ``"all"``.

    Raises:
        ValueError: See `choose_device`; or a device is there twice, or there is none.

    Example:
        >>> choose_devices("cpu")
        (device(type='cpu'),)
    """
    if device is None or isinstance(device, torch.device):
        return (choose_device(device),)
    if device == "all":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found == 0:
            raise ValueError("device must exist here, where torch finds no GPU, got 'all'")
        return tuple(torch.device("cuda", index) for index in range(found))
    names = [device] if isinstance(device, str) else list(device)
    chosen = tuple(choose_device(name) for name in names)
    if not chosen or len({_number(one) for one in chosen}) < len(chosen):
        shown = ", ".join(map(str, names)) or "none"
        raise ValueError(f"device must name each device once, got {shown}")
    return chosen


def _number(device: torch.device) -> tuple[str, int]:
    """Tell devices apart; cuda is the current one, 0 unless the caller chose another."""
    index = device.index
    if index is None:
        initialised = device.type == "cuda" and torch.cuda.is_initialized()
        index = torch.cuda.current_device() if initialised else 0
    return device.type, index
