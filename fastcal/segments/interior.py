"""Which voxels of a segment are farther from its boundary than a given depth.

SciPy's distance transform takes seconds per structure of a volume. Here only distances up to the
depth matter, so all structures share one sweep per axis, on the device of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from fastcal import backends
from fastcal.segments.sweep import sweep


def interior(labels: Tensor, depth: float, steps: Sequence[float]) -> Tensor:
    """Find the voxels whose nearest voxel of another label is farther away than ``depth``.

    Distances are Euclidean, between the centres of voxels. The edge of the volume is no boundary.
    The squared distance is found one axis after another: along an axis, the nearest other label
    is k steps away, or lies beyond a voxel of the same label whose distance in the axes before is
    known.

    Args:
        labels: Integers ``[N, *S]``; volumes along the first axis have nothing to do with one
            another.
        depth: Not negative.
        steps: Distance between neighbours along each axis of S.

    Returns:
        bool ``[N, *S]``.

    Example:
        >>> interior(torch.tensor([[0, 0, 0, 1, 1, 1, 1]]), 1.0, [1.0])
        tensor([[ True,  True, False, False,  True,  True,  True]])
    """
    inside = torch.ones(labels.shape, dtype=torch.bool, device=labels.device)
    shapes = backends.shapes(labels.device)
    bytewise = _whole(depth, steps) and labels.dtype == torch.uint8 and len(steps) <= 3
    if shapes is not None and bytewise:
        for volume, result in zip(labels.contiguous(), inside, strict=True):
            shapes.interior(volume, math.floor(depth * depth), math.floor(depth), result)
        return inside
    for volume, result in zip(labels, inside, strict=True):
        box = _around_boundaries(volume, depth, steps)
        if box is not None:
            result[box] = _interior_of_box(volume[box].contiguous(), depth, steps)
    return inside


def _interior_of_box(labels: Tensor, depth: float, steps: Sequence[float]) -> Tensor:
    limit = depth * depth
    small = _whole(depth, steps)
    dtype = torch.uint8 if small else torch.float64
    beyond = math.floor(limit) + 1 if small else 2 * limit + 1
    squared = torch.full(labels.shape, beyond, dtype=dtype, device=labels.device)
    for axis, step in enumerate(steps):
        squared = sweep(squared, axis, partial(_nearest, axis=axis, step=step, depth=depth), labels)
    # Distances are sums of products of floats, whose last bits must not decide.
    return squared > (math.floor(limit) if small else limit * (1 + 1e-6))


def _whole(depth: float, steps: Sequence[float]) -> bool:
    """Tell whether squares of distances are whole, compared exactly, and held by bytes."""
    return all(step == 1 for step in steps) and depth * depth <= 100


def _nearest(squared: Tensor, labels: Tensor, *, axis: int, step: float, depth: float) -> Tensor:
    """Give the smallest squared distance to another label, with the steps along this axis too."""
    size, nearest = labels.shape[axis], squared.clone()
    for k in range(1, min(math.floor(depth / step * (1 + 1e-6)), size - 1) + 1):
        across = torch.tensor((k * step) ** 2, dtype=squared.dtype, device=labels.device)
        first, second = _along(axis, slice(0, size - k)), _along(axis, slice(k, size))
        same = labels[first] == labels[second]
        for here, there in ((first, second), (second, first)):
            # A product, since `where` is several times slower on bytes.
            candidate = squared[there] * same + across
            torch.minimum(nearest[here], candidate, out=nearest[here])
    return nearest


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, part)


def _around_boundaries(
    labels: Tensor, depth: float, steps: Sequence[float]
) -> tuple[slice, ...] | None:
    """Give a box outside which every voxel is farther than ``depth`` from any boundary.

    It is that of the voxels with another label than the first one, which mostly is background.
    """
    other = (labels != labels.reshape(-1)[0]).view(torch.uint8)
    box = []
    for axis, (step, size) in enumerate(zip(steps, labels.shape, strict=True)):
        rest = [a for a in range(labels.dim()) if a != axis]
        where = (other.amax(rest) if rest else other).nonzero()
        if not len(where):
            return None
        margin = math.floor(depth / step * (1 + 1e-6))
        box.append(slice(max(0, int(where[0]) - margin), min(size, int(where[-1]) + 1 + margin)))
    return tuple(box)
