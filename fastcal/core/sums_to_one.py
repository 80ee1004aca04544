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

_FEW_VOXELS = 16
_LEAST_VOXELS = 4
"""Fewer voxels of logits may be between 0 and 1 with the sum 1 by chance, as in examples."""


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


def warn_of_logits(logits: Tensor, class_dim: int, *, stacklevel: int = 3) -> None:
    """Warn where what is read as logits can only be probabilities: from 0 to 1, with the sum 1.

    The softmax of probabilities is a valid distribution, only far too flat, so that nothing else
    would tell. As in `warn_of_sums`, some voxels are looked at, and none on a GPU.

    Args:
        logits: A tensor with a class axis.
        class_dim: Its class axis.
        stacklevel: Frames from here to the user's line.
    """
    if torch.compiler.is_compiling() or logits.device.type != "cpu":
        return
    # Logits differ in the first few voxels as a rule, and these cost a call next to nothing.
    slack = max(SLACK, torch.finfo(logits.dtype).eps)  # what rounding to a short type costs
    for most in (_FEW_VOXELS, SAMPLED_VOXELS):
        voxels = _sampled(logits, class_dim, most)
        n_voxels = voxels[0].numel()
        if n_voxels < _LEAST_VOXELS or not _are_probabilities(voxels, slack):
            return
    warnings.warn(
        f"the logits of all {n_voxels} voxels looked at lie between 0 and 1 and sum to 1, as "
        "probabilities do; pass from_logits=False if they are",
        stacklevel=stacklevel,
    )


def _are_probabilities(voxels: Tensor, slack: float) -> bool:
    low, high = voxels.aminmax()
    if not (low >= 0 and high <= 1):
        return False
    return bool(((voxels.sum(0) - 1).abs() <= slack).all())


def _sampled(tensor: Tensor, class_dim: int, most: int = SAMPLED_VOXELS) -> Tensor:
    """Give evenly spread voxels ``[C, *S']`` of a tensor as float32 or float64."""
    first = tensor.movedim(class_dim, 0)
    steps = [1] * (first.dim() - 1)
    extents = list(first.shape[1:])
    while math.prod(extents) > most:
        axis = max(range(len(extents)), key=extents.__getitem__)
        steps[axis] *= 2
        extents[axis] = -(-first.shape[1 + axis] // steps[axis])
    part = first[(slice(None), *(slice(None, None, step) for step in steps))]
    return part if part.dtype == torch.float64 else part.float()
