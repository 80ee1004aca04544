"""Probabilities of exclusive classes that do not sum to 1."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

SLACK = 1e-3
"""How far from 1 the sum of a voxel's probabilities may lie."""

MOST_CLASSES = 2000
"""Number of classes that may go without. The squares of one voxel's Brier score must sum to less
than 2^11 in fixed point."""

SAMPLED_VOXELS = 4096


def warn_of_sums(
    members: Sequence[Tensor],
    weights: Sequence[float],
    class_dim: int,
    *,
    scale: float = 1.0,
    stacklevel: int = 4,
) -> None:
    """Warn where the probabilities of maps without a target do not sum to 1.

    Where there is a target, every voxel is looked at while it is counted. Here it is up to
    `SAMPLED_VOXELS` voxels, evenly spread, and none of tensors on a GPU, which would have to be
    waited for.

    Args:
        members: Tensors with a class axis.
        weights: The weighted mean of the tensors is what has to sum to 1.
        class_dim: Their class axis.
        scale: Multiplies the mean.
        stacklevel: Frames from here to the user's line.
    """
    if torch.compiler.is_compiling() or members[0].device.type != "cpu":
        return
    # The numbers of a tensor under vmap cannot be looked at; the op then says what to do instead.
    if any(torch._C._functorch.is_batchedtensor(member) for member in members):
        return
    total = torch.zeros(())
    for tensor, weight in zip(members, weights, strict=True):
        total = total + weight / math.fsum(weights) * _sampled(tensor, class_dim).sum(0)
    n_off = int(((total * scale - 1).abs() > SLACK).sum())
    if n_off:
        warnings.warn(
            f"the probabilities of {n_off} of {total.numel()} voxels looked at do not sum to 1 "
            f"within {SLACK:g}; they are used as they are (normalise=True of ensemble_statistics "
            "divides by the sum)",
            stacklevel=stacklevel,
        )


def _sampled(tensor: Tensor, class_dim: int) -> Tensor:
    """Give evenly spread voxels ``[C, *S']`` of a tensor as float32 or float64."""
    first = tensor.movedim(class_dim, 0)
    steps = [1] * (first.dim() - 1)
    extents = list(first.shape[1:])
    while math.prod(extents) > SAMPLED_VOXELS:
        axis = max(range(len(extents)), key=extents.__getitem__)
        steps[axis] *= 2
        extents[axis] = -(-first.shape[1 + axis] // steps[axis])
    part = first[(slice(None), *(slice(None, None, step) for step in steps))]
    return part if part.dtype == torch.float64 else part.float()
