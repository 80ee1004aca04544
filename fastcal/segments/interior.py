"""Which voxels of a segment are farther from its boundary than a given depth.

SciPy's distance transform takes seconds per structure of a volume. Here only distances up to the
depth matter, so all structures share one sweep per axis, on the device of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


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
    for volume, result in zip(labels, inside, strict=True):
        box = _around_boundaries(volume, depth, steps)
        if box is not None:
            result[box] = _interior_of_box(volume[box].contiguous(), depth, steps)
    return inside


def _interior_of_box(labels: Tensor, depth: float, steps: Sequence[float]) -> Tensor:
    limit = depth * depth
    # Whole steps have whole squares, which bytes hold and which are compared exactly.
    small = all(step == 1 for step in steps) and limit <= 100
    dtype = torch.uint8 if small else torch.float64
    beyond = math.floor(limit) + 1 if small else math.inf
    squared = torch.full(labels.shape, beyond, dtype=dtype, device=labels.device)
    for axis, step in enumerate(steps):
        size = labels.shape[axis]
        nearest = squared.clone()
        for k in range(1, min(math.floor(depth / step * (1 + 1e-6)), size - 1) + 1):
            along = (k * step) ** 2
            across = torch.tensor(along, dtype=dtype, device=labels.device)
            front, back = (slice(0, size - k), slice(k, size))
            first, second = _along(axis, front), _along(axis, back)
            same = labels[first] == labels[second]
            for here, there in ((first, second), (second, first)):
                candidate = torch.where(same, squared[there] + across, across)
                torch.minimum(nearest[here], candidate, out=nearest[here])
        squared = nearest
    # Distances are sums of products of floats, whose last bits must not decide.
    return squared > (math.floor(limit) if small else limit * (1 + 1e-6))


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, part)


def _around_boundaries(
    labels: Tensor, depth: float, steps: Sequence[float]
) -> tuple[slice, ...] | None:
    """Give the box outside which every voxel is farther than ``depth`` from any boundary."""
    axes = labels.dim()
    bounds: list[tuple[int, int]] | None = None
    for axis in range(axes):
        size = labels.shape[axis]
        front, back = _along(axis, slice(0, size - 1)), _along(axis, slice(1, size))
        differs = labels[front] != labels[back]
        if not bool(differs.any()):
            continue
        found = []
        for other in range(axes):
            rest = [a for a in range(axes) if a != other]
            where = (differs.amax(rest) if rest else differs).nonzero()
            found.append((int(where[0]), int(where[-1]) + 1 + (other == axis)))
        if bounds is None:
            bounds = found
        else:
            bounds = [(min(a, c), max(b, d)) for (a, b), (c, d) in zip(bounds, found, strict=True)]
    if bounds is None:
        return None
    margins = [math.floor(depth / step * (1 + 1e-6)) for step in steps]
    return tuple(
        slice(max(0, start - margin), min(size, stop + margin))
        for (start, stop), margin, size in zip(bounds, margins, labels.shape, strict=True)
    )
