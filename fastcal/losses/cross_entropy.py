"""Cross entropies from sums over voxels."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcal.losses.sums import ClassSums


def cross_entropy(
    sums: ClassSums, weight: Tensor | None, *, smoothing: float = 0.0, divisor: str
) -> Tensor:
    """Cross entropy of a softmax, a scalar in float64.

    ``sum_i ((1 - s) w_y (-ln p_iy) + (s / C) sum_k w_k (-ln p_ik))`` over a divisor; 0 where no
    voxel counts.

    Args:
        sums: with ``nll``, and ``rest`` where targets are smoothed.
        weight: ``w_k`` ``[C]``; None is 1 for every class.
        smoothing: s.
        divisor: ``"voxels"`` (the paper's), ``"weights"`` of the voxels (torch's), or ``"none"``.
    """
    nll, reference = sums.nll, sums.reference
    rest = sums.rest if smoothing > 0 else None
    if weight is not None:
        weights = weight.to(nll)
        nll, rest = weights * nll, None if rest is None else weights * rest
        reference = weights * reference if divisor == "weights" else reference
    total = nll.sum()
    if rest is not None:
        total = (1 - smoothing) * total + smoothing / nll.shape[1] * rest.sum()
    return total if divisor == "none" else total / _not_zero(reference.sum())


def binary_cross_entropy(sums: ClassSums, weight: Tensor | None, *, mean: bool) -> Tensor:
    """Cross entropy of every class by itself, a scalar in float64: mean over voxels and classes, or
    sum; 0 where no voxel counts.

    Args:
        sums: of a sigmoid, with ``nll`` and ``rest``.
        weight: factor ``[C]`` of the voxels of each class, torch's ``pos_weight``.
        mean: divide by the voxels that count, and the classes.
    """
    nll = sums.nll if weight is None else sums.nll * weight.to(sums.nll)
    total = (nll + sums.rest).sum()
    if not mean:
        return total
    return total / _not_zero(sums.voxels.sum() * nll.shape[1])


def _not_zero(amount: Tensor) -> Tensor:
    """An amount of voxels to divide a sum over them by, which is 0 where they are none."""
    return amount.clamp(min=torch.finfo(amount.dtype).tiny)
