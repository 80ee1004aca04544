"""The most uncertain patch of each segment (ValUES, Kahl et al., ICLR 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_FRACTION_BITS = 40
"""As in every other sum of fastcal, unless patches are so large that it would overflow."""

_VALUE_BITS = 10
"""Entropies are below 1024."""


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
        means = _patch_means(volume, size)
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
    """Give every voxel the mean over its patch, by running sums along each axis.

    The sums are of integers, so that they do not depend on where a volume begins: means of parts of
    a volume are bit-identical to those of the whole. The running sums may wrap around. Their
    differences, which are the sums over patches, do not.
    """
    widths = [min(size, extent) for extent in volume.shape]
    bits = min(_FRACTION_BITS, 62 - _VALUE_BITS - math.prod(widths).bit_length())
    sums = (volume.to(torch.float64).nan_to_num(0.0) * 2.0**bits).round_().to(torch.int64)
    for axis, (extent, width) in enumerate(zip(volume.shape, widths, strict=True)):
        if width < 2:
            continue
        running = sums.cumsum(axis)
        ends = running.narrow(axis, width - 1, extent - width + 1).clone()
        ends.narrow(axis, 1, extent - width).sub_(running.narrow(axis, 0, extent - width))
        before = min(size // 2, width - 1)
        edges = ((0, before), (extent - width, width - 1 - before))
        start, end = (
            ends.narrow(axis, at, 1).expand([n if a == axis else -1 for a in range(ends.dim())])
            for at, n in edges
        )
        sums = torch.cat((start, ends, end), axis)
    return sums.to(torch.float64).div_(2.0**bits * math.prod(widths))
