"""The most uncertain patch of each segment (ValUES, Kahl et al., ICLR 2024)."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from fastcal import backends
from fastcal.segments.sweep import pieces, sweep


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
    if values[:1].numel() == 0:
        return torch.full_like(found, torch.nan)
    shapes = backends.shapes(values.device)
    if shapes is not None and label.dtype == torch.uint8 and values.dim() <= 4:
        sums, volumes = torch.empty_like(values[0]).contiguous(), values.contiguous()
        for item, labels in enumerate(label.contiguous()):
            shapes.patch_maxima(volumes[item], labels, size, sums, found[item])
        found /= math.prod(min(size, extent) for extent in values.shape[1:])
        return torch.where(found == -torch.inf, torch.nan, found)
    shared = label.dim() == values.dim()
    for item, volume in enumerate(values):
        sums, voxels = volume.nan_to_num(0.0), 1
        starts = []
        for axis, extent in enumerate(volume.shape):
            width = min(size, extent)
            sums = sweep(sums, axis, partial(_window_sums, axis=axis, width=width))
            index = torch.arange(extent, device=volume.device) - width // 2
            starts.append(index.clamp(0, extent - width))
            voxels *= width
        for part in pieces(volume, 0):
            patches = sums
            for axis, start in enumerate(starts):
                patches = patches.index_select(axis, start[part] if axis == 0 else start)
            largest = (
                _largest(patches, label[item][part], num_classes)
                if shared
                else _largest_of_planes(patches, label[item][:, part])
            )
            found[item] = torch.maximum(found[item], largest.to(torch.float64) / voxels)
    return torch.where(found == -torch.inf, torch.nan, found)


def _window_sums(values: Tensor, *, axis: int, width: int) -> Tensor:
    """Add ``width`` neighbours along an axis, from sums of 1, 2, 4, ... of them.

    No sum is the difference of larger ones, so that float32 keeps all but its last bits.
    """
    power, length = values, 1
    result: Tensor | None = None
    covered = 0
    while True:
        if width & length:
            if result is None:
                result = power
            else:
                extent = power.shape[axis] - covered
                result = result.narrow(axis, 0, extent) + power.narrow(axis, covered, extent)
            covered += length
        if 2 * length > width:
            assert result is not None
            return result
        extent = power.shape[axis] - length
        power = power.narrow(axis, 0, extent) + power.narrow(axis, length, extent)
        length *= 2


def _largest(values: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Give the largest value of each class, -inf for one without voxels."""
    index = label.reshape(-1).to(torch.int64)
    # One place more for the voxels that belong to no class.
    index = torch.where((index >= 0) & (index < num_classes), index, num_classes)
    largest = values.new_full((num_classes + 1,), -torch.inf)
    return largest.scatter_reduce_(0, index, values.reshape(-1), "amax")[:num_classes]


def _largest_of_planes(values: Tensor, planes: Tensor) -> Tensor:
    """The same for a label of 0 or 1 per class, ``[C, *S]``."""
    return torch.where(planes == 1, values, -torch.inf).flatten(1).amax(1)
