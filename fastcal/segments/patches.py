"""The most uncertain patch of each segment (ValUES, Kahl et al., ICLR 2024)."""

from __future__ import annotations

import torch
from torch import Tensor


def patch_maxima(values: Tensor, label: Tensor, num_classes: int, size: int) -> Tensor:
    """Find the largest mean over a patch among those that belong to the voxels of each segment.

    The patch of a voxel begins ``size // 2`` voxels before it along each axis, and is moved into
    the volume where it would leave it. Where the volume is thinner than the patch, so is the patch.
    Voxels without a value (NaN) count as 0.

    Args:
        values: ``[B, *S]``.
        label: ``[B, *S]``, or ``[B, C, *S]`` of 0 and 1.
        num_classes: C.
        size: Voxels along each edge of a patch.

    Returns:
        float64 ``[B, C]``, NaN for an empty segment.

    Example:
        >>> values = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]])
        >>> patch_maxima(values, torch.tensor([[0, 0, 0, 0, 1]]), 2, 2)
        tensor([[1.0000, 0.5000]], dtype=torch.float64)
    """
    found = torch.full(
        (len(values), num_classes), -torch.inf, dtype=torch.float64, device=values.device
    )
    for item, volume in enumerate(values):
        means = _patch_means(volume.nan_to_num(0.0), size)
        if label.dim() == values.dim():
            index = label[item].reshape(-1).to(torch.int64)
            # One place more for the voxels that belong to no class.
            index = torch.where((index >= 0) & (index < num_classes), index, num_classes)
            largest = found.new_full((num_classes + 1,), -torch.inf)
            largest.scatter_reduce_(0, index, means.reshape(-1), "amax")
            found[item] = largest[:num_classes]
        else:
            for k in range(num_classes):
                inside = means[label[item, k] == 1]
                if inside.numel():
                    found[item, k] = inside.max()
    return torch.where(found == -torch.inf, torch.nan, found)


def _patch_means(volume: Tensor, size: int) -> Tensor:
    """Give every voxel the mean over its patch, by running sums along each axis in float64."""
    means = volume.to(torch.float64)
    for axis, extent in enumerate(volume.shape):
        width = min(size, extent)
        if width < 2:
            continue
        running = means.cumsum(axis)
        ends = running.narrow(axis, width - 1, extent - width + 1).clone()
        ends.narrow(axis, 1, extent - width).sub_(running.narrow(axis, 0, extent - width))
        first = torch.arange(extent, device=volume.device) - size // 2
        means = ends.index_select(axis, first.clamp_(0, extent - width)) / width
    return means
