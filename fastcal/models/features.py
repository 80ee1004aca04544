"""Features of a network's deepest block, one vector per case."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastcal.models.network import SegmentationNetwork
from fastcal.models.window import sliding_window


def bottleneck_features(
    network: SegmentationNetwork,
    images: Tensor,
    *,
    patch: Sequence[int] | None = None,
    batch_size: int = 1,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the output of the deepest block, averaged over positions and slices or windows.

    Args:
        network: In evaluation mode.
        images: What it sees of a case, ``[N, Ch, *P]``.
        patch: Extents of a window; None for whole images.
        batch_size: Windows or images per forward pass.
        device: Where windows go; None is the device of the network.

    Returns:
        ``[F]``, float64, one number per channel of the deepest block.

    Raises:
        ValueError: The network has no deepest block, as only UNet tells which one it is; or an
            argument of `sliding_window` is out of range.

    Example:
        >>> from fastcal.models import UNet
        >>> network = UNet(1, 2, widths=(2, 4)).eval()
        >>> bottleneck_features(network, torch.zeros(3, 1, 8, 8)).shape
        torch.Size([4])
    """
    block = network.bottleneck
    if block is None:
        raise ValueError(
            f"network must be a UNet to tell its deepest block, got {type(network).__name__}"
        )
    sums: list[Tensor] = []
    count = 0

    def gather(module: nn.Module, given: tuple[Tensor, ...], features: Tensor) -> None:
        nonlocal count
        del module, given
        spatial = tuple(range(2, features.ndim))
        sums.append(features.double().mean(spatial).sum(0).cpu())
        count += len(features)

    handle = block.register_forward_hook(gather)
    try:
        sliding_window(network, images, patch=patch, batch_size=batch_size, device=device)
    finally:
        handle.remove()
    return torch.stack(sums).sum(0) / count
