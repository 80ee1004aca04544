"""Resampling of images and label maps ``[N, Ch, *P]`` to other grids of the same extent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Interpolation = Literal["linear", "cubic"]
LabelInterpolation = Literal["nearest", "linear"]

# Ratio of the coarsest to the finest spacing above which the coarse axis is resampled separately,
# as in nnU-Net.
ANISOTROPY = 3.0

_FILTERS = {"linear": "bilinear", "cubic": "bicubic"}


def coarse_axis(current: Sequence[float], target: Sequence[float]) -> int | None:
    """Return the axis that is far coarser than the others, now or at the target spacing.

    Between slices that are far apart, interpolation makes no sense. As in nnU-Net, such an axis is
    resampled by nearest neighbour, whatever the interpolation of the others.
    """
    for spacing in (current, target):
        if max(spacing) > ANISOTROPY * min(spacing):
            coarse = [axis for axis, step in enumerate(spacing) if step == max(spacing)]
            return coarse[0] if len(coarse) == 1 else None
    return None


def resample(
    items: Tensor,
    extents: Sequence[int],
    *,
    interpolation: Interpolation = "linear",
    nearest_axis: int | None = None,
) -> Tensor:
    """Resample real items ``[N, Ch, *P]``, with a low-pass filter where they shrink.

    Args:
        items: Items with two or three spatial axes.
        extents: New extents of the spatial axes.
        interpolation: ``"linear"``, or ``"cubic"`` for cubic convolution.
        nearest_axis: A spatial axis that is resampled by nearest neighbour instead.
    """
    if nearest_axis is not None:
        items = _nearest(items, 2 + nearest_axis, extents[nearest_axis])
    if items.ndim == 4:
        return _filtered(items, extents, interpolation)
    # The filters are separable, so the planes of the last two axes come first, then the columns.
    planes = _filtered(items.flatten(0, 1), extents[1:], interpolation)
    columns = planes.flatten(2).unsqueeze(1)
    columns = _filtered(columns, (extents[0], columns.shape[3]), interpolation)
    return columns.reshape(*items.shape[:2], *extents)


def resample_labels(
    labels: Tensor,
    extents: Sequence[int],
    *,
    interpolation: LabelInterpolation = "nearest",
    nearest_axis: int | None = None,
) -> Tensor:
    """Resample integer labels ``[N, 1, *P]``.

    Args:
        labels: The labels.
        extents: New extents of the spatial axes.
        interpolation: ``"nearest"``, or ``"linear"``, which gives each voxel the label with the
            largest share after linear resampling, as in nnU-Net; of equal shares, the lower label.
        nearest_axis: A spatial axis that is resampled by nearest neighbour in any case.
    """
    if interpolation == "nearest":
        for axis, extent in enumerate(extents, start=2):
            labels = _nearest(labels, axis, extent)
        return labels
    result = labels.new_zeros((*labels.shape[:2], *extents))
    largest = torch.zeros(result.shape)
    for value in torch.unique(labels).tolist():
        share = resample((labels == value).float(), extents, nearest_axis=nearest_axis)
        result[share > largest] = value
        largest = torch.maximum(largest, share)
    return result


def _nearest(items: Tensor, axis: int, extent: int) -> Tensor:
    """Take the voxel that holds the centre of each new one, in integers, so nothing is rounded."""
    present = items.shape[axis]
    if present == extent:
        return items
    centres = 2 * torch.arange(extent, device=items.device) + 1
    return items.index_select(axis, centres * present // (2 * extent))


def _filtered(items: Tensor, extents: Sequence[int], interpolation: Interpolation) -> Tensor:
    if tuple(items.shape[2:]) == tuple(extents):
        return items
    return functional.interpolate(
        items, size=tuple(extents), mode=_FILTERS[interpolation], antialias=True
    )
